"""LAMB: layer-wise adaptive moments, for large batches (You et al., 2020; arXiv 1904.00962)."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.optimizers.tfa_compat import import_tensorflow_addons
from simclr_tf.optimizers.weight_decay import (
    GradsAndVars,
    layerwise_trust_ratio,
    uses_weight_decay,
)

addons: Any = import_tensorflow_addons()


class LAMB(addons.optimizers.LAMB):
    """LAMB from TensorFlow Addons with LARS's exclusions and the Keras optimizer interface.

    `u = m̂ / (√v̂ + ε) + wd·w` with Adam's moments, `w -= lr·trust·u` with `trust = ‖w‖ / ‖u‖`, or 1
    where either norm is 0. A step changes a kernel by lr times its norm, with LARS by a
    thousandth of it: learning rates tuned for LARS are far too high here.
    """

    def __init__(self, learning_rate=0.001, weight_decay=0.0, name="LAMB", **kwargs):
        super().__init__(learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        # Addons stores name patterns under this name, which would hide the method.
        del self.exclude_from_weight_decay
        self._excluded: list[tf.Variable] = []
        self.on_gradients: Any = None  # as in `GradientHookOptimizer`

    def build(self, var_list: list[tf.Variable]) -> None:
        self._create_all_weights(var_list)

    @property
    def learning_rate(self) -> Any:
        """The learning rate; for a schedule that of the last step."""
        rate = self._get_hyper("learning_rate")
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return rate(tf.maximum(self.iterations - 1, 0))
        return rate

    def exclude_from_weight_decay(self, var_list: list[tf.Variable]) -> None:
        self._excluded = list(var_list)

    def _use_weight_decay(self, variable):
        # Under replicas the variable is one of its copies, and all copies share one slot.
        slot = self.get_slot(variable, "m")
        return all(slot is not self.get_slot(excluded, "m") for excluded in self._excluded)

    def _do_use_weight_decay(self, variable):
        return uses_weight_decay(self, variable)

    _do_layer_adaptation = _do_use_weight_decay

    def _aggregate_gradients(self, grads_and_vars: GradsAndVars) -> GradsAndVars:
        summed = super()._aggregate_gradients(grads_and_vars)
        if self.on_gradients:
            self.on_gradients(summed)
        return summed

    def trust_ratio(self, gradient: tf.Tensor, variable: tf.Variable) -> tf.Tensor | None:
        """As in `GradientHookOptimizer`; Addons computes it but does not expose it."""
        if not uses_weight_decay(self, variable):
            return None
        beta_1, beta_2 = (self._get_hyper(name, variable.dtype) for name in ("beta_1", "beta_2"))
        m = beta_1 * self.get_slot(variable, "m") + (1 - beta_1) * gradient
        v = beta_2 * self.get_slot(variable, "v") + (1 - beta_2) * tf.square(gradient)
        step = tf.cast(self.iterations + 1, variable.dtype)
        m, v = m / (1 - tf.pow(beta_1, step)), v / (1 - tf.pow(beta_2, step))
        update = m / (tf.sqrt(v) + self.epsilon)
        update += self._get_hyper("weight_decay", variable.dtype) * variable
        return layerwise_trust_ratio(variable, update)

    def get_config(self) -> dict[str, Any]:
        patterns = ("exclude_from_weight_decay", "exclude_from_layer_adaptation")
        return {key: value for key, value in super().get_config().items() if key not in patterns}
