"""Backbones of KerasCV as encoders: feature maps under global average pooling.

A preset is what KerasCV calls one: by name, which it downloads, or a directory of `config.json`
and `model.weights.h5`. What is read of a `config.json` is the name of one of KerasCV's backbones
and plain values, so that nothing of a stranger's file is run.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.errors import UserError
from simclr_tf.models.layers import disable_dropout, resolve_policy
from simclr_tf.utils.files import atomic_write

# Those of KerasCV 0.9 for images that can be built, trained in half precision and built again from
# their layers. VGG16Backbone has no variables under tf_keras, MiTBackbone's layers cannot be built
# again from what they say of themselves, VideoSwinBackbone takes videos.
BACKBONES = (
    *("CSPDarkNetBackbone", "DenseNetBackbone", "EfficientNetLiteBackbone"),
    *("EfficientNetV1Backbone", "EfficientNetV2Backbone", "MobileNetV3Backbone"),
    *("ResNetBackbone", "ResNetV2Backbone", "ViTDetBackbone"),
)
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_KEYS = {"module", "class_name", "config", "registered_name", "weights"}


def backbone_encoder(
    backbone: keras.Model, batch_norm_momentum: float = 0.9, global_bn: bool = True
) -> keras.Model:
    """Make an encoder of a backbone: images `[N, S, S, 3]` in [0, 1] → features h `[N, D]`.

    The layers and weights are the backbone's own. Its batch norms take the momentum and kind that
    is asked for; dropout and stochastic depth are switched off, so that a step can be replayed.

    Args:
        backbone: of KerasCV, or another functional model, images → `[N, h, w, D]` or `[N, D]`.
        batch_norm_momentum: decay of the moving statistics per step, in [0, 1).
        global_bn: share batch statistics between the replicas of the strategy in scope.

    Raises:
        ValueError: it scales its input by 1/255, has no trainable weights, or gives no features.
    """
    if getattr(backbone, "include_rescaling", False):
        raise ValueError(
            f"{backbone.name} scales its input by 1/255, and images here are in [0, 1]: build it "
            "with include_rescaling=False"
        )
    if not backbone.trainable_variables:
        raise ValueError(f"{backbone.name} has no trainable weights")
    features = backbone.output
    exact = resolve_policy("float64" if features.dtype == tf.float64 else "float32")
    if features.shape.rank == 4:
        pool = keras.layers.GlobalAveragePooling2D(dtype=exact, name="final_avg_pool")
        features = pool(features)
    elif features.shape.rank == 2:
        features = keras.layers.Activation("linear", dtype=exact, name="features")(features)
    else:
        raise ValueError(
            f"{backbone.name} gives {features.shape}: neither feature maps nor features"
        )
    synchronized = global_bn and tf.distribute.get_strategy().num_replicas_in_sync > 1
    for module in backbone.submodules:
        if isinstance(module, keras.layers.BatchNormalization):
            module.momentum = batch_norm_momentum
            if synchronized:  # for which there is no fused kernel
                module.synchronized, module.fused = True, False
    disable_dropout(backbone)
    return keras.Model(backbone.inputs, features, name=backbone.name)


def describe_preset(preset: str, image_size: int) -> dict[str, Any]:
    """Return what a preset's backbone is, to be built again without the preset.

    Args:
        preset: the name of one of KerasCV's presets, or a directory that holds one.
        image_size: side in pixels of the images that it is for.

    Returns:
        `preset`, `class_name`, `config` and `features`, the width D; of JSON's types.

    Raises:
        UserError: there is no such preset, it is no image backbone of KerasCV, KerasCV cannot build
            it or is not there.
    """
    found = _open(preset, weights=False)
    settings = _plain(preset, found.get_config())
    found_size = settings["input_shape"][:2]
    if found_size not in ([None, None], [image_size, image_size]):
        raise UserError(
            f"--image_size={image_size}: the preset {preset} takes images of "
            f"{found_size[0]} × {found_size[1]} alone"
        )
    description = {"preset": preset, "class_name": type(found).__name__, "config": settings}
    encoder = build_backbone(description)
    return {**description, "features": encoder.output_shape[-1]}


def build_backbone(
    description: Mapping[str, Any],
    batch_norm_momentum: float = 0.9,
    global_bn: bool = True,
    dtype: str | keras.mixed_precision.Policy | None = None,
) -> keras.Model:
    """Build the encoder that `describe_preset` described, with random weights.

    Further arguments as in `ResNet`.

    Raises:
        UserError: KerasCV is not there, or cannot build it.
    """
    preset, name = description["preset"], description["class_name"]
    kind, settings = _class(preset, name), _plain(preset, description["config"])
    before = keras.mixed_precision.global_policy()
    # Their layers take no precision but the global one.
    keras.mixed_precision.set_global_policy(resolve_policy(dtype))
    try:
        backbone = kind(**{**settings, "include_rescaling": False, "trainable": True})
        return backbone_encoder(backbone, batch_norm_momentum, global_bn)
    except (TypeError, ValueError, LookupError) as error:
        raise _unfit(preset, name, error) from error
    finally:
        keras.mixed_precision.set_global_policy(before)


def load_preset_weights(encoder: keras.Model, preset: str) -> bool:
    """Give an encoder that was built of a preset the preset's weights; False if it has none.

    Raises:
        UserError: they are not to be had, or not those of this encoder.
    """
    source = _open(preset, weights=True)
    if source is None:
        return False
    try:
        encoder.set_weights(source.get_weights())
    except ValueError as error:
        raise _unfit(preset, type(source).__name__, error) from error
    return True


def save_preset(backbone: keras.Model, directory: str | Path) -> None:
    """Write a backbone of KerasCV as a preset's directory, which KerasCV reads, too."""
    whole = {**keras.saving.serialize_keras_object(backbone), "weights": _WEIGHTS}
    description = {key: whole[key] for key in whole if key in _KEYS}
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    backbone.save_weights(directory / _WEIGHTS)
    atomic_write(directory / _CONFIG, json.dumps(description, indent=4))


