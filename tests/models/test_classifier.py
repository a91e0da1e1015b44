"""The classifier of fine-tuning: its step, what is frozen, where its head sits."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.augment import view_seed
from simclr_tf.models import Classifier, ResNet, build_projection_head
from simclr_tf.models.classifier import (
    BLOCK_ENDPOINTS,
    freeze_through_block,
    truncate_projection_head,
)
from tests.models.tiny_simclr import (
    CLASSES,
    assert_equal,
    batches,
    dimmed,
    optimizer_named,
    train,
    two_blocks,
)


def _build(views=2, layers=1, optimizer="momentum"):
    keras.utils.set_random_seed(1)
    encoder = two_blocks()
    whole = build_projection_head("nonlinear", 2, 6, input_dim=8, dtype="float64")
    projection = truncate_projection_head(whole, layers) if layers else None
    head = keras.layers.Dense(CLASSES, dtype="float64")
    head.build((None, 8))
    model = Classifier(encoder, head, dimmed, projection, views_per_image=views)
    model.build((None, 8, 8, 3))
    model.compile(optimizer_named(optimizer))
    model.optimizer.build(model.trainable_variables)
    return model


def _train(steps, strategy=None, **settings):
    with (strategy or tf.distribute.get_strategy()).scope():
        model = _build(**settings)
    figures = train(model, steps, strategy)
    return figures, dict(enumerate(w for layer in model.layers for w in layer.get_weights()))


@pytest.mark.parametrize(
    ("replicas", "optimizer"), [(2, "lars"), pytest.param(4, "momentum", marks=pytest.mark.slow)]
)
def test_replicas_train_as_one_device(mirrored, replicas, optimizer):
    # The loss of a replica is per label that it has, so figures differ; the weights must not.
    _, found = _train(5, mirrored(replicas), optimizer=optimizer)
    _, wanted = _train(5, optimizer=optimizer)
    assert_equal(found, wanted)


@pytest.mark.parametrize("views", [1, 2])
def test_step_is_cross_entropy_of_the_labeled_views(views):
    (batch,) = batches(1)
    (figures,), _ = _train(1, views=views)
    model = _build(views=views)
    images = [dimmed(batch["image"], view_seed(0, 0, v), 0, None) for v in range(views)]
    logits = model(tf.concat(images, 0), training=True).numpy()
    labels = np.tile(batch["label"].numpy(), views)
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    known = labels >= 0
    losses = -np.log(probabilities[known, labels[known]])
    np.testing.assert_allclose(figures["loss"], losses.mean(), rtol=1e-6)
    found = logits[known].argmax(1) == labels[known]
    np.testing.assert_allclose(figures["accuracy"], found.mean(), rtol=1e-6)


@pytest.mark.parametrize("after_block", [-1, 0, 3, 4])
def test_frozen_layers_do_not_change_by_a_bit(after_block):
    keras.utils.set_random_seed(0)
    encoder = ResNet(18, 1 / 16, "cifar")
    freeze_through_block(encoder, after_block)
    head = keras.layers.Dense(CLASSES)
    head.build((None, 32))
    model = Classifier(encoder, head, lambda i, *_: tf.cast(i, tf.float32) / 255.0)
    model.compile(keras.optimizers.SGD(0.1))
    before = {v.name: v.numpy() for v in encoder.variables}
    train(model, 2)
    names = ["initial_conv", *BLOCK_ENDPOINTS[1:]]
    groups = {name: [] for name in names}
    for variable in encoder.variables:
        group = next((n for n in names if variable.name.startswith(n)), "initial_conv")
        groups[group].append(np.array_equal(variable.numpy(), before[variable.name]))
    for place, name in enumerate(names):
        if place <= after_block:
            assert all(groups[name]), name
        else:  # of what learns, the first gamma's gradient may be zero, as the last gamma is
            assert not all(groups[name]), name


def test_truncated_projection_head_shares_weights():
    head = build_projection_head("nonlinear", 3, 6, input_dim=5)
    features = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    hidden = tf.constant(features)
    for count in (1, 2, 3):
        hidden = head.get_layer(f"layer{count}_bn")(head.get_layer(f"layer{count}_dense")(hidden))
        if count < 3:
            hidden = tf.nn.relu(hidden)
        np.testing.assert_allclose(
            truncate_projection_head(head, count)(features), hidden, atol=1e-6
        )
    assert truncate_projection_head(head, 1).variables[0] is head.variables[0]
    for mode in "none", "linear":
        with pytest.raises(ValueError, match="no layer 2"):
            truncate_projection_head(build_projection_head(mode, input_dim=5), 2)
