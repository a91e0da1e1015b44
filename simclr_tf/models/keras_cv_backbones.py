"""KerasCV backbones as encoders, from presets: a name, which KerasCV downloads, or a directory.

From a preset's `config.json` only the name of one of KerasCV's backbones and plain values are read,
so that a file from a stranger cannot execute code.
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
from simclr_tf.models.layers import disable_dropout, global_policy, resolve_policy
from simclr_tf.utils.files import atomic_write

# The image backbones of KerasCV 0.9 that can be built, trained in half precision and rebuilt from
# their layers. VGG16Backbone has no variables under tf_keras, MiTBackbone's layers cannot be
# rebuilt from their configuration, VideoSwinBackbone takes videos.
BACKBONES = (
    *("CSPDarkNetBackbone", "DenseNetBackbone", "EfficientNetLiteBackbone"),
    *("EfficientNetV1Backbone", "EfficientNetV2Backbone", "MobileNetV3Backbone"),
    *("ResNetBackbone", "ResNetV2Backbone", "ViTDetBackbone"),
)
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_SAVE = "Fix: save the preset with KerasCV"
_KEYS = {"module", "class_name", "config", "registered_name", "weights"}


def backbone_encoder(
    backbone: keras.Model, batch_norm_momentum: float = 0.9, global_bn: bool = True
) -> keras.Model:
    """Makes an encoder from a backbone: images [N, S, S, 3] in [0, 1] → features h [N, D].

    Layers and weights are shared with the backbone. Its batch norms get the given momentum and
    kind; dropout and stochastic depth are disabled, so that a step can be replayed.

    Args:
        backbone: a KerasCV backbone or another functional model, images → [N, h, w, D] or [N, D].
        batch_norm_momentum: decay of the moving statistics per step, in [0, 1).
        global_bn: whether replicas of the strategy in scope share batch statistics.

    Returns:
        A functional model with float32 features (float64 for float64).

    Raises:
        ValueError: the backbone scales its input by 1/255, has no trainable weights, or its output
            is neither feature maps nor features.

    Example:
    >>> import tf_keras as keras
    >>> import simclr_tf as st
    >>> maps = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3)])
    >>> st.models.backbone_encoder(maps).output_shape
    (None, 4)
    """
    if getattr(backbone, "include_rescaling", False):
        raise ValueError(
            f"{backbone.name} scales its input by 1/255, and images are already in [0, 1]: build "
            "it with include_rescaling=False"
        )
    if not backbone.trainable_variables:
        raise ValueError(f"{backbone.name} has no trainable weights")
    features = backbone.output
    float_policy = resolve_policy("float64" if features.dtype == tf.float64 else "float32")
    if features.shape.rank == 4:
        pool = keras.layers.GlobalAveragePooling2D(dtype=float_policy, name="final_avg_pool")
        features = pool(features)
    elif features.shape.rank == 2:
        # A user's model may have a layer "features" of its own.
        names = {layer.name for layer in backbone.layers}
        name = "encoder_features" if "features" in names else "features"
        features = keras.layers.Activation("linear", dtype=float_policy, name=name)(features)
    else:
        raise ValueError(
            f"{backbone.name}: expected output [N, h, w, D] or [N, D], got {features.shape}"
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
    """Describes the backbone of a preset, to be rebuilt without the preset.

    Returns `preset`, `class_name`, `config` and `features`, the width D; JSON types.
    """
    backbone = _load_preset(preset, weights=False)
    config = _json_config(preset, backbone.get_config())
    size = config["input_shape"][:2]
    if size not in ([None, None], [image_size, image_size]):
        raise UserError(
            f"--image_size={image_size}: the preset {preset} takes images of "
            f"{size[0]} × {size[1]} pixels. Fix: set --image_size={size[0]}"
        )
    description = {"preset": preset, "class_name": type(backbone).__name__, "config": config}
    encoder = build_backbone(description)
    return {**description, "features": encoder.output_shape[-1]}


def build_backbone(
    description: Mapping[str, Any],
    batch_norm_momentum: float = 0.9,
    global_bn: bool = True,
    dtype: str | keras.mixed_precision.Policy | None = None,
) -> keras.Model:
    """Builds the encoder of a `describe_preset` description, with random weights."""
    preset, name = description["preset"], description["class_name"]
    backbone_class = _supported_backbone_class(preset, name)
    config = _json_config(preset, description["config"])
    try:
        # The layers of KerasCV take no precision but the global one.
        with global_policy(resolve_policy(dtype)):
            backbone = backbone_class(**{**config, "include_rescaling": False, "trainable": True})
            return backbone_encoder(backbone, batch_norm_momentum, global_bn)
    except (TypeError, ValueError, LookupError) as error:
        raise _build_error(preset, name, error) from error


def load_preset_weights(encoder: keras.Model, preset: str) -> bool:
    """Loads the weights of a preset into its encoder; returns False if the preset has none."""
    source = _load_preset(preset, weights=True)
    if source is None:
        return False
    try:
        encoder.set_weights(source.get_weights())
    except ValueError as error:
        raise _build_error(preset, type(source).__name__, error) from error
    return True


def save_preset(backbone: keras.Model, directory: str | Path) -> None:
    """Writes a KerasCV backbone as a preset directory, which KerasCV can also read."""
    serialized = {**keras.saving.serialize_keras_object(backbone), "weights": _WEIGHTS}
    document = {key: serialized[key] for key in serialized if key in _KEYS}
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    backbone.save_weights(directory / _WEIGHTS)
    atomic_write(directory / _CONFIG, json.dumps(document, indent=4))


def _load_preset(preset: str, weights: bool) -> Any:
    """Returns the backbone that KerasCV builds; None if `weights` and the preset has none."""
    classes = map(_backbone_class, BACKBONES)
    backbone_class = next((c for c in classes if preset in c.presets), None)
    if backbone_class is not None:
        path, has_weights = preset, preset in backbone_class.presets_with_weights
        hint = "presets are downloaded by name; without a network pass a preset directory"
    else:
        path, hint = os.path.expanduser(preset), "check that its files are complete"
        if not os.path.isdir(path):
            raise _preset_error(
                preset,
                f"expected a directory or a KerasCV preset for one of {', '.join(BACKBONES)}. Fix: "
                "check the name",
            )
        backbone_class, has_weights = _read_preset_dir(preset, Path(path))
    if weights and not has_weights:
        return None
    try:
        with _restore_functional_model(backbone_class):
            return backbone_class.from_preset(path, load_weights=weights)
    except Exception as error:  # KerasCV, Kaggle's client and Keras downloads share no base class
        raise UserError(
            f"--encoder=keras_cv:{preset} cannot be loaded ({first_line(error)}). Fix: {hint}"
        ) from error


@contextlib.contextmanager
def _restore_functional_model(backbone_class: type) -> Iterator[None]:
    """Undoes the change that KerasCV makes to Keras while it reads weights.

    It replaces a property of every functional model and does not restore it if reading fails: then
    no model of the process would have its layers in its checkpoints any more.
    """
    name = "_layer_checkpoint_dependencies"
    functional = next(base for base in backbone_class.__mro__ if name in vars(base))
    before = vars(functional)[name]
    try:
        with warnings.catch_warnings():
            # KerasCV reads every property of a model, including deprecated ones.
            warnings.filterwarnings("ignore", ".*updates` will be removed in a future version")
            yield
    finally:
        setattr(functional, name, before)


def _read_preset_dir(preset: str, path: Path) -> tuple[Any, bool]:
    """Checks a preset directory and returns its class and whether it has weights."""
    try:
        document = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
        name, weights = document["class_name"], document.get("weights")
        registered = keras.saving.get_registered_object(document["registered_name"])
        _json_config(preset, document["config"])
        # Keras would execute other keys, such as a serialized loss.
        unexpected = sorted(set(document) - _KEYS)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        problem = f"not a KerasCV preset ({_CONFIG}: {first_line(error)}). {_SAVE}"
        raise _preset_error(preset, problem) from None
    if unexpected:
        raise _preset_error(
            preset,
            f"expected only {', '.join(sorted(_KEYS))} in {_CONFIG}, got {', '.join(unexpected)}",
        )
    backbone_class = _supported_backbone_class(preset, name)
    if registered is not backbone_class:
        raise _preset_error(
            preset, f"{_CONFIG} registers {name} under the name of another class. {_SAVE}"
        )
    if weights is not None and (
        weights != os.path.basename(str(weights)) or not (path / weights).is_file()
    ):
        raise _preset_error(
            preset, f"its weights {weights!r} are not a file in the directory. Fix: copy them there"
        )
    return backbone_class, weights is not None


def _supported_backbone_class(preset: str, name: Any) -> Any:
    if name not in BACKBONES:
        raise _preset_error(preset, f"expected one of {', '.join(BACKBONES)}, got {name}")
    return _backbone_class(name)


def _backbone_class(name: str) -> Any:
    # Checked only here: KerasCV follows tf.keras, everything else works with either Keras.
    if tf.keras.Model is not keras.Model:  # noqa: TID251
        raise UserError(
            "--encoder=keras_cv:…: TensorFlow has bound tf.keras to Keras 3 before simclr_tf was "
            "imported. Fix: set TF_USE_LEGACY_KERAS=1 in the environment, or import simclr_tf first"
        )
    try:
        import keras_cv
    except ImportError as error:
        raise UserError(
            f"--encoder=keras_cv:… needs KerasCV ({first_line(error)}). Fix: "
            "pip install 'simclr_tf[keras-cv]'"
        ) from None
    return getattr(keras_cv.models, name)


def _json_config(preset: str, config: Any) -> dict[str, Any]:
    """Returns a backbone's arguments as JSON types; UserError if they describe any object."""

    def is_plain(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return all(map(is_plain, value))
        return value is None or isinstance(value, bool | int | float | str)

    unexpected = sorted(key for key, value in config.items() if not is_plain(value))
    if unexpected:
        raise _preset_error(
            preset, f"{', '.join(unexpected)} must be plain values in {_CONFIG}. {_SAVE}"
        )
    return json.loads(json.dumps(config))


def _preset_error(preset: str, problem: str) -> UserError:
    return UserError(f"--encoder=keras_cv:{preset}: {problem}")


def _build_error(preset: str, name: str, error: Exception) -> UserError:
    return _preset_error(preset, f"KerasCV cannot build this {name}: {first_line(error)}. {_SAVE}")


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, of at most 160 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
