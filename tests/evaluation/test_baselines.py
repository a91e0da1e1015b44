"""PCA of pixels as an encoder, against scikit-learn's exact decomposition."""

import numpy as np
from sklearn.decomposition import PCA

from simclr_tf.data.base import ArraySource
from simclr_tf.evaluation.baselines import PCAEncoder
from simclr_tf.evaluation.features import extract_features


def _source(count, seed):
    images = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return ArraySource(f"noise {seed}", images)


def _pixels(source):
    return source.images.reshape(len(source.images), -1) / 255


def test_pca_equals_the_exact_components_of_the_training_pixels():
    train, test = _source(21, 0), _source(12, 1)
    encoder = PCAEncoder(train, image_size=8, batch_size=8)
    exact = PCA(21, svd_solver="full").fit(_pixels(train))
    # Up to the sign of each component; the last of 21 has no variance after centering.
    for source in (train, test):
        ours = extract_features(encoder, source, 8, 8).features
        expected = exact.transform(_pixels(source))
        assert ours.shape == expected.shape == (source.num_examples, 21)
        np.testing.assert_allclose(abs(ours)[:, :20], abs(expected)[:, :20], atol=1e-3)
    assert not encoder.warning


def test_pca_of_the_same_images_is_reproducible():
    first, again = (PCAEncoder(_source(21, 0), 8, 8) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    batch = _source(5, 2).images / np.float32(255)
    np.testing.assert_array_equal(first(batch), again(batch))
    assert PCAEncoder(_source(21, 1), 8, 8).fingerprint != first.fingerprint


def test_pca_subsamples_images_evenly_above_its_memory_limit():
    train = _source(40, 0)
    encoder = PCAEncoder(train, image_size=8, batch_size=8, dims=5, max_bytes=12 * 64 * 10)
    assert "10 evenly spaced" in encoder.warning
    rows = np.linspace(0, 39, 10).astype(int)
    pixels = _pixels(train)[rows]
    exact = PCA(5, svd_solver="full").fit(pixels)
    found = extract_features(encoder, train, 8, 8).features[rows]
    np.testing.assert_allclose(abs(found), abs(exact.transform(pixels)), atol=1e-3)
