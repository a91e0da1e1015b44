"""Distillation loss of a student classifier."""

import tensorflow as tf


def distillation(
    student_logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float = 1.0
) -> tf.Tensor:
    """Computes the cross-entropy of student and teacher probabilities, times T² [v2 §2, eq. 2].

    −T²·Σ_y P_teacher(y) log P_student(y), P = softmax(logits / T), mean over the images. The factor
    T², which the authors' code has and eq. 2 does not, makes the scale of the gradient independent
    of the temperature. Computed in at least float32; the teacher gets no gradient.

    Args:
        student_logits: [N, C], N at least 1.
        teacher_logits: [N, C].
        temperature: T, above 0.

    Returns:
        A scalar, float32 or float64.

    Raises:
        ValueError: the temperature is not above 0.

    Example:
    >>> import tensorflow as tf
    >>> import simclr_tf as st
    >>> round(float(st.losses.distillation(tf.zeros((3, 2)), tf.zeros((3, 2)))), 4)  # log 2
    0.6931
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    compute_dtype = tf.float64 if student_logits.dtype == tf.float64 else tf.float32
    teacher_logits = tf.stop_gradient(tf.cast(teacher_logits, compute_dtype))
    teacher_probs = tf.nn.softmax(teacher_logits / temperature)
    scaled_student_logits = tf.cast(student_logits, compute_dtype) / temperature
    losses = tf.nn.softmax_cross_entropy_with_logits(teacher_probs, scaled_student_logits)
    return temperature**2 * tf.reduce_mean(losses)
