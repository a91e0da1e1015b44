"""Which variables take weight decay, and momentum and Adam with an L2 term in the gradient."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.optimizers.base import Watched


def decayed(optimizer: keras.optimizers.Optimizer, variable: tf.Variable) -> bool:
    """Whether a variable takes weight decay (and, in LARS, adaptation).

    Kernels do. Vectors do not: in convolutions, dense layers and normalisation over the last axis,
    biases, betas and gammas have rank 1 and kernels at least 2, so the rank tells them apart where
    a name could change (not so in Keras's attention and recurrent layers). Nor does what the
    optimizer's `exclude_from_weight_decay` was given, such as the concurrent linear head.
    """
    return variable.shape.rank > 1 and optimizer._use_weight_decay(variable)


class _L2(Watched):
    """Adds `l2`·w to the gradient of kernels, which here is already the sum over the replicas."""

    def __init__(self, *args: Any, l2: float = 0.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.l2 = l2

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        if self.l2 and decayed(self, variable):
            gradient += self.l2 * variable
        super().update_step(gradient, variable)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "l2": self.l2}


@keras.utils.register_keras_serializable(package="simclr_tf")
class MomentumL2(_L2, keras.optimizers.SGD):
    """Keras's SGD with `l2`·w in the gradient of kernels, as the reference has it."""


@keras.utils.register_keras_serializable(package="simclr_tf")
class AdamL2(_L2, keras.optimizers.Adam):
    """Keras's Adam with `l2`·w in the gradient of kernels, as the reference has it."""


@keras.utils.register_keras_serializable(package="simclr_tf")
class AdamW(Watched, keras.optimizers.AdamW):
    """Keras's AdamW whose decay leaves biases and normalisation parameters alone."""

    def _use_weight_decay(self, variable):
        return variable.shape.rank > 1 and super()._use_weight_decay(variable)
