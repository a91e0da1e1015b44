"""A SimCLR that trains in moments, in float64, on any strategy: what equality is proven with."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf import optimizers
from simclr_tf.augment import SimCLRAugment
from simclr_tf.augment.rng import stateless_uniform
from simclr_tf.losses import nt_xent
from simclr_tf.models import SimCLR, build_projection_head
from simclr_tf.models.layers import LayerFactory

BATCH, CLASSES = 12, 3
RATE = {"lars": 0.3, "momentum": 0.1, "lamb": 0.01, "muon": 0.05}
FIGURES = "loss", "contrastive_accuracy", "contrastive_entropy", "alignment"
PARTS = "encoder", "projection_head", "linear_head"


def batches(count):
    random = np.random.default_rng(0)
    for _ in range(count):
        images = random.integers(0, 256, (BATCH, 8, 8, 3)).astype(np.uint8)
        # Two images without a label, both in the first third.
        labels = np.array([0, -1, 2, -1, 1, 0, 2, 1, 0, 1, 2, 0])
        yield {"image": tf.constant(images), "label": tf.constant(labels)}


def dimmed(images, seed, offset, aspect):
    """A view in float64 that depends on the seed and on the position in the global batch."""
    light = tf.cast(stateless_uniform(seed, 9, offset, images.shape[0], 3), tf.float64)
    return tf.cast(images, tf.float64) / 255.0 * (0.3 + light[:, tf.newaxis, tf.newaxis])


def dimmed_small(images, seed, offset, aspect):
    """The middle of a view of `dimmed`."""
    return dimmed(images, seed, offset, aspect)[:, 1:7, 1:7]


# Two views of 8 pixels and two of 6.
MULTI_CROP = {"num_views": 4, "augment": [dimmed, dimmed, dimmed_small, dimmed_small]}


def two_blocks(policy="float64", global_bn=True, side=8):
    """Enough of an encoder to have shared batch statistics and a convolution after them."""
    policy = keras.mixed_precision.Policy(policy)
    make = LayerFactory(policy, global_bn=global_bn)
    images = keras.Input(
        (side, side, 3), dtype="float64" if policy.name == "float64" else "float32"
    )
    x = make.conv_bn_relu(images, 6, 3, "first", 1)
    x = make.conv_bn_relu(x, 8, 3, "second", 1, strides=2)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(dtype=policy)(x))


def optimizer_named(name):
    return optimizers.get(name, RATE[name], weight_decay=0.01)


def build(
    optimizer=None, linear=True, encoder=None, policy="float64", loss=nt_xent, head=None, **settings
):
    """The model, on views in float64 or, in other precisions, on SimCLR's own."""
    keras.utils.set_random_seed(1)
    encoder = encoder or two_blocks(policy)
    width = encoder.output_shape[-1]
    head = head or build_projection_head("nonlinear", 2, 6, input_dim=width, dtype=policy)
    wide = policy == "float64"
    linear_head = None
    if linear:
        linear_head = keras.layers.Dense(CLASSES, dtype="float64" if wide else "float32")
        linear_head.build((None, width))
    settings = {
        "augment": dimmed if wide else SimCLRAugment(8, 0.5, use_blur=False),
        "temperature": 0.3,
        "linear_head": linear_head,
        "contrastive_loss": loss,
        **settings,
    }
    model = SimCLR(encoder, head, **settings)
    model.compile(optimizer or keras.optimizers.SGD(0.1))
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    inner.build(model.trainable_variables)
    return model


def share_out(batch, strategy):
    """A global batch as its replicas have it, each its share of the rows."""
    replicas = strategy.num_replicas_in_sync
    return strategy.experimental_distribute_values_from_function(
        lambda replica: {
            name: tf.split(rows, replicas)[replica.replica_id_in_sync_group]
            for name, rows in batch.items()
        }
    )


def train(model, steps, strategy=None, after_step=lambda: None, labels=True):
    """The figures of some steps, eager on one device; each replica has its share of the rows."""

    def step(batch):
        return strategy.run(model.train_step, (batch,))

    if strategy is None:
        strategy = tf.distribute.get_strategy()
    else:
        step = tf.function(step)
    losses = []
    for batch in batches(steps):
        model.reset_metrics()
        step(share_out(batch if labels else {"image": batch["image"]}, strategy))
        after_step()
        losses.append({metric.name: float(metric.result()) for metric in model.metrics})
    return losses


def weights_of(model):
    parts = [getattr(model, name) for name in PARTS]
    return [weight for part in parts if part for weight in part.get_weights()]


def train_and_probe(optimizer, linear, strategy=None, make_encoder=two_blocks, **settings):
    """Metrics and weights of five steps and the gradient then, by name, on any replicas."""
    scope = (strategy or tf.distribute.get_strategy()).scope
    with scope():
        keras.utils.set_random_seed(0)
        model = build(optimizer_named(optimizer), linear, make_encoder("float64"), **settings)
    figures = train(model, 5, strategy)
    result = {key: np.array([step[key] for step in figures]) for key in FIGURES}
    result |= {f"weight {i}": weight for i, weight in enumerate(weights_of(model))}
    # With plain descent at rate 1 the gradient is what a step takes away.
    with scope():
        model.compile(keras.optimizers.SGD(1.0))
        model.optimizer.build(model.trainable_variables)
    before = [v.numpy() for v in model.trainable_variables]
    train(model, 1, strategy)
    pairs = enumerate(zip(before, model.trainable_variables, strict=True))
    return result | {f"gradient {i}": b - a.numpy() for i, (b, a) in pairs}


def first_steps(optimizer, policy, steps, strategy=None):
    """(losses, velocities after the first step) on SimCLR's own views, without a linear head.

    The velocity is then the gradient times the rate, with LARS times each kernel's trust, too.
    """
    with (strategy or tf.distribute.get_strategy()).scope():
        model = build(optimizer_named(optimizer), False, policy=policy)
    velocities = []

    def note():
        if not velocities:  # after the counter of the optimizer
            velocities.extend(v.numpy() for v in model.optimizer.variables[1:])

    return [figures["loss"] for figures in train(model, steps, strategy, note)], velocities


def assert_equal(found, wanted):
    """Two results of `train_and_probe`: to 1e-9, but for Keras's float32 means of the figures."""
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        rtol = 1e-6 if key in FIGURES else 1e-9
        np.testing.assert_allclose(found[key], value, rtol, atol=1e-9, err_msg=key)


def assert_computes_in_bfloat16(make_encoder, images, max_error=0.05, training=False):
    keras.utils.set_random_seed(0)
    encoder, exact = make_encoder(dtype="mixed_bfloat16"), make_encoder()
    assert keras.mixed_precision.global_policy().name == "float32"
    assert {v.dtype for v in encoder.variables} == {tf.float32}
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    assert {x.compute_dtype for x in encoder.submodules if isinstance(x, kinds)} == {"bfloat16"}
    exact.set_weights(encoder.get_weights())
    features, expected = encoder(images, training=training), exact(images, training=training)
    assert features.dtype == tf.float32
    error = np.linalg.norm(features - expected) / np.linalg.norm(expected)
    assert 0 < error < max_error


def assert_global_bn_works(make_encoder, mirrored):
    def result(global_bn, *strategy):
        def make(policy):
            return make_encoder(global_bn=global_bn, dtype=policy)

        return train_and_probe("momentum", True, *strategy, make_encoder=make)

    expected = result(True)
    assert_equal(result(True, mirrored(2)), expected)
    with pytest.raises(AssertionError):
        assert_equal(result(False, mirrored(2)), expected)
