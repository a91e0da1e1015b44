"""The distillation loss against a slow transcription of [v2 eq. 2] and its gradient."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.losses import distillation

RANDOM = np.random.default_rng(0)
STUDENT, TEACHER = (3 * RANDOM.normal(size=(5, 4)) for _ in range(2))
TEMPERATURES = [0.1, 1.0, 2.5]


def _softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _slow(student, teacher, temperature):
    p_s, p_t = (_softmax(logits / temperature) for logits in (student, teacher))
    return -(temperature**2) * (p_t * np.log(p_s)).sum(axis=1).mean()


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_loss_equals_numpy(temperature):
    found = distillation(tf.constant(STUDENT), tf.constant(TEACHER), temperature)
    assert found.dtype == tf.float64
    np.testing.assert_allclose(found, _slow(STUDENT, TEACHER, temperature), rtol=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_equals_numpy(temperature):
    student, teacher = tf.Variable(STUDENT), tf.Variable(TEACHER)
    with tf.GradientTape() as tape:
        loss = distillation(student, teacher, temperature)
    of_student, of_teacher = tape.gradient(loss, (student, teacher))
    assert of_teacher is None
    # T² times the (1/T)·(p_student − p_teacher) of the cross-entropy, mean over the images.
    wanted = _softmax(STUDENT / temperature) - _softmax(TEACHER / temperature)
    np.testing.assert_allclose(of_student, temperature * wanted / len(STUDENT), atol=1e-12)


def test_gradient_scale_is_independent_of_the_temperature():
    """At high T it is that of half the squared distance of centered logits, over the classes."""
    student = tf.Variable(STUDENT)
    with tf.GradientTape() as tape:
        loss = distillation(student, tf.constant(TEACHER), 1e4)
    ours, theirs = (x - x.mean(axis=1, keepdims=True) for x in (STUDENT, TEACHER))
    wanted = (ours - theirs) / STUDENT.size
    np.testing.assert_allclose(tape.gradient(loss, student), wanted, rtol=1e-2, atol=1e-4)


def test_half_precision_is_computed_in_float32():
    small = tf.constant(STUDENT, tf.bfloat16), tf.constant(TEACHER, tf.bfloat16)
    found = distillation(*small, 0.1)
    assert found.dtype == tf.float32
    exact = (x.numpy().astype(np.float64) for x in small)
    np.testing.assert_allclose(found, _slow(*exact, 0.1), rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_above_zero(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        distillation(tf.constant(STUDENT), tf.constant(TEACHER), temperature)
