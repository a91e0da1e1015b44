"""Optimizers that show what they are about to apply."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

Pairs = Sequence[tuple[tf.Tensor | None, tf.Variable]]


class Watched(keras.optimizers.Optimizer):
    """Shows each step's gradients, summed over the replicas, before they are applied.

    Attributes:
        watch: called in every replica with (gradient, variable) pairs; None: nobody looks.
    """

    watch: Callable[[Pairs], Any] | None = None

    def aggregate_gradients(self, grads_and_vars: Pairs) -> Pairs:
        summed = super().aggregate_gradients(grads_and_vars)
        if self.watch:
            self.watch(summed)
        return summed

    def trust_ratio(self, gradient: tf.Tensor, variable: tf.Variable) -> tf.Tensor | None:
        """The factor that this step's layer-wise adaptation has for a variable; None without."""
        del gradient, variable
        return None


def trust(weights: tf.Tensor, update: tf.Tensor, coefficient: float = 1.0) -> tf.Tensor:
    """coefficient·‖weights‖ / ‖update‖, or 1 where either norm is 0."""
    above, below = tf.norm(weights), tf.norm(update)
    return tf.where(
        tf.logical_and(above > 0, below > 0),
        coefficient * tf.math.divide_no_nan(above, below),
        tf.ones_like(below),
    )
