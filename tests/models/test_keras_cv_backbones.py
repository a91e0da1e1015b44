"""KerasCV's backbones as encoders: every kind, presets, and what strangers may write into one."""

import functools
import json
import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.errors import UserError
from simclr_tf.models import ResNet, backbone_encoder
from simclr_tf.models.keras_cv_backbones import (
    BACKBONES,
    build_backbone,
    describe_preset,
    load_preset_weights,
    save_preset,
)
from tests.models.tiny_backbones import TINY, description
from tests.models.tiny_simclr import assert_computes_in_bfloat16, assert_global_bn_works

keras_cv = pytest.importorskip("keras_cv")

IMAGES = np.random.default_rng(0).uniform(size=(4, 32, 32, 3)).astype(np.float32)


# Convolutions and attention; the others are slow.
SOME_BACKBONES = [
    name
    if name in ("ResNetV2Backbone", "ViTDetBackbone")
    else pytest.param(name, marks=pytest.mark.slow)
    for name in BACKBONES
]


def _raw(name, **changes):
    return getattr(keras_cv.models, name)(**{**TINY[name], "include_rescaling": True, **changes})


def test_tiny_backbones_cover_every_kind():
    assert set(TINY) == set(BACKBONES)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_encoder_pools_the_maps_of_images_in_0_to_1(name):
    encoder = build_backbone(description(name, include_rescaling=True))
    raw = _raw(name)
    raw.set_weights(encoder.get_weights())
    maps = raw(255 * IMAGES, training=False).numpy()
    np.testing.assert_allclose(encoder(IMAGES), maps.mean((1, 2)), atol=2e-5)
    # Only so does the rank tell what is decayed; a vision transformer has embeddings besides.
    others = [v.name for v in encoder.trainable_variables if "kernel" not in v.name]
    vectors = [v.name for v in encoder.trainable_variables if v.shape.rank == 1]
    assert others == vectors or name == "ViTDetBackbone"


@pytest.mark.parametrize("name", SOME_BACKBONES)
def test_backbone_encoder_computes_in_half_precision(name):
    make = functools.partial(build_backbone, description(name))
    assert_computes_in_bfloat16(make, IMAGES, max_error=0.2, training=True)


@pytest.mark.parametrize(
    "name",
    [pytest.param("EfficientNetV1Backbone", marks=pytest.mark.slow), "EfficientNetV2Backbone"],
)
def test_backbone_encoder_drops_nothing_at_random(name, tmp_path):
    encoder = build_backbone(description(name))
    np.testing.assert_array_equal(encoder(IMAGES, training=True), encoder(IMAGES, training=True))
    raw, many = _raw(name, include_rescaling=False), np.tile(IMAGES, (16, 1, 1, 1))
    assert (raw(many, training=True) != raw(many, training=True)).numpy().any()

    from simclr_tf.exporter import export_saved_model

    output = export_saved_model(encoder, tmp_path / "out", image_size=32, model_card="")
    loaded = tf.saved_model.load(str(output))
    np.testing.assert_allclose(loaded(IMAGES), encoder(IMAGES), atol=1e-5)
    text = (output / "saved_model.pb").read_bytes()
    assert not re.search(rb"Random|Bernoulli|Dropout", text)


def test_batch_norm_has_the_momentum_of_the_flag():
    encoder = build_backbone(description("EfficientNetV2Backbone"), batch_norm_momentum=0.25)
    norms = [x for x in encoder.submodules if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) > 6 and {x.momentum for x in norms} == {0.25}


@pytest.mark.slow
def test_replicas_share_batch_statistics_of_a_backbone(mirrored):
    make = functools.partial(build_backbone, description("MobileNetV3Backbone"))
    assert_global_bn_works(make, mirrored)


def test_any_functional_model_is_a_backbone():
    resnet = ResNet(18, 1 / 16, "cifar")
    np.testing.assert_array_equal(backbone_encoder(resnet)(IMAGES), resnet(IMAGES))
    maps = keras.Model(resnet.input, resnet.get_layer("block_group4").output)
    np.testing.assert_array_equal(backbone_encoder(maps)(IMAGES), resnet(IMAGES))
    with pytest.raises(ValueError, match="include_rescaling=False"):
        backbone_encoder(_raw("ResNetBackbone"))
    tokens = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Reshape((64, 3))])
    with pytest.raises(ValueError, match="no trainable weights"):
        backbone_encoder(tokens)
    tokens.add(keras.layers.Dense(2))
    with pytest.raises(ValueError, match="expected output"):
        backbone_encoder(tokens)


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """A preset as KerasCV writes it, and the backbone that it is of, which has learned a little."""
    from keras_cv.src.utils.preset_utils import save_to_preset

    backbone = _raw("ResNetV2Backbone")
    backbone(255 * IMAGES, training=True)
    place = tmp_path_factory.mktemp("presets")
    save_to_preset(backbone, str(place / "whole"))
    save_to_preset(backbone, str(place / "bare"), save_weights=False)
    return place, backbone


