"""PCA of pixels as an encoder, against scikit-learn's exact decomposition."""

import numpy as np
from sklearn.decomposition import PCA

from simclr_tf.data.base import ArraySource
from simclr_tf.evaluation import baselines
from simclr_tf.evaluation.baselines import PCAEncoder
from simclr_tf.evaluation.features import extract_features


def _source(count, seed):
    rng = np.random.default_rng(seed)
    return ArraySource(f"noise {seed}", rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8))


def test_components_are_those_of_the_train_pixels():
    train, test = _source(21, 0), _source(12, 1)
    encoder = PCAEncoder(train, image_size=8, batch_size=8)
    found = [extract_features(encoder, source, 8, 8).features for source in (train, test)]
    pixels = [source.images.reshape(len(source.images), -1) / 255 for source in (train, test)]
    exact = PCA(21, svd_solver="full").fit(pixels[0])
    # Up to the sign of each component; the last of 21 has no variance left after centring.
    for ours, images in zip(found, pixels, strict=True):
        assert ours.shape == (len(images), 21)
        wanted = exact.transform(images)
        np.testing.assert_allclose(abs(ours)[:, :20], abs(wanted)[:, :20], atol=1e-3)
    assert not encoder.notice


def test_the_same_images_give_the_same_components():
    first, again = (PCAEncoder(_source(21, 0), 8, 8) for _ in range(2))
    assert first.identity == again.identity
    np.testing.assert_array_equal(first._components, again._components)
    assert PCAEncoder(_source(21, 1), 8, 8).identity != first.identity


def test_more_images_than_fit_are_thinned_out_evenly(monkeypatch):
    monkeypatch.setattr(baselines, "PCA_DIMS", 5)
    monkeypatch.setattr(baselines, "_FIT_BYTES", 12 * 64 * 10)
    train = _source(40, 0)
    encoder = PCAEncoder(train, image_size=8, batch_size=8)
    assert "10 evenly spaced" in encoder.notice
    rows = np.linspace(0, 39, 10).astype(int)
    pixels = train._images[rows].reshape(10, -1) / 255
    exact = PCA(5, svd_solver="full").fit(pixels)
    found = extract_features(encoder, train, 8, 8).features[rows]
    np.testing.assert_allclose(abs(found), abs(exact.transform(pixels)), atol=1e-3)
