"""Inference copy of a model: one device, one precision, no training state."""

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from simclr_tf.errors import UserError
from simclr_tf.models.layers import disable_dropout


def float32_inference_copy(model: keras.Model, float16: bool = False) -> keras.Model:
    """Rebuilds a model in float32 with ordinary batch normalization and the same weights.

    Dropout is disabled, so that an export contains no random operations, and all layers of the copy
    are trainable. With `float16`, variables are stored in it, except those of batch normalization.
    """
    if not model.inputs:
        raise UserError(
            f"the model {model.name!r} is a subclass without a graph of layers, which cannot be "
            "exported. Fix: build it with the functional API or as keras.Sequential"
        )
    dtype = _Float16StoragePolicy() if float16 else "float32"

    def clone_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=clone_layer)
        # The configuration in tf_keras lacks `synchronized`, so the clone is not synchronized.
        return layer.__class__.from_config(_replace_dtype(layer.get_config(), dtype))

    inputs = keras.Input(model.input_shape[1:], dtype=tf.float32, name=model.input_names[0])
    copy = keras.models.clone_model(model, input_tensors=inputs, clone_function=clone_layer)
    copy.set_weights(model.get_weights())
    disable_dropout(copy)
    if float16 and not all(np.isfinite(weights).all() for weights in copy.get_weights()):
        raise UserError(
            "--format: the encoder has weights above 65,504, the maximum of float16. "
            "Fix: use --format=saved_model"
        )
    # Layers that were frozen in training are for the user of the export to freeze.
    copy.trainable = True
    return copy


class _Float16StoragePolicy(keras.mixed_precision.Policy):
    """float16 variables, float32 computation: the reverse of Keras's own policies."""

    def __init__(self) -> None:
        super().__init__("float32")
        self._variable_dtype = "float16"


def _replace_dtype(config: Any, dtype: Any) -> Any:
    """Returns a layer's configuration with every `dtype` in it replaced."""
    if isinstance(config, dict):
        return {
            key: dtype if key == "dtype" else _replace_dtype(value, dtype)
            for key, value in config.items()
        }
    if isinstance(config, list):  # also a ListWrapper of TensorFlow, which takes no generator
        return [_replace_dtype(value, dtype) for value in config]
    if isinstance(config, tuple):
        return tuple(_replace_dtype(value, dtype) for value in config)
    return config