def test_preset_written_by_keras_cv_is_read(presets, tmp_path):
    place, backbone = presets
    found = describe_preset(str(place / "whole"), 48)
    assert json.loads(json.dumps(found)) == found
    assert (found["class_name"], found["features"]) == ("ResNetV2Backbone", 8)
    encoder = build_backbone(found)
    wanted = backbone(255 * IMAGES, training=False).numpy().mean((1, 2))
    assert not np.allclose(encoder(IMAGES), wanted, atol=1e-3)
    assert load_preset_weights(encoder, str(place / "whole"))
    np.testing.assert_allclose(encoder(IMAGES), wanted, atol=2e-5)
    before = encoder.get_weights()
    assert not load_preset_weights(encoder, str(place / "bare"))
    for ours, old in zip(encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, old)
    # And the other way round.
    save_preset(backbone, tmp_path)
    again = keras_cv.models.Backbone.from_preset(str(tmp_path))
    np.testing.assert_array_equal(again(255 * IMAGES), backbone(255 * IMAGES))


def test_preset_of_a_fixed_size_needs_that_image_size(tmp_path):
    save_preset(_raw("ViTDetBackbone"), tmp_path)
    assert describe_preset(str(tmp_path), 32)["features"] == 8
    with pytest.raises(UserError, match=r"--image_size=64: the preset .* takes images of 32 × 32"):
        describe_preset(str(tmp_path), 64)


def test_preset_that_needs_the_network_is_refused():
    with pytest.raises(UserError, match=r"resnet18_v2 cannot be loaded .* without a network"):
        describe_preset("resnet18_v2", 32)
    for name in ("nonsense", "kaggle://someone/model/keras/x", "mit_b0"):
        with pytest.raises(UserError, match=f"{name}: expected a directory or a KerasCV preset"):
            describe_preset(name, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_name": "Lambda"}, "expected one of .*, got Lambda"),
        ({"class_name": "MiTBackbone"}, "expected one of .*, got MiTBackbone"),
        (
            {"registered_name": "keras_cv>DenseNetBackbone"},
            "registers ResNetV2Backbone under",
        ),
        ({"registered_name": "os>system"}, "registers ResNetV2Backbone under"),
        ({"config": {"activation": {"class_name": "Lambda"}}}, "activation must be plain values"),
        ({"config": {"input_shape": [[{}]]}}, "input_shape must be plain values"),
        ({"config": {"stackwise_blocks": [1, 1]}}, "is used 2 times in the model"),
        ({"config": {"unheard_of": 1}}, "cannot be loaded .*unheard_of"),
        ({"config": {"stackwise_filters": ["a", "b"]}}, "cannot be loaded"),
        ({"config": None}, "not a KerasCV preset"),
        ({"compile_config": {"optimizer": "adam"}}, "in config.json, got compile_config"),
        ({"build_config": {}, "shared_object_id": 1}, "got build_config, shared_object_id"),
        (
            {"weights": "../whole/model.weights.h5"},
            "'../whole/model.weights.h5' are not a file",
        ),
        ({"weights": "other.h5"}, "'other.h5' are not a file"),
        ({"weights": 3}, "its weights 3 are not a file"),
    ],
)
def test_preset_that_could_execute_code_is_refused(presets, tmp_path, changes, message):
    source = presets[0] / "whole" / "config.json"
    document = json.loads(source.read_text(encoding="utf-8"))
    for key, value in changes.items():
        merged = {**document.get(key, {}), **value} if isinstance(value, dict) else value
        document[key] = merged
    (tmp_path / "config.json").write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / "model.weights.h5").write_bytes((source.parent / "model.weights.h5").read_bytes())
    with pytest.raises(UserError, match=message) as raised:
        describe_preset(str(tmp_path), 32)
    assert "\n" not in str(raised.value)


def test_damaged_files_are_named(presets, tmp_path):
    with pytest.raises(UserError, match=r"not a KerasCV preset .config.json: .*No such file"):
        describe_preset(str(tmp_path), 32)
    config = (presets[0] / "whole" / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(config[:50])
    with pytest.raises(UserError, match="not a KerasCV preset"):
        describe_preset(str(tmp_path), 32)
    (tmp_path / "config.json").write_bytes(config)
    weights = (presets[0] / "whole" / "model.weights.h5").read_bytes()
    (tmp_path / "model.weights.h5").write_bytes(weights[: len(weights) // 2])
    encoder = build_backbone(describe_preset(str(tmp_path), 32))
    with pytest.raises(UserError, match=r"cannot be loaded .*check that its files are complete"):
        load_preset_weights(encoder, str(tmp_path))
    # KerasCV leaves Keras without checkpoints of layers when that happens.
    path = tf.train.Checkpoint(model=encoder).write(str(tmp_path / "checkpoint"))
    assert len(tf.train.list_variables(path)) > len(encoder.variables)
    # Weights of another backbone than the configuration's.
    other = build_backbone(description("ResNetBackbone"))
    with pytest.raises(UserError, match="KerasCV cannot build this ResNetV2Backbone"):
        load_preset_weights(other, str(presets[0] / "whole"))


def test_missing_keras_cv_is_named_with_the_fix(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "keras_cv", None)
    with pytest.raises(UserError, match=r"needs KerasCV .* install 'simclr_tf\[keras-cv\]'"):
        describe_preset("resnet18_v2", 32)
