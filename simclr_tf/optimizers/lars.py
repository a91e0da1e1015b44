"""LARS: layer-wise adaptive rate scaling, for large batches (You et al., 2017; [v1 §2.3])."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.optimizers.base import Watched, trust
from simclr_tf.optimizers.weight_decay import decayed


@keras.utils.register_keras_serializable(package="simclr_tf")
class LARS(Watched):
    """Momentum whose every kernel takes a step proportional to its own norm.

    `v = m·v + lr·trust·(g + wd·w)`, `w -= v`, with the learning rate inside the velocity and
    `trust = trust_coefficient·‖w‖ / ‖g + wd·w‖`, or 1 where either norm is 0. Vectors (biases and
    normalisation parameters) and what `exclude_from_weight_decay` names take neither decay nor
    adaptation. Because of the trust ratio the scale of the loss does not matter.

    Args:
        learning_rate: a number or a schedule; the paper's is 0.3·B/256 with 10 warm-up epochs, and
            of the order of 1: about 1000 times what suits momentum.
        momentum: 0 to 1.
        weight_decay: wd ≥ 0, an L2 term in the gradient.
        trust_coefficient: above 0.

    Raises:
        ValueError: if an argument lies outside its range.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        name: str = "LARS",
        **kwargs: Any,
    ):
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}")
        if weight_decay < 0:
            raise ValueError(f"weight_decay must be ≥ 0, not {weight_decay}")
        if not trust_coefficient > 0:
            raise ValueError(f"trust_coefficient must be above 0, not {trust_coefficient}")
        # The base class's own weight_decay shrinks the weights apart from the gradient.
        super().__init__(name=name, weight_decay=None, **kwargs)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.momentum = momentum
        self.l2 = weight_decay
        self.trust_coefficient = trust_coefficient

    def build(self, var_list: list[tf.Variable]) -> None:
        super().build(var_list)
        if not hasattr(self, "velocities"):
            self.velocities = [self.add_variable_from_reference(v, "velocity") for v in var_list]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        gradient = tf.convert_to_tensor(gradient)  # an embedding's slices made dense
        learning_rate = tf.cast(self.learning_rate, variable.dtype)
        velocity = self.velocities[self._index_dict[self._var_key(variable)]]
        if decayed(self, variable):
            gradient += self.l2 * variable
            gradient *= trust(variable, gradient, self.trust_coefficient)
        velocity.assign(self.momentum * velocity + learning_rate * gradient)
        variable.assign_sub(velocity)

    def trust_ratio(self, gradient: tf.Tensor, variable: tf.Variable) -> tf.Tensor | None:
        if not decayed(self, variable):
            return None
        gradient = tf.convert_to_tensor(gradient) + self.l2 * variable
        return trust(variable, gradient, self.trust_coefficient)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "momentum": self.momentum,
            "weight_decay": self.l2,
            "trust_coefficient": self.trust_coefficient,
        }
