"""Pretraining on more than two views per image, of one size and of two (multi-crop)."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf import losses
from tests.models.tiny_simclr import (
    MULTI_CROP,
    assert_equal,
    batches,
    build,
    dimmed,
    dimmed_small,
    train,
    train_and_probe,
    two_blocks,
)

ANY_SIDE = functools.partial(two_blocks, side=None)


@pytest.mark.parametrize(
    ("replicas", "settings"),
    [
        pytest.param(2, MULTI_CROP, id="multi_crop-2", marks=pytest.mark.slow),
        pytest.param(4, MULTI_CROP, id="multi_crop-4", marks=pytest.mark.slow),
        pytest.param(2, {"num_views": 3}, id="views-2"),
        pytest.param(4, {"num_views": 3}, id="views-4", marks=pytest.mark.slow),
    ],
)
def test_replicas_train_as_one_device(mirrored, replicas, settings):
    found = train_and_probe("momentum", True, mirrored(replicas), ANY_SIDE, **settings)
    assert_equal(found, train_and_probe("momentum", True, None, ANY_SIDE, **settings))


def test_views_do_not_depend_on_their_number():
    (batch,) = batches(1)
    pair, several = build().make_views(batch, 5), build(num_views=4).make_views(batch, 5)
    np.testing.assert_array_equal(several[:24], pair)
    views = np.split(several.numpy(), 4)
    for i in range(4):
        for j in range(i):
            assert (views[i] != views[j]).any(axis=(1, 2, 3)).all()


def test_views_of_two_sizes_come_in_two_groups():
    (batch,) = batches(1)
    large, small = build(encoder=ANY_SIDE(), **MULTI_CROP).make_views(batch, 5, 3, 6)
    assert large.shape == (12, 8, 8, 3) and small.shape == (12, 6, 6, 3)
    every = build(num_views=4).make_views(batch, 5, 3, 6)
    np.testing.assert_array_equal(large, every[:12])
    np.testing.assert_array_equal(small, every[12:, 1:7, 1:7])


def test_each_size_has_its_own_batch_statistics():
    model = build(encoder=ANY_SIDE(), **MULTI_CROP)
    (batch,) = batches(1)
    large, small = model.make_views(batch, 0)
    start = model.get_weights()
    features = [model.encoder(views, training=True) for views in (large, small)]
    z = [z for h in features for z in tf.split(model.projection_head(h, training=True), 2)]
    statistics = (
        model.encoder.non_trainable_variables + model.projection_head.non_trainable_variables
    )
    moved = [v.numpy() for v in statistics]
    model.set_weights(start)
    labels = np.tile(batch["label"], 4)
    logits = model.linear_head(tf.concat(features, axis=0)).numpy()[labels >= 0]
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    linear_loss = -log_p[np.arange(len(log_p)), labels[labels >= 0]].mean()

    logs = model.train_step(batch)
    loss, accuracy, entropy = losses.nt_xent(z[0], z[1], 0.3, more_views=z[2:])
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-12)
    np.testing.assert_allclose(logs["contrastive_accuracy"], accuracy, rtol=1e-6)
    np.testing.assert_allclose(logs["contrastive_entropy"], entropy, rtol=1e-9)
    np.testing.assert_allclose(logs["linear_loss"], linear_loss, rtol=1e-9)
    first, second = (losses.l2_normalize(x) for x in z[:2])
    alignment = tf.reduce_mean(tf.reduce_sum((first - second) ** 2, axis=1))
    np.testing.assert_allclose(logs["alignment"], alignment, rtol=1e-5)
    for variable, value in zip(statistics, moved, strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-9)


def test_regularization_counts_once_per_step():
    def encoder(factor):
        keras.utils.set_random_seed(2)
        l2 = keras.regularizers.L2(factor)
        layers = [
            keras.layers.Conv2D(4, 3, dtype="float64", kernel_regularizer=l2),
            keras.layers.GlobalAveragePooling2D(dtype="float64"),
        ]
        return keras.Sequential([keras.Input((None, None, 3), dtype="float64"), *layers])

    free, held = (build(encoder=encoder(factor), **MULTI_CROP) for factor in (0.0, 0.25))
    start = free.encoder.get_weights()
    train(free, 1)
    train(held, 1)
    # SGD at 0.1: the gradient of 0.25·w² is 0.5·w.
    np.testing.assert_allclose(
        held.encoder.get_weights()[0],
        free.encoder.get_weights()[0] - 0.1 * 0.5 * start[0],
        rtol=1e-6,
    )


def test_loss_with_labels_gets_more_views():
    model = build(loss=losses.supcon, linear=False, num_views=3)
    (batch,) = batches(1)
    z_a, z_b, z_c = tf.split(model(model.make_views(batch, 0), training=True), 3)
    expected, _, _ = losses.supcon(z_a, z_b, batch["label"], 0.3, more_views=[z_c])
    assert float(model.train_step(batch)["loss"]) == pytest.approx(float(expected), rel=1e-6)


def test_wrong_numbers_of_views_are_refused():
    for loss, count in ((losses.nt_logistic, 3), (losses.nt_xent, 1), (losses.nt_xent, 33)):
        with pytest.raises(ValueError, match=f"num_views must be 2, or up to 32 .* got {count}"):
            build(loss=loss, num_views=count)
    with pytest.raises(ValueError, match=r"one function per view \(3\), got 2"):
        build(num_views=3, augment=[dimmed, dimmed_small])