def _open(preset: str, weights: bool) -> Any:
    """The preset's backbone as KerasCV makes it; None if weights are asked of one without."""
    kind = next((k for k in map(_named, BACKBONES) if preset in k.presets), None)
    if kind is not None:
        place, has_weights = preset, preset in kind.presets_with_weights
        remedy = "presets by name are downloaded; without a network name a directory"
    else:
        place, remedy = os.path.expanduser(preset), "see that its files are whole"
        if not os.path.isdir(place):
            raise UserError(
                f"--encoder=keras_cv:{preset}: neither a directory nor one of KerasCV's presets "
                f"for {', '.join(BACKBONES)}"
            )
        kind, has_weights = _read(preset, Path(place))
    if weights and not has_weights:
        return None
    try:
        with _keras_as_it_was(kind):
            return kind.from_preset(place, load_weights=weights)
    except Exception as error:  # KerasCV, Kaggle's client and Keras's downloads have no common one
        raise UserError(
            f"--encoder=keras_cv:{preset} cannot be loaded ({_first_line(error)}): {remedy}"
        ) from error


@contextlib.contextmanager
def _keras_as_it_was(kind: type) -> Iterator[None]:
    """Undoes what KerasCV does to Keras while it reads weights.

    It replaces a property of every functional model, and does not put it back if reading fails:
    then no model of the process would have its layers in its checkpoints any more.
    """
    name = "_layer_checkpoint_dependencies"
    functional = next(base for base in kind.__mro__ if name in vars(base))
    before = vars(functional)[name]
    try:
        with warnings.catch_warnings():
            # It looks at every property of a model, the deprecated ones too.
            warnings.filterwarnings("ignore", ".*updates` will be removed in a future version")
            yield
    finally:
        setattr(functional, name, before)


def _read(preset: str, place: Path) -> tuple[Any, bool]:
    """The class of a preset's directory, and whether it has weights; it holds nothing else."""
    try:
        description = json.loads((place / _CONFIG).read_text(encoding="utf-8"))
        name, weights = description["class_name"], description.get("weights")
        registered = keras.saving.get_registered_object(description["registered_name"])
        _plain(preset, description["config"])
        # Keras would carry out others, such as what is said there of a loss.
        odd = sorted(set(description) - _KEYS)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"--encoder=keras_cv:{preset}: no preset of KerasCV ({_CONFIG}: {_first_line(error)})"
        ) from None
    if odd:
        raise UserError(f"--encoder=keras_cv:{preset}: {_CONFIG} must not have {', '.join(odd)}")
    kind = _class(preset, name)
    if registered is not kind:
        raise UserError(f"--encoder=keras_cv:{preset}: {_CONFIG} gives {name} another class's name")
    if weights is not None and (
        weights != os.path.basename(str(weights)) or not (place / weights).is_file()
    ):
        raise UserError(
            f"--encoder=keras_cv:{preset}: its weights {weights!r} are no file in it; copy them "
            "there"
        )
    return kind, weights is not None


def _class(preset: str, name: Any) -> Any:
    if name not in BACKBONES:
        raise UserError(
            f"--encoder=keras_cv:{preset}: {name} is none of the backbones that can be trained "
            f"here: {', '.join(BACKBONES)}"
        )
    return _named(name)


def _named(name: str) -> Any:
    # Asked only here: KerasCV follows tf.keras, all else works with whatever that names.
    if tf.keras.Model is not keras.Model:  # noqa: TID251
        raise UserError(
            "--encoder=keras_cv:…: TensorFlow has bound tf.keras to Keras 3 before simclr_tf was "
            "imported: set TF_USE_LEGACY_KERAS=1 in the environment, or import simclr_tf first"
        )
    try:
        import keras_cv
    except ImportError as error:
        raise UserError(
            f"--encoder=keras_cv:… needs KerasCV ({_first_line(error)}): "
            "pip install 'simclr_tf[keras-cv]'"
        ) from None
    return getattr(keras_cv.models, name)


def _plain(preset: str, config: Any) -> dict[str, Any]:
    """A backbone's settings as JSON's types; UserError if they describe any object."""

    def is_plain(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return all(map(is_plain, value))
        return value is None or isinstance(value, bool | int | float | str)

    odd = sorted(key for key, value in config.items() if not is_plain(value))
    if odd:
        raise UserError(
            f"--encoder=keras_cv:{preset}: {', '.join(odd)} must be plain values in {_CONFIG}"
        )
    return json.loads(json.dumps(config))


def _unfit(preset: str, name: str, error: Exception) -> UserError:
    return UserError(
        f"--encoder=keras_cv:{preset}: KerasCV cannot build this {name}: {_first_line(error)}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
