"""Linear evaluation: frozen encoder, transcribed update, resumed training."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.data.base import ArraySource
from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import Features, extract_features
from simclr_tf.evaluation.linear import Linear, shuffled_batches
from simclr_tf.evaluation.protocols import ProtocolInputs
from tests.evaluation.color_images import NAMES, color_source


def _encoder():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(6, 3),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )


def _inputs(encoder):
    train, test = color_source(np.arange(48) % 3, 0), color_source(np.arange(30) % 3, 1)
    return ProtocolInputs(
        extract_features(encoder, train, 8),
        extract_features(encoder, test, 8),
        3,
        encoder=encoder,
        source=train,
        image_size=8,
    )


@pytest.mark.parametrize("cached", [False, True])
def test_linear_solves_a_linear_problem_and_does_not_change_the_encoder(cached):
    encoder = _encoder()
    # Statistics that training mode would move at once.
    encoder.layers[1].moving_mean.assign([1.0] * 6)
    before = [variable.numpy() for variable in encoder.variables]
    (answer,) = Linear(epochs=30, batch_size=16, learning_rate=20.0, cached=cached).predict(
        _inputs(encoder)
    )
    words = "epochs 30, B 16, learning rate 20"
    assert answer.setting == (f"cached features, {words}" if cached else words)
    assert (answer.scores.argmax(1) == np.arange(30) % 3).mean() == 1.0
    for variable, value in zip(encoder.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.name)


@pytest.mark.parametrize("multi_label", [False, True])
def test_linear_equals_a_transcription_of_nesterov_and_cosine(multi_label):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 4))
    labels = rng.integers(0, 3, 12)
    onehot = np.eye(3)[labels]
    if multi_label:
        labels = rng.integers(-1, 2, (12, 3))
        onehot = labels > 0
    train = Features(values.astype(np.float32), labels.astype(np.int64))
    settings = Linear(epochs=5, batch_size=12, learning_rate=4.0, cached=True)
    (answer,) = settings.predict(ProtocolInputs(train, train, 3))

    kernel, bias = np.zeros((4, 3)), np.zeros(3)
    velocity = [np.zeros((4, 3)), np.zeros(3)]
    for step in range(5):  # the batch is the whole set, in whatever order
        logits = values @ kernel + bias
        if multi_label:
            error = (1 / (1 + np.exp(-logits)) - onehot) / 12
        else:
            exponents = np.exp(logits)
            error = (exponents / exponents.sum(1, keepdims=True) - onehot) / 12
        rate = 4.0 * 12 / 256 * 0.5 * (1 + np.cos(np.pi * step / 5))
        for i, gradient in enumerate((values.T @ error, error.sum(0))):
            velocity[i] = 0.9 * velocity[i] - rate * gradient
            move = 0.9 * velocity[i] - rate * gradient
            kernel, bias = (kernel + move, bias) if i == 0 else (kernel, bias + move)
    np.testing.assert_allclose(answer.scores, values @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_shuffled_batches_contain_every_row_once_per_epoch_in_a_new_order():
    rows, labels = np.arange(10)[:, None], np.arange(10) * 7
    batches = list(shuffled_batches(rows, labels, 4, 5, seed=3))  # 20 rows: two epochs
    order = np.concatenate([batch for batch, _ in batches])[:, 0]
    np.testing.assert_array_equal(np.concatenate([part for _, part in batches]), order * 7)
    first, second = order[:10], order[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert list(first) != list(second)


def test_linear_trains_on_crops_and_flips_only():
    # Red is a ramp from left to right, green and blue are constant.
    shades = np.random.default_rng(0).integers(0, 256, (12, 1, 1, 2), np.uint8)
    images = np.empty((12, 8, 8, 3), np.uint8)
    images[..., 0], images[..., 1:] = np.arange(0, 240, 30, np.uint8), shades
    seen = []

    def encoder(views, training):
        tf.py_function(seen.append, [views], [])
        return tf.reduce_mean(views, [1, 2])

    source = ArraySource("ramps", images, np.arange(12) % 3, NAMES)
    features = extract_features(encoder, source, 8)
    task = ProtocolInputs(features, features, 3, encoder=encoder, source=source, image_size=8)
    Linear(epochs=3, batch_size=12).predict(task)
    views = np.concatenate([batch.numpy() for batch in seen[1:]])
    colors = views[..., 1:].reshape(-1, 64, 2)
    np.testing.assert_allclose(colors, np.broadcast_to(colors[:, :1], colors.shape), atol=1e-5)
    found = set(map(tuple, np.round(colors[:, 0] * 255).astype(int)))
    assert found == set(map(tuple, shades.reshape(-1, 2).astype(int)))
    rows = views[:, 0, :, 0]
    slopes = rows[:, -1] - rows[:, 0]
    assert (slopes > 0).any() and (slopes < 0).any()  # flipped
    assert abs(slopes).std() > 0.05  # cropped: the ramp's parts


def test_interrupted_training_resumes_after_the_last_epoch(tmp_path):
    encoder = _encoder()
    settings, inputs = Linear(epochs=4, batch_size=16), _inputs(encoder)
    (whole,) = settings.predict(inputs)
    inputs, calls = dataclasses.replace(inputs, work_dir=tmp_path), []

    def dying(images, training):
        tf.py_function(lambda: calls.append(1), [], [])
        dead = tf.py_function(lambda: len(calls) > 7, [], tf.bool)  # 3 steps are an epoch
        with tf.control_dependencies([tf.debugging.Assert(~dead, ["killed"])]):
            return tf.identity(encoder(images, training=training))

    with pytest.raises(tf.errors.InvalidArgumentError):
        settings.predict(dataclasses.replace(inputs, encoder=dying))
    assert len(list(tmp_path.glob("linear-*.npz"))) == 1
    seen = []

    def counting(images, training):
        tf.py_function(lambda: seen.append(1), [], [])
        return encoder(images, training=training)

    (resumed,) = settings.predict(dataclasses.replace(inputs, encoder=counting))
    assert len(seen) == 12 - 6
    np.testing.assert_array_equal(resumed.scores, whole.scores)
    assert not list(tmp_path.glob("linear-*.npz"))


def test_check_refuses_less_than_one_step():
    with pytest.raises(UserError, match=r"--linear_epochs=0.01"):
        Linear(epochs=0.01, batch_size=16).check(48)
    Linear(epochs=1).check(10)
