"""Norms and trust ratios of the steps that are logged, against NumPy, and what other steps pay."""

import functools
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf import optimizers
from simclr_tf.training.gradient_norms import GradientNormMonitor
from tests.models.tiny_simclr import BATCH, batches, build, optimizer_named
from tests.optional import needs

EVERY, TOTAL = 2, 5
BATCHES = list(batches(TOTAL))


def data(context=None) -> tf.data.Dataset:
    """The batches, to each replica its share."""
    columns = {name: tf.concat([b[name] for b in BATCHES], 0) for name in BATCHES[0]}
    replicas = context.num_replicas_in_sync if context else 1
    return tf.data.Dataset.from_tensor_slices(columns).batch(BATCH // replicas, True).repeat()


@functools.cache
def expected(name: str, steps: int) -> tuple[float, np.ndarray]:
    """The gradient's norm at the last of so many steps, and LARS's ratios, by NumPy."""
    model = build(optimizer_named(name))
    step = tf.function(model.train_step)
    for batch in BATCHES[: steps - 1]:
        step(batch)
    views = model.make_views(BATCHES[steps - 1], model.step)
    with tf.GradientTape() as tape:
        loss, _ = model._loss(model._encode(views, training=True), BATCHES[steps - 1])
    gradients = [g.numpy() for g in tape.gradient(loss, model.trainable_variables)]
    weights = [v.numpy() for v in model.trainable_variables]
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    ratios = [
        0.001 * np.linalg.norm(w) / np.linalg.norm(g + 0.01 * w)
        for g, w, v in zip(gradients, weights, model.trainable_variables, strict=True)
        if w.ndim > 1 and v is not model.linear_head.kernel
    ]
    return norm, np.array(ratios)


def check(norms: GradientNormMonitor, model: keras.Model, steps: int) -> None:
    """Asserts that the latest norms are those of step `steps` and of the current weights."""
    found, ratios = norms.latest()
    gradient, wanted = expected("lars", steps)
    weights = np.sqrt(sum((v.numpy() ** 2).sum() for v in model.trainable_variables))
    assert found == pytest.approx({"gradient_norm": gradient, "weight_norm": weights}, rel=1e-6)
    np.testing.assert_allclose(ratios, wanted, rtol=1e-6)


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_the_last_step_that_is_due_is_what_is_found(steps_per_execution):
    model = build(optimizer_named("lars"))
    model.compile(model.optimizer, steps_per_execution=steps_per_execution)
    norms = GradientNormMonitor(model, EVERY, TOTAL)
    assert set(norms.latest()[0]) == {"weight_norm"} and not len(norms.latest()[1])
    model.fit(data(), steps_per_epoch=3, verbose=0)
    check(norms, model, 2)  # not 3, which is not due
    model.fit(data().skip(3), steps_per_epoch=2, verbose=0)
    check(norms, model, 5)  # the last is due


@pytest.mark.slow
def test_replicas_find_what_one_device_finds(mirrored):
    strategy = mirrored(2)
    with strategy.scope():
        model = build(optimizer_named("lars"))
        norms = GradientNormMonitor(model, EVERY, TOTAL)
    shares = strategy.distribute_datasets_from_function(data)
    model.fit(shares, steps_per_epoch=2, verbose=0)
    check(norms, model, 2)


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("momentum", "float64"),
        pytest.param("adam", "mixed_float16", marks=pytest.mark.slow),
        pytest.param("lamb", "mixed_float16", marks=[pytest.mark.slow, needs("tensorflow_addons")]),
    ],
)
def test_every_optimizer_is_watched_and_a_scaled_loss_without_its_scale(name, policy):
    optimizer = optimizers.get(name, 0.01)
    if policy == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer, initial_scale=256)
    model = build(optimizer, policy=policy)
    norms = GradientNormMonitor(model, 1, TOTAL)
    model.fit(data(), steps_per_epoch=1, verbose=0)
    found, ratios = norms.latest()
    # But the linear head's, which is not adapted.
    kernels = sum(v.shape.rank > 1 for v in model.trainable_variables) - 1
    assert len(ratios) == (kernels if name == "lamb" else 0)
    weights = tf.linalg.global_norm(list(model.trainable_variables))
    assert found["weight_norm"] == pytest.approx(float(weights), rel=1e-5)
    assert 0.1 < found["gradient_norm"] < 1000  # it is about 100


def test_other_steps_compute_nothing_more_and_checkpoints_hold_nothing_more(tmp_path):
    def traced(watched):
        model = build(optimizer_named("lars"))
        if watched:
            GradientNormMonitor(model, EVERY, TOTAL)
        step = tf.function(model.train_step).get_concrete_function(BATCHES[0])
        path = tf.train.Checkpoint(model=model).write(str(tmp_path / str(watched)))
        operations = Counter(operation.type for operation in step.graph.get_operations())
        return operations, tf.train.list_variables(path)

    (plain, saved), (watched, saved_watched) = traced(False), traced(True)
    more = watched - plain
    assert more["If"] + more["StatelessIf"] == 1
    # What decides whether the step is due, and the branch; no norm stands outside of it.
    assert sum(more.values()) < 25, more
    assert not set(more) & {"Square", "Sum", "L2Loss", "Sqrt", "Mul", "Pack", "DivNoNan"}
    assert saved == saved_watched


@pytest.mark.slow
def test_the_watched_step_compiles_under_xla():
    model = build(optimizer_named("lars"))
    norms = GradientNormMonitor(model, 1, TOTAL)
    tf.function(model.train_step, jit_compile=True)(BATCHES[0])
    check(norms, model, 1)
