"""Feature extraction: order, padding, inference mode, bad values."""

import threading

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.data.base import ArraySource
from simclr_tf.errors import UserError
from simclr_tf.evaluation import features as feature_store
from simclr_tf.evaluation.features import FeatureExtractor, extract_features, hash_weights
from simclr_tf.utils import progress


def _source(count=10, size=8, labelled=True):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    if not labelled:
        return images, ArraySource("random", images)
    labels = rng.integers(0, 3, count)
    return images, ArraySource("random", images, labels, ("a", "b", "c"))


def _flatten(batch, training):
    return tf.reshape(batch, [batch.shape[0], -1])


def test_every_image_once_in_order_with_one_graph():
    images, source = _source(count=10)
    shapes = []

    def encoder(batch, training):
        shapes.append(batch.shape)
        return tf.stack([tf.reduce_mean(batch, [1, 2, 3]), batch[:, 0, 0, 0]], axis=1)

    found = extract_features(encoder, source, image_size=8, batch_size=4)
    unit = images / 255
    expected = np.stack([unit.mean((1, 2, 3)), unit[:, 0, 0, 0]], axis=1)
    np.testing.assert_allclose(found.features, expected, atol=1e-6)
    np.testing.assert_array_equal(found.labels, source._columns["label"])
    assert found.features.dtype == np.float32 and found.labels.dtype == np.int64
    assert found.num_examples == 10
    # 10 images in batches of 4: the last is padded, so the function is traced once.
    assert shapes == [(4, 8, 8, 3)]


def test_images_come_at_the_size_asked_for():
    _, source = _source(count=3, size=8)
    found = extract_features(_flatten, source, image_size=6, batch_size=2)
    assert found.features.shape == (3, 6 * 6 * 3)
    assert found.features.min() >= 0 and found.features.max() <= 1


def test_the_encoder_is_in_inference_mode_and_unchanged():
    images, source = _source()
    model = keras.Sequential(
        [keras.layers.BatchNormalization(momentum=0.5), keras.layers.Flatten()]
    )
    model(images / 255.0, training=True)
    before = [value.copy() for value in model.get_weights()]
    few = extract_features(model, source, image_size=8, batch_size=3)
    many = extract_features(model, source, image_size=8, batch_size=10)
    np.testing.assert_allclose(few.features, many.features, atol=1e-6)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_extractor_follows_the_weights():
    _, source = _source()
    model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    extract = FeatureExtractor(model, image_size=8, batch_size=4)
    before = extract(source).features
    model.set_weights([2 * w for w in model.get_weights()])
    np.testing.assert_allclose(extract(source).features, 2 * before, rtol=1e-5)


def test_half_precision_features_become_float32():
    _, source = _source()
    found = extract_features(
        lambda batch, training: tf.cast(batch[:, 0, 0], tf.bfloat16), source, 8, batch_size=4
    )
    assert found.features.dtype == np.float32


def test_without_labels():
    _, source = _source(labelled=False)
    found = extract_features(_flatten, source, 8, batch_size=4)
    assert (found.labels == -1).all() and found.num_examples == 10


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_feature_that_is_not_finite_names_the_image(bad):
    images, source = _source(count=7)

    def encoder(batch, training):
        marked = tf.reduce_all(tf.abs(batch - images[5] / 255.0) < 1e-3, axis=[1, 2, 3])
        return tf.where(marked, bad, 1.0)[:, None] * tf.ones([1, 3])

    with pytest.raises(UserError, match=r"not finite \(first for image 5 of .*\).*--learning_rate"):
        extract_features(encoder, source, 8, batch_size=4)


def test_padding_is_not_judged():
    _, source = _source(count=3)

    def encoder(batch, training):
        means = tf.reduce_mean(batch, [1, 2])
        return means / means  # the padding's zeros give NaN

    assert extract_features(encoder, source, 8, batch_size=4).features.shape == (3, 3)


def test_an_encoder_without_pooling_is_refused():
    _, source = _source()
    with pytest.raises(UserError, match=r"\(4, 8, 8, 3\).*global pooling"):
        extract_features(lambda batch, training: batch, source, 8, batch_size=4)


class _Counting:
    """An encoder that counts its images, and can be told to fail after some."""

    def __init__(self, fail_after=10**9):
        self.images, self._fail_after = 0, fail_after

    def __call__(self, batch, training):
        def count(size):
            if self.images + size > self._fail_after:
                raise RuntimeError("killed")
            self.images += int(size)
            return np.int64(self.images)

        counted = tf.numpy_function(count, [tf.shape(batch)[0]], tf.int64)
        with tf.control_dependencies([counted]):
            return tf.reshape(batch, [batch.shape[0], -1]) * 2.0


def _cached(encoder, cache, identity="weights", batch_size=4, size=8):
    return FeatureExtractor(encoder, size, batch_size, cache, identity)


