"""Feature extraction: order, padding, inference mode, bad values."""

import logging
import threading

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.data.base import ArraySource
from simclr_tf.errors import UserError
from simclr_tf.evaluation import features
from simclr_tf.evaluation.features import (
    FeatureExtractor,
    FeatureStore,
    extract_features,
    hash_weights,
    load_or_compute,
)


def _source(count=10, size=8, labeled=True):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    labels = (rng.integers(0, 3, count), ("a", "b", "c")) if labeled else ()
    return images, ArraySource("random", images, *labels)


def _flatten(batch, training):
    return tf.reshape(batch, [batch.shape[0], -1])


def test_features_are_in_order_and_come_from_one_graph():
    images, source = _source(count=10)
    shapes = []

    def encoder(batch, training):
        shapes.append(batch.shape)
        return tf.stack([tf.reduce_mean(batch, [1, 2, 3]), batch[:, 0, 0, 0]], axis=1)

    found = extract_features(encoder, source, image_size=8, batch_size=4)
    unit = images / 255
    expected = np.stack([unit.mean((1, 2, 3)), unit[:, 0, 0, 0]], axis=1)
    np.testing.assert_allclose(found.features, expected, atol=1e-6)
    np.testing.assert_array_equal(found.labels, source.labels())
    assert found.features.dtype == np.float32 and found.labels.dtype == np.int64
    assert found.num_examples == 10
    # 10 images in batches of 4: the last is padded, so the function is traced once.
    assert shapes == [(4, 8, 8, 3)]


def test_unlabeled_images_are_resized_and_half_precision_features_become_float32():
    _, source = _source(count=3, size=8, labeled=False)

    def encoder(batch, training):
        return tf.cast(_flatten(batch, training), tf.bfloat16)

    found = extract_features(encoder, source, image_size=6, batch_size=2)
    assert found.features.shape == (3, 6 * 6 * 3) and found.features.dtype == np.float32
    assert found.features.min() >= 0 and found.features.max() <= 1
    assert (found.labels == -1).all()


