"""An encoder as it is exported: one device, one precision, nothing of how it was trained."""

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from simclr_tf.errors import UserError
from simclr_tf.models.layers import disable_dropout


def plain_copy(model: keras.Model, float16: bool = False) -> keras.Model:
    """Rebuild `model` in float32 with unsynchronised batch normalisation and the same weights.

    Dropout, where it has any, is switched off: nothing in an export is random.

    Args:
        model: functional or Sequential.
        float16: keep the variables in half precision, all but those of batch normalisation.

    Raises:
        UserError: it is neither, or a weight is beyond what half precision holds.
    """
    if not model.inputs:
        raise UserError(
            f"the model {model.name!r} is a subclass without a graph of layers, which cannot "
            "be exported; build it with the functional API or as keras.Sequential"
        )
    dtype = _StoredInHalf() if float16 else "float32"

    def plain(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=plain)
        # tf_keras leaves `synchronized` out of the configuration: what is made from it is plain.
        return layer.__class__.from_config(_with_dtype(layer.get_config(), dtype))

    inputs = keras.Input(model.input_shape[1:], dtype=tf.float32, name=model.input_names[0])
    copy = keras.models.clone_model(model, input_tensors=inputs, clone_function=plain)
    copy.set_weights(model.get_weights())
    disable_dropout(copy)
    if float16 and not all(np.isfinite(weights).all() for weights in copy.get_weights()):
        raise UserError(
            "--format: the encoder has weights above 65,504, which half precision cannot hold; "
            "export it as saved_model"
        )
    # What was frozen while training is for the model's user to freeze.
    copy.trainable = True
    return copy


class _StoredInHalf(keras.mixed_precision.Policy):
    """Variables of 16 bits, computed with in 32; Keras's own policies are the other way round."""

    def __init__(self) -> None:
        super().__init__("float32")
        self._variable_dtype = "float16"


def _with_dtype(config: Any, dtype: Any) -> Any:
    """Return a layer's configuration with every `dtype` in it replaced."""
    if isinstance(config, dict):
        return {
            key: dtype if key == "dtype" else _with_dtype(value, dtype)
            for key, value in config.items()
        }
    if isinstance(config, list):
        return [_with_dtype(value, dtype) for value in config]
    if isinstance(config, tuple):
        return tuple(_with_dtype(value, dtype) for value in config)
    return config