def test_features_that_are_there_are_not_computed_again(tmp_path):
    _, source = _source(count=10)
    first = _cached(_Counting(), tmp_path)(source)
    again = _Counting()
    found = _cached(again, tmp_path)(source)
    assert again.images == 0
    np.testing.assert_array_equal(found.features, first.features)
    np.testing.assert_array_equal(found.labels, first.labels)
    assert isinstance(found.features, np.memmap)
    assert sorted(p.name for p in _cached(again, tmp_path).cache_path(source).iterdir()) == [
        *("features.npy", "labels.npy")
    ]


def test_other_weights_images_or_sizes_are_other_features(tmp_path):
    _, source = _source(count=10)
    places = {_cached(None, tmp_path).cache_path(source)}
    places.add(_cached(None, tmp_path, identity="other").cache_path(source))
    places.add(_cached(None, tmp_path, size=6).cache_path(source))
    places.add(_cached(None, tmp_path).cache_path(source.subset(np.arange(9))))
    changed = source.images.copy()
    changed[3, 0, 0, 0] ^= 1
    places.add(
        _cached(None, tmp_path).cache_path(
            ArraySource("random", changed, source.labels(), source.class_names)
        )
    )
    assert len(places) == 5
    _, same = _source(count=10)
    assert _cached(None, tmp_path, batch_size=7).cache_path(same) in places


def test_identity_follows_every_variable():
    a, b = tf.Variable([1.0, 2.0]), tf.Variable([3.0])
    before = hash_weights([a, b])
    assert hash_weights([tf.Variable([1.0, 2.0]), tf.Variable([3.0])]) == before
    b.assign([3.0000002])
    assert hash_weights([a, b]) != before


def test_a_killed_extraction_goes_on_with_another_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, "_PART_ROWS", 8)
    _, source = _source(count=30)
    whole = extract_features(_Counting(), source, 8, 4)
    killed = _Counting(fail_after=20)
    with pytest.raises(tf.errors.UnknownError, match="killed"):
        _cached(killed, tmp_path)(source)
    place = _cached(killed, tmp_path).cache_path(source)
    # Two parts of 8 are there. One is cut, and so made again.
    last = place / "part-000000008-features.npy"
    last.write_bytes(last.read_bytes()[:-10])
    resumed = _Counting()
    found = _cached(resumed, tmp_path, batch_size=5)(source)
    assert resumed.images == 25  # 22 in batches of 5
    np.testing.assert_array_equal(found.features, whole.features)
    np.testing.assert_array_equal(found.labels, whole.labels)


def test_what_is_not_finite_is_not_kept(tmp_path):
    _, source = _source(count=8)

    def broken(batch, training):
        return tf.reshape(batch, [batch.shape[0], -1]) / 0.0

    with pytest.raises(UserError, match="not finite"):
        _cached(broken, tmp_path)(source)
    assert not list(tmp_path.glob("*/*"))


def test_two_at_once_extract_once(tmp_path):
    _, source = _source(count=6)
    begun, waiting = threading.Event(), threading.Event()
    calls, found = [], []

    def encoder(batch, training):
        def seen(value):
            calls.append(1)
            begun.set()
            waiting.wait(60)  # the other has come by then
            return value

        (value,) = tf.numpy_function(seen, [_flatten(batch, training)], [tf.float32])
        return tf.ensure_shape(value, [2, 8 * 8 * 3])

    def extract(say):
        extractor = FeatureExtractor(encoder, 8, 2, tmp_path, "one", say)
        found.append(extractor(source).features)

    first = threading.Thread(target=extract, args=(lambda line: None,))
    first.start()
    begun.wait(60)
    said = []
    extract(lambda line: (said.append(line), waiting.set()))
    first.join()
    assert len(calls) == 3 and "another process" in said[0]
    np.testing.assert_array_equal(*found)


def test_a_part_is_kept_every_minute(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, "_PART_SECONDS", 0.0)
    _, source = _source(count=30)
    with pytest.raises(tf.errors.UnknownError, match="killed"):
        _cached(_Counting(fail_after=12), tmp_path)(source)
    lines = []
    resumed = _Counting()
    FeatureExtractor(resumed, 8, 4, tmp_path, "weights", lines.append)(source)
    assert resumed.images == 20  # 18 in batches of 4
    assert lines == ["features of random: 12 of 30 images are there already"]


def test_progress_says_how_fast_and_how_long(monkeypatch):
    clock = iter([0.0, 5.0, 6.0, 15.5, 16.0, 99.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    lines = []
    shown = progress.LineProgress("features of x", 4_000, lines.append)
    for done in (100, 200, 1_100, 2_000, 4_000):
        shown.show(done)
    assert lines == [
        "features of x: 100 of 4,000 images",
        "features of x: 1,100 of 4,000 images, 95.2 images/s, 00:30 left",
    ]
