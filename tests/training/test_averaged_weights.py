"""`--ema_decay`: the averages, who uses them, and how a run with them resumes."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

import simclr_tf
from simclr_tf.errors import UserError
from simclr_tf.evaluation import EvalOptions, evaluate_run
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.tasks import pretrain
from tests.models.tiny_simclr import build, optimizer_named, train
from tests.processes import rows
from tests.training.tiny import (
    PLAN,
    TINY,
    WATCHED,
    AtStep,
    CallbackError,
    assert_equal_variables,
    changed,
    raise_error,
    reproducible_rows,
)

DECAY = 0.25
AVERAGED = changed(
    WATCHED,
    optimization={"ema_decay": 0.8, "optimizer": "muon", "learning_rate": 0.2},
    monitoring={"profile": False},
)


def averages_of_five_steps(strategy=None):
    """The averages, and the layers' weights after each step, as of one device."""
    with (strategy or tf.distribute.get_strategy()).scope():
        model = build(optimizer_named("momentum"))
        model.average_weights(DECAY)
    weights = []

    def note():
        weights.append([w for layer in model.layers for w in layer.get_weights()])

    train(model, 5, strategy, note)
    if strategy:
        for average in model.averages:
            first, *others = strategy.experimental_local_results(average)
            for other in others:
                np.testing.assert_allclose(other, first, rtol=1e-9)
    return [average for layer in model.evaluation_weights() for average in layer], weights


def test_averages_are_those_of_a_slow_loop():
    found, weights = averages_of_five_steps()
    for i, average in enumerate(found):
        slow = np.zeros_like(average)
        for t, value in enumerate(w[i] for w in weights):
            decay = min(DECAY, t / (t + 9))
            slow = decay * slow + (1 - decay) * value
        np.testing.assert_allclose(average, slow, rtol=1e-6, atol=1e-9)
        assert len({w[i].tobytes() for w in weights}) == 5  # statistics and weights all move


@pytest.mark.parametrize("replicas", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_averages_on_replicas_are_those_of_one_device(mirrored, replicas):
    for found, wanted in zip(
        averages_of_five_steps(mirrored(replicas))[0], averages_of_five_steps()[0], strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_first_step_copies_the_weights_and_a_constant_stays_exact():
    model = build()
    model.average_weights(0.99)
    for average in model.averages:  # what loading other initial weights leaves behind
        average.assign(tf.fill(average.shape, tf.constant(1e3, average.dtype)))
    train(model, 1)
    weights = [w for layer in model.layers for w in layer.get_weights()]
    for average, weight in zip(model.averages, weights, strict=True):
        np.testing.assert_array_equal(average, weight)
    model.optimizer.learning_rate = 0.0
    train(model, 3)
    averages = iter(model.averages)
    for layer in model.layers:
        trainable = {id(weight) for weight in layer.trainable_weights}
        for weight in layer.weights:
            average = next(averages)
            if id(weight) in trainable:
                np.testing.assert_array_equal(average, weight)


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """(model after the last step, run directory)."""
    path = tmp_path_factory.mktemp("averaged") / "run"
    return pretrain(AVERAGED, path), path


def test_probes_evaluation_and_export_use_the_averages(averaged, tmp_path, log):
    model, run = averaged
    run = shutil.copytree(run, tmp_path / "run")
    cached = set(run.rglob("features/*"))
    (record,) = evaluate_run(run, EvalOptions(protocols=["knn"]))
    assert cached and set(run.rglob("features/*")) == cached  # those of the last probe
    assert record["top1"] == pytest.approx(rows(run)[-1]["knn_top1"])
    (line,) = [line for line in log.messages if "averaged weights" in line]
    assert line.endswith("(--ema_decay=0.8)")

    loaded = simclr_tf.load(run)
    for layer, wanted in zip(loaded.layers, model.evaluation_weights(), strict=True):
        for found, average in zip(layer.get_weights(), wanted, strict=True):
            np.testing.assert_array_equal(found, average)
    raw, mean = model.encoder.get_weights(), loaded.encoder.get_weights()
    assert all((a != b).any() for a, b in zip(raw, mean, strict=True))
    path = simclr_tf.export(run)
    exported = tf.saved_model.load(str(path))
    images = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
    np.testing.assert_allclose(exported(images), loaded.encoder(images), atol=1e-5)
    card = (path / "README.md").read_text(encoding="utf-8")
    assert "| weights | exponential moving average of the training (decay 0.8) |" in card


@pytest.mark.slow
def test_resumed_run_equals_an_unbroken_one(averaged, tmp_path, log):
    model, whole = averaged
    with pytest.raises(CallbackError):
        pretrain(AVERAGED, tmp_path / "run", callbacks=[AtStep(7, raise_error)])
    assert any("evaluated with averaged weights (--ema_decay=0.8)" in x for x in log.messages)
    resumed = pretrain(AVERAGED, tmp_path / "run")
    assert {id(v) for v in resumed.averages} <= {id(v) for v in resumed.variables}
    assert_equal_variables(resumed, model)
    assert reproducible_rows(tmp_path / "run") == reproducible_rows(whole)


def test_decay_cannot_change_when_a_run_is_resumed(tmp_path):
    run = RunDir(tmp_path)
    run.write_config(TINY, PLAN)
    with pytest.raises(UserError, match=r"--ema_decay \(was 0\.0, now 0\.5\)"):
        run.check_resumable(changed(optimization={"ema_decay": 0.5}), PLAN)
