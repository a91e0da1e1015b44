"""The user's own Keras models as encoders."""

import dataclasses
import functools
import json

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.errors import UserError
from simclr_tf.models.build import build_encoder, build_model, resolve_encoder
from simclr_tf.models.custom_encoder import (
    build_custom_encoder,
    copy_encoder_weights,
    describe_encoder,
    same_architecture,
)
from simclr_tf.option_groups import Augmentation, Data, Encoder, Optimization
from tests.models.tiny_simclr import assert_computes_in_bfloat16, assert_global_bn_works

IMAGES = np.random.default_rng(0).uniform(size=(4, 16, 16, 3)).astype(np.float32)


def tiny_encoder(size=16, width=8, **names):
    """A functional encoder with what such models have: batch norm, dropout, operators, nesting."""
    images = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(width, 3, strides=2, use_bias=False)(images)
    x = keras.layers.BatchNormalization()(x)
    x = tf.nn.relu(x + 0.5)
    block = keras.Sequential(
        [
            keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("swish"),
        ]
    )
    x = keras.layers.Dropout(0.5)(block(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(width, kernel_regularizer="l2")(x), **names)


def mobile_net():
    return keras.applications.MobileNetV2(
        alpha=0.35, input_shape=(32, 32, 3), weights=None, include_top=False, pooling="avg"
    )


def config(model=None, **options):
    base = PretrainConfig(
        Data("shapes"),
        Augmentation(image_size=16),
        Encoder(**options),
        optimization=Optimization(train_batch_size=8, warmup_epochs=0),
    ).resolve()
    return base if model is None else resolve_encoder(base, model=model)


@pytest.mark.parametrize("make", [tiny_encoder, pytest.param(mobile_net, marks=pytest.mark.slow)])
def test_encoder_rebuilt_from_its_description_equals_the_model(make):
    model = make()
    size = model.input_shape[1]
    description = json.loads(json.dumps(describe_encoder(model, size)))
    assert description["features"] == model.output_shape[-1]
    encoder = build_custom_encoder(description, batch_norm_momentum=0.25)
    copy_encoder_weights(model, encoder)
    images = np.resize(IMAGES, (2, size, size, 3))
    np.testing.assert_array_equal(encoder(images), model(images))
    norms = [x for x in encoder.submodules if isinstance(x, keras.layers.BatchNormalization)]
    assert norms and {x.momentum for x in norms} == {0.25}
    # No random draws: dropout is disabled.
    np.testing.assert_array_equal(encoder(images, training=True), encoder(images, training=True))


def test_encoder_computes_in_the_precision_of_the_run():
    description = describe_encoder(tiny_encoder(), 16)
    assert_computes_in_bfloat16(functools.partial(build_custom_encoder, description), IMAGES)


def test_encoder_config_is_complete():
    resolved = config(tiny_encoder(name="mine"))
    assert resolved.encoder.encoder == "keras:mine" and resolved.encoder.stem == "auto"
    assert resolved.encoder.describe() == "Keras model mine"
    stored = Encoder(**json.loads(json.dumps(dataclasses.asdict(resolved.encoder))))
    assert build_encoder(stored).output_shape == (None, 8)
    # Resolving again needs no model.
    assert resolve_encoder(resolved) == resolved
    again = config(encoder="keras:mine")
    assert resolve_encoder(again, resumed=resolved.encoder).encoder == resolved.encoder
    with pytest.raises(UserError, match=r"--encoder=keras:mine: expected a Keras model"):
        resolve_encoder(again)
    with pytest.raises(UserError, match="resnet_depth"):
        config(tiny_encoder(), resnet_depth=18)


def test_resumed_encoder_may_have_other_names_but_no_other_architecture():
    first = config(tiny_encoder(name="mine")).encoder
    resumed = resolve_encoder(config(), first, tiny_encoder(name="yours")).encoder
    assert resumed == first
    with pytest.raises(UserError, match=r"expected the architecture of the run's keras:mine"):
        resolve_encoder(config(), first, tiny_encoder(width=12, name="mine"))
    ours, theirs = (describe_encoder(tiny_encoder(width=w), 16) for w in (8, 12))
    assert same_architecture(ours, ours) and not same_architecture(ours, theirs)


def noisy(images, seed, offset, aspect):
    return tf.cast(images, tf.float32) / 255.0 + tf.random.stateless_uniform(images.shape, seed)


def test_model_with_an_own_encoder_trains_saves_and_restores(tmp_path):
    resolved, plan = config(tiny_encoder(name="mine")), TrainingPlan(8, 3, 4, 0, 1.0, 0.1)
    model = build_model(resolved, plan)
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    before = [v.numpy() for v in model.encoder.trainable_variables]
    model.policies, model.run_eagerly = (noisy, noisy), True
    model.fit(images, np.arange(8) % 3, batch_size=8, epochs=2, verbose=0)
    for old, variable in zip(before, model.encoder.trainable_variables, strict=True):
        assert (old != variable.numpy()).any(), variable.name
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    other = build_model(resolved, plan)
    tf.train.Checkpoint(model=other).read(path).assert_consumed()
    np.testing.assert_array_equal(other(IMAGES), model(IMAGES))


@pytest.mark.parametrize("global_bn", [True, False])
def test_batch_norm_of_an_own_encoder_is_synchronized_by_the_option(global_bn, mirrored):
    description = describe_encoder(tiny_encoder(), 16)
    with mirrored(2).scope():
        encoder = build_custom_encoder(description, global_bn=global_bn)
    norms = [x for x in encoder.submodules if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 2 and {x.synchronized for x in norms} == {global_bn}


@pytest.mark.slow
def test_replicas_share_batch_statistics_of_an_own_encoder(mirrored):
    description = describe_encoder(tiny_encoder(size=8), 8)
    assert_global_bn_works(functools.partial(build_custom_encoder, description), mirrored)


class Custom(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x


class Subclassed(keras.Model):
    def call(self, x):
        return tf.reduce_mean(x, axis=[1, 2])


def _pooled(*layers, shape=(16, 16, 3), **kwargs):
    pool = keras.layers.GlobalAveragePooling2D()
    conv = keras.layers.Conv2D(2, 1)
    return keras.Sequential([keras.Input(shape, **kwargs), *layers, conv, pool])


def _called(model):
    model(IMAGES)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "resnet", "expected a name or a functional tf_keras model"),
        (lambda: keras3.Sequential([keras3.Input((16, 16, 3))]), "of Keras 3. Fix: .*tf_keras"),
        (lambda: _called(Subclassed()), "expected a functional model, got .*Subclassed"),
        (lambda: keras.Sequential([keras.layers.Conv2D(2, 1)]), "subclassed or not built"),
        (lambda: _pooled(Custom()), "contains Custom, which cannot be stored"),
        (lambda: _pooled(keras.layers.Lambda(lambda x: x)), "contains .*[Ll]ambda"),
        (lambda: _pooled(keras.layers.Activation(tf.math.sin)), "contains function"),
        (lambda: _pooled(keras.layers.Rescaling(1 / 255)), r"scales its input by 0\.00392"),
        (lambda: _pooled(keras.layers.Rescaling(1.0), dtype="uint8"), "takes uint8 images"),
        (lambda: _pooled(shape=(32, 32, 3)), r"takes images of shape \(32, 32, 3\), and --image_s"),
        (lambda: _pooled(shape=(16, 16, 1)), r"takes images of shape \(16, 16, 1\)"),
        (
            lambda: keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(2, 1)]),
            r"expected output of shape \[N, D\], got \(None, 16, 16, 2\). Fix: add GlobalAvera",
        ),
        (
            lambda: keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten()]),
            "has no trainable weights",
        ),
        (
            lambda: keras.Model([x := keras.Input((16, 16, 3)), keras.Input((2,))], x),
            "has 2 inputs and 1 outputs",
        ),
    ],
)
def test_unusable_encoder_is_refused_with_the_reason(make, message):
    with pytest.raises(UserError, match=message) as raised:
        describe_encoder(make(), 16)
    assert "\n" not in str(raised.value)


