"""Feature extraction: order, padding, inference mode, bad values."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.data.source import ArraySource
from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import FeatureExtractor, extract_features


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
