"""Base class of the optimizers, and the momentum and Adam optimizers with L2 weight decay."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

GradsAndVars = Sequence[tuple[tf.Tensor | None, tf.Variable]]


class GradientHookOptimizer(keras.optimizers.Optimizer):
    """Keras optimizer with a callback that receives each step's aggregated gradients."""

    # Called on each replica with the gradients summed over the replicas, before they are applied.
    on_gradients: Callable[[GradsAndVars], Any] | None = None

    def aggregate_gradients(self, grads_and_vars: GradsAndVars) -> GradsAndVars:
        summed = super().aggregate_gradients(grads_and_vars)
        if self.on_gradients:
            self.on_gradients(summed)
        return summed

    def trust_ratio(self, gradient: tf.Tensor, variable: tf.Variable) -> tf.Tensor | None:
        """Returns the factor of layer-wise adaptation in this step, None for no adaptation."""
        return None


def uses_weight_decay(optimizer: keras.optimizers.Optimizer, variable: tf.Variable) -> bool:
    """Returns whether a variable takes weight decay (in LARS and LAMB also layer-wise adaptation).

    Kernels do, except those passed to the optimizer's `exclude_from_weight_decay`. Biases, betas
    and gammas do not: they have rank 1 (except in Keras's attention and recurrent layers), so the
    rank distinguishes them where a name could change.
    """
    return variable.shape.rank > 1 and optimizer._use_weight_decay(variable)


def layerwise_trust_ratio(
    weights: tf.Tensor, update: tf.Tensor, coefficient: float = 1.0
) -> tf.Tensor:
    """Returns coefficient·‖weights‖ / ‖update‖, or 1 where either norm is 0."""
    weight_norm, update_norm = tf.norm(weights), tf.norm(update)
    return tf.where(
        tf.logical_and(weight_norm > 0, update_norm > 0),
        coefficient * tf.math.divide_no_nan(weight_norm, update_norm),
        tf.ones_like(update_norm),
    )


class _L2Mixin(GradientHookOptimizer):
    """Adds `l2`·w to the gradients of kernels, after they were summed over the replicas."""

    def __init__(self, *args: Any, l2: float = 0.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.l2 = l2

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        if self.l2 and uses_weight_decay(self, variable):
            gradient += self.l2 * variable
        super().update_step(gradient, variable)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "l2": self.l2}


@keras.utils.register_keras_serializable(package="simclr_tf")
class SGDL2(_L2Mixin, keras.optimizers.SGD):
    """Keras's SGD with `l2`·w in the gradient of kernels, as in the reference implementation."""


@keras.utils.register_keras_serializable(package="simclr_tf")
class AdamL2(_L2Mixin, keras.optimizers.Adam):
    """Keras's Adam with `l2`·w in the gradient of kernels, as in the reference implementation."""


@keras.utils.register_keras_serializable(package="simclr_tf")
class AdamW(GradientHookOptimizer, keras.optimizers.AdamW):
    """Keras's AdamW without decay of biases and normalization parameters."""

    def _use_weight_decay(self, variable):
        return variable.shape.rank > 1 and super()._use_weight_decay(variable)
