"""The loss of a student that is to answer as a teacher does."""

import tensorflow as tf


def distillation(
    student_logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float = 1.0
) -> tf.Tensor:
    """Cross-entropy of the teacher's answers against the student's, times T² [v2 §2, eq. 2].

    −T²·Σ_y P_teacher(y) log P_student(y), P = softmax(logits / T), mean over the images. The factor
    T², which the authors' code has and eq. 2 has not, keeps the gradient of one size whatever the
    temperature. Computed in at least float32; the teacher gets no gradient.

    Args:
        student_logits, teacher_logits: [N, C], N at least 1.
        temperature: T, above 0.

    Returns:
        A scalar, float32 or float64.

    Raises:
        ValueError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    wide = tf.float64 if student_logits.dtype == tf.float64 else tf.float32
    taught = tf.nn.softmax(tf.stop_gradient(tf.cast(teacher_logits, wide)) / temperature)
    answers = tf.cast(student_logits, wide) / temperature
    losses = tf.nn.softmax_cross_entropy_with_logits(taught, answers)
    return temperature**2 * tf.reduce_mean(losses)
