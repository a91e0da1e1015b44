"""Encoders from the user's own functional Keras models, stored as a JSON description.

A description contains Keras's own layers only, so that a run can be loaded without the code that
built the model, and so that a config.json from a stranger cannot execute code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tf_keras as keras

from simclr_tf.errors import UserError
from simclr_tf.models.keras_cv_backbones import backbone_encoder, first_line
from simclr_tf.models.layers import global_policy, resolve_policy

_OP_LAYERS = ("TFOpLambda", "SlicingOpLambda")
_OP_MODULE = "tf_keras.src.layers.core.tf_op_layer"
_OP_PREFIXES = ("__operators__.", "keras.", "linalg.", "math.", "nn.")
_OPS = (
    *("cast", "clip_by_value", "concat", "expand_dims", "identity", "pad", "reshape"),
    *("split", "squeeze", "stack", "tile", "transpose", "unstack"),
)


def describe_encoder(model: Any, image_size: int) -> dict[str, Any]:
    """Describes a functional Keras model as an encoder, to be rebuilt without the model.

    Returns `class_name` (the model's name), `features` (D) and `config` (JSON text of the layers).
    """
    _check_functional(model)
    _check_shapes(model, image_size)
    try:
        text = model.to_json()
    except (NotImplementedError, TypeError, ValueError) as error:
        raise _error(f"cannot be serialized ({first_line(error)})", _CUSTOM_LAYERS) from None
    document = json.loads(text)
    _check_layers(document)
    _check_rescaling(document)
    if not model.trainable_variables:
        raise _error("has no trainable weights", "set encoder.trainable = True")
    description = {
        "class_name": model.name,
        "features": model.output_shape[-1],
        "config": json.dumps(document),
    }
    build_custom_encoder(description)
    return description


def build_custom_encoder(
    description: Mapping[str, Any],
    batch_norm_momentum: float = 0.9,
    global_bn: bool = True,
    dtype: str | keras.mixed_precision.Policy | None = None,
) -> keras.Model:
    """Builds the encoder of a `describe_encoder` description, with random weights.

    The precision is that of `dtype` in all layers; batch norm and dropout change as in
    `backbone_encoder`.
    """
    try:
        document = json.loads(description["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise _error(f"has a damaged description ({first_line(error)})", _REPASS) from None
    _check_layers(document)
    policy = resolve_policy(dtype)
    for node in _objects(document):
        config = node["config"]
        if isinstance(config, dict) and "dtype" in config and _is_layer(node):
            if node["class_name"] == "InputLayer":
                config["dtype"] = policy.variable_dtype
            else:
                del config["dtype"]
    try:
        with global_policy(policy):
            model = keras.models.model_from_json(json.dumps(document))
            return backbone_encoder(model, batch_norm_momentum, global_bn)
    except (AttributeError, KeyError, TypeError, ValueError, LookupError) as error:
        raise _error(f"cannot be rebuilt ({first_line(error)})", _CUSTOM_LAYERS) from error


def copy_encoder_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies the weights of the user's model to the encoder that was built from its description."""
    try:
        target.set_weights(source.get_weights())
    except ValueError as error:
        raise _error(f"has other weights than the run ({first_line(error)})", _REPASS) from None


def same_architecture(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Returns whether two descriptions differ at most in the names of model and layers.

    Keras numbers the default names, so that the same code gives other names the second time.
    """
    return _without_names(a["config"]) == _without_names(b["config"])


_CUSTOM_LAYERS = "use Keras's own layers only, without Lambda and custom layers"
_REPASS = "pass the model that the run was started with"


def _error(problem: str, fix: str) -> UserError:
    return UserError(f"encoder: the model {problem}. Fix: {fix}")


def _check_functional(model: Any) -> None:
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    if any(c.__module__.partition(".")[0] == "keras" for c in type(model).__mro__):
        raise UserError(
            f"encoder: expected a tf_keras model, got {kind} of Keras 3. Fix: build the model with "
            "`import tf_keras as keras`"
        )
    if not isinstance(model, keras.Model):
        raise UserError(f"encoder: expected a name or a functional tf_keras model, got {kind}")
    if not (getattr(model, "inputs", None) and getattr(model, "outputs", None)):
        raise UserError(
            f"encoder: expected a functional model, got {kind}, which is subclassed or not built. "
            "Fix: keras.Model(inputs, outputs), or keras.Sequential that starts with keras.Input"
        )


def _check_shapes(model: keras.Model, image_size: int) -> None:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise _error(
            f"has {len(model.inputs)} inputs and {len(model.outputs)} outputs", "use one of each"
        )
    (images,), (features,) = model.inputs, model.outputs
    if not images.dtype.is_floating:
        raise _error(
            f"takes {images.dtype.name} images, and the views are float in [0, 1]",
            'keras.Input(shape, dtype="float32")',
        )
    if not images.shape.is_compatible_with([None, image_size, image_size, 3]):
        raise _error(
            f"takes images of shape {images.shape[1:]}, and --image_size={image_size} gives "
            f"({image_size}, {image_size}, 3)",
            f"build it for {image_size} pixels, or set image_size",
        )
    if features.shape.rank != 2 or features.shape[-1] is None:
        raise UserError(
            f"encoder: expected output of shape [N, D], got {features.shape}. Fix: add "
            'GlobalAveragePooling2D (in keras.applications: include_top=False, pooling="avg")'
        )


def _objects(node: Any) -> Iterator[Any]:
    """Yields every serialized object of a model's JSON."""
    if isinstance(node, dict):
        if "class_name" in node and "config" in node:
            yield node
        children: Any = node.values()
    else:
        children = node if isinstance(node, list) else ()
    for child in children:
        yield from _objects(child)


def _is_layer(node: Mapping[str, Any]) -> bool:
    module = str(node.get("module"))
    return module.startswith(("keras.layers", "tf_keras.src.applications", _OP_MODULE))


def _check_layers(document: Any) -> None:
    """Raises UserError if the JSON contains anything but Keras's own objects and known TF ops."""
    for node in _objects(document):
        name, module = str(node["class_name"]), node.get("module")
        if name in _OP_LAYERS:
            op = str(node["config"].get("function", "getitem"))
            if name != "SlicingOpLambda" and not op.startswith(_OP_PREFIXES) and op not in _OPS:
                raise _error(f"calls tf.{op}", _CUSTOM_LAYERS)
            continue
        # The document itself has no module.
        is_keras = node is document or str(module).partition(".")[0] == "keras"
        is_keras |= str(module).startswith("tf_keras.src.applications.")
        if name in ("Lambda", "__lambda__") or not is_keras:
            raise _error(f"contains {name}, which cannot be stored with the run", _CUSTOM_LAYERS)


def _check_rescaling(document: Any) -> None:
    scales = [n["config"]["scale"] for n in _objects(document) if n["class_name"] == "Rescaling"]
    scale = np.prod([np.max(s) for s in scales])
    if scale < 0.1:
        raise _error(
            f"scales its input by {scale:.3g}, and the views are in [0, 1] already",
            "include_preprocessing=False, or keras.layers.Rescaling(255.0) before it",
        )


def _without_names(config: str) -> Any:
    document = json.loads(config)
    names: dict[str, str] = {}
    for node in _objects(document):
        settings = node["config"]
        if isinstance(settings, dict) and settings.get("name"):
            names.setdefault(settings["name"], str(len(names)))

    def rename(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: rename(value) for key, value in node.items()}
        if isinstance(node, list):
            return [rename(value) for value in node]
        return names.get(node, node) if isinstance(node, str) else node

    return rename(document)
