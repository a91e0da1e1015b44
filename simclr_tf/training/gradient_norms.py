"""Norms of gradients and weights, and trust ratios, in the steps that are logged."""

from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf.models.multi_view import MultiViewModel
from simclr_tf.optimizers.weight_decay import GradsAndVars


class GradientNormMonitor:
    """Measures gradient norms in a model's optimizer every `interval` steps and in the last one.

    The measurement is a branch of the step's own graph, which other steps skip: this works with
    several steps per call from the host, and needs no second graph to compile. The branch reads
    only the weights that the optimizer adapts by layer, because an update of a variable that a
    branch may read has to wait for the branch. Create the monitor in the scope of the strategy,
    after the variables of the model's optimizer, which is one of `simclr_tf.optimizers`.
    """

    def __init__(self, model: MultiViewModel, interval: int, total_steps: int):
        self._step, self._interval, self._total = model.step, interval, total_steps
        optimizer: Any = model.optimizer
        self._optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        self._weights = model.trainable_variables
        self._buffer = tf.Variable(
            tf.fill([1 + len(model.trainable_variables)], np.nan),
            dtype=tf.float32,
            trainable=False,
            # One per replica, without communication: they are equal. Not part of checkpoints.
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self._optimizer.on_gradients = self._on_gradients

    def latest(self) -> tuple[dict[str, float], np.ndarray]:
        """Returns the newest finite norms, and the trust ratios, float32 [K].

        `gradient_norm` is of the gradient summed over the replicas before any weight decay,
        `weight_norm` of the current weights, both over all trainable variables. K variables are
        adapted by layer.
        """
        gradient, *ratios = self._buffer.numpy()
        norms = {"gradient_norm": float(gradient), "weight_norm": float(self._weight_norm())}
        trust_ratios = np.array(ratios, np.float32)
        finite_norms = {name: norm for name, norm in norms.items() if np.isfinite(norm)}
        return finite_norms, trust_ratios[np.isfinite(trust_ratios)]

    @tf.function
    def _weight_norm(self) -> tf.Tensor:
        return tf.linalg.global_norm([tf.convert_to_tensor(weight) for weight in self._weights])

    def _on_gradients(self, grads_and_vars: GradsAndVars) -> None:
        done = self._step + 1
        is_due = tf.logical_or(done % self._interval == 0, done == self._total)
        tf.cond(is_due, lambda: self._measure(grads_and_vars), lambda: tf.constant(False))

    def _measure(self, grads_and_vars: GradsAndVars) -> tf.Tensor:
        ratios = [
            None if gradient is None else self._optimizer.trust_ratio(gradient, variable)
            for gradient, variable in grads_and_vars
        ]
        values = [
            tf.linalg.global_norm([gradient for gradient, _ in grads_and_vars]),
            *(np.nan if ratio is None else ratio for ratio in ratios),
        ]
        self._buffer.assign(tf.stack([tf.cast(x, tf.float32) for x in values]))
        return tf.constant(True)
