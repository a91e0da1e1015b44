"""Norms of gradients and weights, and trust ratios, on the steps that are logged."""

from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf.models.multi_view import MultiViewModel
from simclr_tf.optimizers.weight_decay import GradsAndVars


class GradientNormMonitor:
    """Watches the optimizer of a model every `every` steps, and in the last one.

    A branch of the step's own graph measures where it is due, and other steps pass it by: with
    several steps a call from the host, too, and without a second graph to compile. Of the weights
    it reads none but those that an optimizer adapts by layer, since no update of what a branch may
    read begins before it. What it found lies in a variable of each replica, which no checkpoint
    knows. Make it in the strategy's scope.

    Args:
        model: compiled with an optimizer of `simclr_tf.optimizers`, its variables created.
        every: steps between two looks.
        total_steps: of the run.
    """

    def __init__(self, model: MultiViewModel, every: int, total_steps: int):
        self._step, self._every, self._total = model.step, every, total_steps
        optimizer: Any = model.optimizer
        self._optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        self._weights = model.trainable_variables
        self._found = tf.Variable(
            tf.fill([1 + len(model.trainable_variables)], np.nan),
            dtype=tf.float32,
            trainable=False,
            # Each replica has its own, and nothing is exchanged: they are the same.
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self._optimizer.on_gradients = self._watch

    def read(self) -> tuple[dict[str, float], np.ndarray]:
        """Returns what was found last, on the step that is a multiple of `every`, or the last one.

        Returns:
            `gradient_norm`, of the gradient summed over the replicas before any weight decay, and
            `weight_norm`, of the weights as they are now, over all trainable variables; each only
            where it is finite. And the trust ratios of those that the optimizer adapts, float32
            [K].
        """
        gradient, *ratios = self._found.numpy()
        norms = {"gradient_norm": float(gradient), "weight_norm": float(self._weight_norm())}
        found = np.array(ratios, np.float32)
        return {k: v for k, v in norms.items() if np.isfinite(v)}, found[np.isfinite(found)]

    @tf.function
    def _weight_norm(self) -> tf.Tensor:
        return tf.linalg.global_norm([tf.convert_to_tensor(weight) for weight in self._weights])

    def _watch(self, pairs: GradsAndVars) -> None:
        done = self._step + 1
        due = tf.logical_or(done % self._every == 0, done == self._total)
        tf.cond(due, lambda: self._measure(pairs), lambda: tf.constant(False))

    def _measure(self, pairs: GradsAndVars) -> tf.Tensor:
        ratios = [
            None if gradient is None else self._optimizer.trust_ratio(gradient, variable)
            for gradient, variable in pairs
        ]
        found = [
            tf.linalg.global_norm([gradient for gradient, _ in pairs]),
            *(np.nan if ratio is None else ratio for ratio in ratios),
        ]
        self._found.assign(tf.stack([tf.cast(x, tf.float32) for x in found]))
        return tf.constant(True)
