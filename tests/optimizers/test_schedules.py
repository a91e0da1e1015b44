"""Steps, peak learning rate and warm-up with cosine decay."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.errors import UserError
from simclr_tf.optimizers import WarmupCosine, peak_learning_rate
from simclr_tf.training.schedule import resolve_steps


def test_published_cifar10_run():
    total = resolve_steps(50_000, 512, epochs=1000)
    warmup = resolve_steps(50_000, 512, epochs=10)
    peak = peak_learning_rate(1.0, 512, "linear")
    assert (total, warmup, peak) == (97_656, 976, 2.0)
    schedule = WarmupCosine(peak, warmup, total)
    rates = np.array([schedule(step) for step in (0, 1, 488, 975, 976, 1500)])
    np.testing.assert_allclose(rates[:5], [0, 2 / 976, 1, 2 * 975 / 976, 2], rtol=1e-6)
    assert rates[5] < 2
    np.testing.assert_allclose(schedule(total), 0.0, atol=1e-7)


@pytest.mark.parametrize(
    ("base", "global_batch", "scaling", "peak"),
    [
        (0.3, 4096, "linear", 4.8),
        (0.3, 128, "linear", 0.15),
        (0.075, 4096, "sqrt", 4.8),
        (0.2, 100, "sqrt", 2.0),
        (0.3, 4096, "none", 0.3),
    ],
)
def test_peak_learning_rate(base, global_batch, scaling, peak):
    assert peak_learning_rate(base, global_batch, scaling) == pytest.approx(peak, rel=1e-12)


def test_an_unknown_scaling_is_refused():
    with pytest.raises(ValueError, match="cubic"):
        peak_learning_rate(0.3, 256, "cubic")


@pytest.mark.parametrize(
    ("num_examples", "global_batch", "epochs", "expected"),
    [
        (50_000, 512, 1, 97),
        (50_000, 512, 100, 9765),
        (1_281_167, 4096, 100, 31_278),
        (50_000, 512, 0.5, 48),
        (512, 512, 3, 3),
        (50_000, 512, 0, 0),
        (100, 1, 0.29, 29),  # 28.999… in floating point
    ],
)
def test_steps_are_examples_times_epochs_over_batch(num_examples, global_batch, epochs, expected):
    steps = resolve_steps(num_examples, global_batch, epochs=epochs)
    assert steps == expected
    assert isinstance(steps, int)


def test_steps_override_epochs():
    assert resolve_steps(50_000, 512, epochs=100, steps=7) == 7


@pytest.mark.parametrize("wrong", [{"epochs": -1}, {"epochs": 1, "steps": -5}])
def test_negative_durations_are_the_user_s_mistake(wrong):
    with pytest.raises(UserError, match="at least 0"):
        resolve_steps(100, 10, **wrong)


# Without a warm-up, and with one as long as the run or longer.
@pytest.mark.parametrize(("warmup", "total"), [(5, 20), (0, 10), (10, 10), (10, 4)])
def test_every_step_of_a_short_run(warmup, total):
    peak = 0.8
    schedule = WarmupCosine(peak, warmup, total)
    expected = [
        peak * step / warmup
        if step < warmup
        else peak * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2
        for step in range(total + 1)
    ]
    np.testing.assert_allclose([schedule(s) for s in range(total + 1)], expected, atol=1e-6)


def test_in_a_graph_with_the_optimizer_s_counter():
    schedule = WarmupCosine(2.0, 976, 97_656)
    traced = tf.function(schedule, input_signature=[tf.TensorSpec([], tf.int64)])
    for step in 0, 500, 976, 40_000, 97_656:
        np.testing.assert_allclose(traced(tf.cast(step, tf.int64)), schedule(step), rtol=1e-6)


def test_drives_a_keras_optimizer():
    weight = tf.Variable([0.0])
    optimizer = keras.optimizers.SGD(WarmupCosine(1.0, 2, 4))
    path = []
    for _ in range(5):
        optimizer.apply_gradients([(tf.constant([1.0]), weight)])
        path.append(weight.numpy()[0])
    # Step k is taken at schedule(k): 0, 1/2, 1, 1/2, then 0 at the end.
    np.testing.assert_allclose(path, [0.0, -0.5, -1.5, -2.0, -2.0], atol=1e-6)


def test_config_round_trip():
    schedule = WarmupCosine(2.0, 10, 50)
    assert isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
    copy = WarmupCosine.from_config(schedule.get_config())
    np.testing.assert_array_equal([copy(s) for s in range(51)], [schedule(s) for s in range(51)])
