"""PCA of pixels as an encoder, against scikit-learn's exact decomposition."""

import numpy as np
from sklearn.decomposition import PCA

from simclr_tf.data.base import ArraySource
from simclr_tf.evaluation.baselines import PCAEncoder
from simclr_tf.evaluation.features import extract_features


def _images(count, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def _source(count, seed):
    return ArraySource(f"noise {seed}", _images(count, seed))


def test_pca_equals_the_exact_components_of_the_training_pixels():
    encoder = PCAEncoder(_source(21, 0), image_size=8, batch_size=8)
    pixels = [_images(count, seed).reshape(count, -1) / 255 for count, seed in ((21, 0), (12, 1))]
    exact = PCA(21, svd_solver="full").fit(pixels[0])
    # Up to the sign of each component; the last of 21 has no variance after centering.
    for source, images in zip((_source(21, 0), _source(12, 1)), pixels, strict=True):
        ours = extract_features(encoder, source, 8, 8).features
        assert ours.shape == (len(images), 21)
        expected = exact.transform(images)
        np.testing.assert_allclose(abs(ours)[:, :20], abs(expected)[:, :20], atol=1e-3)
    assert not encoder.warning


def test_pca_of_the_same_images_is_reproducible():
    first, again = (PCAEncoder(_source(21, 0), 8, 8) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    batch = _images(5, 2) / np.float32(255)
    np.testing.assert_array_equal(first(batch), again(batch))
    assert PCAEncoder(_source(21, 1), 8, 8).fingerprint != first.fingerprint


def test_pca_subsamples_images_evenly_above_its_memory_limit():
    train = _source(40, 0)
    encoder = PCAEncoder(train, image_size=8, batch_size=8, dims=5, max_bytes=12 * 64 * 10)
    assert "10 evenly spaced" in encoder.warning
    rows = np.linspace(0, 39, 10).astype(int)
    pixels = _images(40, 0)[rows].reshape(10, -1) / 255
    exact = PCA(5, svd_solver="full").fit(pixels)
    found = extract_features(encoder, train, 8, 8).features[rows]
    np.testing.assert_allclose(abs(found), abs(exact.transform(pixels)), atol=1e-3)
