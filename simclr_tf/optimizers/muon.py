"""Muon: momentum orthogonalized by Newton-Schulz iterations (Jordan et al., 2024).

Sources: https://kellerjordan.github.io/posts/muon, https://github.com/KellerJordan/Muon, and for
convolutional networks https://github.com/KellerJordan/cifar10-airbench (airbench94_muon).
"""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.optimizers.weight_decay import GradientHookOptimizer

# Of a quintic polynomial that raises small singular values fast; large ones stay near 1.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@keras.utils.register_keras_serializable(package="simclr_tf")
class Muon(GradientHookOptimizer):
    """Momentum whose update of each kernel is replaced by the nearest semi-orthogonal matrix.

    `v = m·v + g`, `u = g + m·v` (Nesterov). A kernel `[…, cout]`, as a matrix `[fan_in, cout]`,
    takes `w = (1 - lr·wd)·w - lr·√max(1, cout / fan_in)·orthogonalize(u)`, where all singular
    values of `u` become about 1: every direction moves equally far, and neither the scale of the
    loss nor that of the kernel matters. Vectors (biases and normalization parameters) and variables
    passed to `exclude_from_weight_decay` take `w -= lr·u`, momentum with the same learning rate,
    without decay.

    The factor √max(1, cout / fan_in) is that of the authors' package for matrices. Its convolutions
    have none; a 3×3 kernel has a factor only if cout > 9·cin. airbench94_muon differs: three
    iterations, no decay, and kernels normalized in every step.

    Args:
        learning_rate: a number or a schedule; change of a kernel's singular values per step. The
            authors use 0.02 to 0.05 for transformers, 0.24 for a small convolutional network.
        momentum: in [0, 1); the authors use 0.95, and 0.6 for the convolutional network.
        weight_decay: wd ≥ 0, decoupled from the gradient.
        iterations_per_step: of Newton-Schulz, at least 1.
        name: of the Keras optimizer.
        kwargs: further arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: an argument lies outside its range.

    Example:
    >>> import tensorflow as tf
    >>> import simclr_tf as st
    >>> kernel = tf.Variable(tf.zeros([2, 2]))
    >>> optimizer = st.optimizers.Muon(learning_rate=1.0)
    >>> gradient = tf.constant([[0.0, 100.0], [1.0, 0.0]])
    >>> optimizer.apply_gradients([(gradient, kernel)])  # both directions move about equally far
    <tf.Variable 'UnreadVariable' shape=() dtype=int64, numpy=1>
    >>> [round(float(x), 1) for x in tf.abs(tf.reshape(kernel, [-1]))]
    [0.0, 0.7, 0.7, 0.0]
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        iterations_per_step: int = 5,
        name: str = "Muon",
        **kwargs: Any,
    ):
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if weight_decay < 0:
            raise ValueError(f"weight_decay must be at least 0, got {weight_decay}")
        if iterations_per_step < 1:
            raise ValueError(f"iterations_per_step must be at least 1, got {iterations_per_step}")
        super().__init__(name=name, weight_decay=weight_decay, **kwargs)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.momentum = momentum
        self.iterations_per_step = iterations_per_step

    def build(self, var_list: list[tf.Variable]) -> None:
        super().build(var_list)
        if not hasattr(self, "velocities"):
            self.velocities = [self.add_variable_from_reference(v, "velocity") for v in var_list]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        gradient = tf.convert_to_tensor(gradient)  # converts an embedding's IndexedSlices
        velocity = self.velocities[self._index_dict[self._var_key(variable)]]
        velocity.assign(self.momentum * velocity + gradient)
        update = gradient + self.momentum * velocity
        if self._use_weight_decay(variable):
            matrix = tf.reshape(update, [-1, variable.shape[-1]])  # [fan_in, cout]
            scale = max(1.0, matrix.shape[1] / matrix.shape[0]) ** 0.5
            matrix = scale * orthogonalize(matrix, self.iterations_per_step)
            update = tf.reshape(matrix, variable.shape)
        variable.assign_sub(tf.cast(self.learning_rate, variable.dtype) * update)

    def _use_weight_decay(self, variable):
        return variable.shape.rank > 1 and super()._use_weight_decay(variable)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "momentum": self.momentum,
            "iterations_per_step": self.iterations_per_step,
        }


def orthogonalize(matrix: tf.Tensor, iterations: int = 5) -> tf.Tensor:
    """Returns U·S'·Vᵀ, S' ≈ 1, of a matrix U·S·Vᵀ [rows, columns], in at least float32.

    With 5 iterations, singular values of at least 1 % of the Frobenius norm end between 0.68 and
    1.14; much smaller ones are multiplied by 3.44 in each iteration. Zeros stay zeros. The authors
    compute in bfloat16.
    """
    dtype = tf.float64 if matrix.dtype == tf.float64 else tf.float32
    x = tf.cast(matrix, dtype)
    is_tall = matrix.shape[0] > matrix.shape[1]
    if is_tall:  # the Gram matrix of the shorter side is smaller
        x = tf.transpose(x)
    # Divided by the largest element first, so that no square leaves the range of float32.
    x = tf.math.divide_no_nan(x, tf.reduce_max(tf.abs(x)))
    x = tf.math.divide_no_nan(x, tf.norm(x))  # no singular value exceeds 1
    a, b, c = _COEFFICIENTS
    for _ in range(iterations):
        gram = tf.matmul(x, x, transpose_b=True)
        x = a * x + tf.matmul(b * gram + c * tf.matmul(gram, gram), x)
    return tf.cast(tf.transpose(x) if is_tall else x, matrix.dtype)
