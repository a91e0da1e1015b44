"""LARS: layer-wise adaptive rate scaling, for large batches (You et al., 2017; [v1 §2.3])."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.optimizers.weight_decay import (
    GradientHookOptimizer,
    layerwise_trust_ratio,
    uses_weight_decay,
)


@keras.utils.register_keras_serializable(package="simclr_tf")
class LARS(GradientHookOptimizer):
    """Momentum with an update of each kernel proportional to the norm of the kernel [v1 §2.3].

    `v = m·v + lr·trust·(g + wd·w)`, `w -= v`, with the learning rate inside the velocity and
    `trust = trust_coefficient·‖w‖ / ‖g + wd·w‖`, or 1 where either norm is 0. Vectors (biases and
    normalization parameters) and variables passed to `exclude_from_weight_decay` take neither decay
    nor adaptation. Because of the trust ratio the scale of the loss does not matter.

    Args:
        learning_rate: a number or a schedule; 0.3·B/256 with 10 warm-up epochs in the paper. Values
            of about 1 are typical, 1000 times those of momentum.
        momentum: in [0, 1).
        weight_decay: wd ≥ 0, an L2 term in the gradient.
        trust_coefficient: above 0.
        name: of the Keras optimizer.
        kwargs: further arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: an argument lies outside its range.

    Example:
    >>> import tensorflow as tf
    >>> import simclr_tf as st
    >>> kernel = tf.Variable([[3.0, 4.0]])  # ‖w‖ = 5
    >>> optimizer = st.optimizers.LARS(learning_rate=1.0, momentum=0.0)
    >>> optimizer.apply_gradients([(tf.constant([[0.0, 9.0]]), kernel)])  # moves by 0.001·‖w‖
    <tf.Variable 'UnreadVariable' shape=() dtype=int64, numpy=1>
    >>> kernel.numpy().round(3)
    array([[3.   , 3.995]], dtype=float32)
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
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if weight_decay < 0:
            raise ValueError(f"weight_decay must be at least 0, got {weight_decay}")
        if not trust_coefficient > 0:
            raise ValueError(f"trust_coefficient must be above 0, got {trust_coefficient}")
        # The base class's own weight_decay is decoupled from the gradient.
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
        gradient = tf.convert_to_tensor(gradient)  # converts an embedding's IndexedSlices
        learning_rate = tf.cast(self.learning_rate, variable.dtype)
        velocity = self.velocities[self._index_dict[self._var_key(variable)]]
        if uses_weight_decay(self, variable):
            gradient += self.l2 * variable
            gradient *= layerwise_trust_ratio(variable, gradient, self.trust_coefficient)
        velocity.assign(self.momentum * velocity + learning_rate * gradient)
        variable.assign_sub(velocity)

    def trust_ratio(self, gradient: tf.Tensor, variable: tf.Variable) -> tf.Tensor | None:
        if not uses_weight_decay(self, variable):
            return None
        gradient = tf.convert_to_tensor(gradient) + self.l2 * variable
        return layerwise_trust_ratio(variable, gradient, self.trust_coefficient)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "momentum": self.momentum,
            "weight_decay": self.l2,
            "trust_coefficient": self.trust_coefficient,
        }