def test_rescaling_to_255_before_a_preprocessing_layer_is_accepted():
    scales = keras.layers.Rescaling(255.0), keras.layers.Rescaling(1 / 127.5, offset=-1)
    assert describe_encoder(_pooled(*scales), 16)["features"] == 2


@pytest.mark.parametrize(
    "layer",
    [
        {"module": "os", "class_name": "function", "config": "system", "registered_name": None},
        {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "x"}},
        {"module": "builtins", "class_name": "__lambda__", "config": {"value": "4wEA"}},
        {
            "module": "tf_keras.src.layers.core.tf_op_layer",
            "class_name": "TFOpLambda",
            "config": {"name": "x", "function": "io.write_file"},
        },
    ],
)
def test_description_that_could_execute_code_is_refused(layer):
    description = describe_encoder(_pooled(keras.layers.Activation("relu")), 16)
    document = json.loads(description["config"])
    activation = next(x for x in document["config"]["layers"] if x["class_name"] == "Activation")
    activation["config"]["activation"] = layer
    damaged = {**description, "config": json.dumps(document)}
    with pytest.raises(UserError, match="use Keras's own layers only"):
        build_custom_encoder(damaged)
    with pytest.raises(UserError, match="damaged description"):
        build_custom_encoder({**description, "config": description["config"][:50]})