def test_encoder_runs_in_inference_mode_and_does_not_change():
    images, source = _source()
    model = keras.Sequential(
        [keras.layers.BatchNormalization(momentum=0.5), keras.layers.Flatten()]
    )
    model(images / 255.0, training=True)
    before = [value.copy() for value in model.get_weights()]
    found = extract_features(model, source, image_size=8, batch_size=3)
    np.testing.assert_allclose(found.features, model(images / 255.0, training=False), atol=1e-6)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_extractor_uses_changed_weights():
    _, source = _source()
    model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    extract = FeatureExtractor(model, image_size=8, batch_size=4)
    before = extract(source).features
    model.set_weights([2 * w for w in model.get_weights()])
    np.testing.assert_allclose(extract(source).features, 2 * before, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_feature_that_is_not_finite_names_the_image(bad):
    images, source = _source(count=7)

    def encoder(batch, training):
        marked = tf.reduce_all(tf.abs(batch - images[5] / 255.0) < 1e-3, axis=[1, 2, 3])
        return tf.where(marked, bad, 1.0)[:, None] * tf.ones([1, 3])

    with pytest.raises(UserError, match=r"not finite \(first for image 5 of .*\).*--learning_rate"):
        extract_features(encoder, source, 8, batch_size=4)


def test_padding_may_yield_features_that_are_not_finite():
    _, source = _source(count=3)

    def encoder(batch, training):
        means = tf.reduce_mean(batch, [1, 2])
        return means / means  # the padding's zeros give NaN

    assert extract_features(encoder, source, 8, batch_size=4).features.shape == (3, 3)


def test_encoder_without_pooling_is_refused():
    _, source = _source()
    with pytest.raises(UserError, match=r"\(4, 8, 8, 3\).*global pooling"):
        extract_features(lambda batch, training: batch, source, 8, batch_size=4)


class _Counting:
    """An encoder that counts its images and fails after `fail_after` of them."""

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


def _cached(encoder, cache, fingerprint="weights", batch_size=4, size=8, **kwargs):
    return FeatureExtractor(encoder, size, batch_size, cache, fingerprint, **kwargs)


def test_cached_features_are_not_computed_again(tmp_path):
    _, source = _source(count=10)
    first = _cached(_Counting(), tmp_path)(source)
    again = _Counting()
    found = _cached(again, tmp_path)(source)
    assert again.images == 0
    np.testing.assert_array_equal(found.features, first.features)
    np.testing.assert_array_equal(found.labels, first.labels)
    assert isinstance(found.features, np.memmap)
    files = _cached(again, tmp_path).cache_path(source).iterdir()
    assert sorted(file.name for file in files) == ["features.npy", "labels.npy"]


def test_cache_path_depends_on_weights_images_and_size(tmp_path):
    images, source = _source(count=10)

    def path(source=source, **kwargs):
        return _cached(None, tmp_path, **kwargs).cache_path(source)

    images = images.copy()
    images[3, 0, 0, 0] ^= 1
    changed = ArraySource("random", images, source.labels(), source.class_names)
    paths = {path(), path(fingerprint="other"), path(size=6), path(changed)}
    paths.add(path(source.subset(np.arange(9))))
    assert len(paths) == 5 and path(_source(count=10)[1], batch_size=7) == path()


def test_weights_hash_depends_on_every_variable():
    a, b = tf.Variable([1.0, 2.0]), tf.Variable([3.0])
    before = hash_weights([a, b])
    assert hash_weights([tf.Variable([1.0, 2.0]), tf.Variable([3.0])]) == before
    b.assign([3.0000002])
    assert hash_weights([a, b]) != before


def test_killed_extraction_resumes_with_another_batch_size(tmp_path, caplog):
    caplog.set_level(logging.INFO, "simclr_tf")
    _, source = _source(count=30)
    whole = extract_features(_Counting(), source, 8, 4)
    killed = _cached(_Counting(fail_after=20), tmp_path, flush_interval=0)
    with pytest.raises(tf.errors.UnknownError, match="killed"):
        killed(source)
    # Five parts of four rows are written. The last is damaged and computed again.
    last = killed.cache_path(source) / "part-000000016-features.npy"
    last.write_bytes(last.read_bytes()[:-10])
    resumed = _Counting()
    found = _cached(resumed, tmp_path, batch_size=5)(source)
    assert resumed.images == 15  # 14 in batches of 5
    assert caplog.messages == ["features of random: 16 of 30 images are already cached"]
    np.testing.assert_array_equal(found.features, whole.features)
    np.testing.assert_array_equal(found.labels, whole.labels)


def test_store_writes_parts_by_size_and_reads_them_in_order(tmp_path):
    rows, labels = np.arange(40_000, dtype=np.float32)[:, None], np.arange(40_000)
    store = FeatureStore(tmp_path, 40_000)
    for start in range(0, 30_000, 5000):
        store.add(rows[start : start + 5000], labels[start : start + 5000])
    assert len(list(tmp_path.glob("part-*-features.npy"))) == 1  # 20,000 rows
    store = FeatureStore(tmp_path, 40_000)
    assert store.count == 20_000 and not store.is_complete
    store.add(rows[20_000:], labels[20_000:])
    store.finish()
    assert store.is_complete and len(list(tmp_path.iterdir())) == 2
    np.testing.assert_array_equal(store.read()[0], rows)
    np.testing.assert_array_equal(store.read()[1], labels)


def test_features_that_are_not_finite_are_not_cached(tmp_path):
    _, source = _source(count=8)

    with pytest.raises(UserError, match="not finite"):
        _cached(lambda batch, training: _flatten(batch, training) / 0.0, tmp_path)(source)
    assert not list(tmp_path.glob("*/*"))


def test_two_extractions_at_once_compute_once(tmp_path, monkeypatch):
    _, source = _source(count=6)
    started, waiting = threading.Event(), threading.Event()
    calls, found, messages = [], [], []

    def encoder(batch, training):
        def record(value):
            calls.append(1)
            started.set()
            waiting.wait(60)  # until the second extraction waits
            return value

        (value,) = tf.numpy_function(record, [_flatten(batch, training)], [tf.float32])
        return tf.ensure_shape(value, [2, 8 * 8 * 3])

    def log(message):
        messages.append(message)
        waiting.set()

    def extract():
        found.append(_cached(encoder, tmp_path, "one", 2)(source).features)

    monkeypatch.setattr(features.logger, "info", log)
    first = threading.Thread(target=extract)
    first.start()
    started.wait(60)
    extract()
    first.join()
    assert len(calls) == 3 and "another process" in messages[0]
    np.testing.assert_array_equal(*found)


def test_load_or_compute_reuses_a_file_and_replaces_a_damaged_one(tmp_path):
    path, calls = tmp_path / "a" / "b.npz", []

    def compute():
        calls.append(1)
        return {"values": np.arange(3), "text": np.array("é")}

    for _ in range(2):
        arrays = load_or_compute(path, compute)
        assert list(arrays["values"]) == [0, 1, 2] and str(arrays["text"]) == "é"
    assert len(calls) == 1
    path.write_bytes(path.read_bytes()[:-50])
    assert len(load_or_compute(path, compute)) == 2 and len(calls) == 2
    assert len(load_or_compute(path, compute)) == 2 and len(calls) == 2
    load_or_compute(None, compute)
    assert len(calls) == 3
