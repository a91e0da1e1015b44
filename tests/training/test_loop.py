"""The training loop: metrics, callbacks, checkpoints and profile of whole runs."""

import shutil
import time

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

import simclr_tf
from simclr_tf.data import open_source
from simclr_tf.data.base import ArraySource
from simclr_tf.errors import UserError
from simclr_tf.evaluation import EvalOptions, evaluate_run
from simclr_tf.models.build import build_model
from simclr_tf.optimizers import WarmupCosine
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.callbacks import ProfileCallback
from simclr_tf.training.distribution import DistributionContext
from simclr_tf.training.online_eval import probe_evaluator, validation_loss_evaluator
from simclr_tf.training.tasks import PretrainTask, pretrain
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
)


def test_metrics_have_every_promised_key_and_step(watched_run):
    lines = rows(watched_run)
    assert [line["step"] for line in lines] == [4, 6, 8, 12]
    promised = {"step", "epoch", "loss", "contrastive_accuracy", "contrastive_entropy"}
    promised |= {"learning_rate", "views_per_second", "alignment", "uniformity", "feature_std"}
    assert all(promised <= set(line) for line in lines)
    assert lines[1]["epoch"] == pytest.approx(1.0)
    probed = [line["step"] for line in lines if "knn_top1" in line and "validation_loss" in line]
    assert probed == [6, 12]
    assert all(0 <= line["linear_accuracy"] <= 1 for line in lines)
    # The rate of the last step: 12 steps, 3 of them warm-up, peak 0.1 · 32 / 256.
    last = WarmupCosine(0.0125, 3, 12)(11)
    assert lines[-1]["learning_rate"] == pytest.approx(float(last))


def test_rows_of_probes_and_of_the_last_step_include_the_regular_row_before(tmp_path):
    each, resumed = tmp_path / "each", tmp_path / "resumed"
    pretrain(changed(monitoring={"log_every": 1}), each)
    loss = [row["loss"] for row in rows(each)]
    # An epoch is 8 steps: probes at the steps 6 and 10. The run is resumed between 4 and 6.
    settings = changed(monitoring={"knn_every_epochs": 0.75})
    with pytest.raises(CallbackError):
        pretrain(settings, resumed, callbacks=[AtStep(5, raise_error)])
    pretrain(settings, resumed)
    lines = rows(resumed)
    means = {4: loss[:4], 6: loss[:6], 8: loss[4:8], 10: loss[4:]}
    assert [line["step"] for line in lines] == list(means)
    for line, values in zip(lines, means.values(), strict=True):
        assert line["loss"] == pytest.approx(np.mean(values), rel=1e-4)
    assert ["knn_top1" in line for line in lines] == [False, True, False, True]


def test_images_of_embeddings_add_no_row(tmp_path):
    pretrain(changed(monitoring={"pictures_every_epochs": 0.75, "log_every": 10}), tmp_path)
    assert [line["step"] for line in rows(tmp_path)] == [10]
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    assert [event.step for event in events.Tensors("similarity_matrix")] == [6, 10]
    assert [event.step for event in events.Tensors("loss")] == [10]


def test_slow_callback_is_not_reported_by_keras(tmp_path, caplog):
    slow = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.1))
    pretrain(changed(optimization={"train_steps": 7}), tmp_path, callbacks=[slow])
    assert not [message for message in caplog.messages if "is slow" in message]


def test_tensorboard_shows_scalars_and_view_pairs(watched_run):
    events = EventAccumulator(str(watched_run / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"loss", "knn_top1", "validation_loss", "uniformity", "view_pairs"} <= tags
    assert [event.step for event in events.Tensors("loss")] == [4, 6, 8, 12]


def test_evaluation_of_a_finished_run_uses_the_last_probe(watched_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(watched_run, run)
    cached = {path: path.stat().st_mtime for path in (run / "features").rglob("*.np?")}
    (record,) = evaluate_run(run, EvalOptions(protocols=["knn"]))
    assert record["top1"] == pytest.approx(rows(run)[-1]["knn_top1"])
    after = {path: path.stat().st_mtime for path in (run / "features").rglob("*.np?")}
    assert cached and after == cached


def traces(directory):
    return list((directory / "plugins" / "profile").glob("*/*.xplane.pb"))


def test_profile_of_a_run_is_where_tensorboard_expects_it(watched_run):
    (trace,) = traces(watched_run / "tensorboard")
    assert b"step_num" in trace.read_bytes()


@pytest.mark.parametrize(("calls", "message"), [(2, "no trace, because training took 2"), (9, "")])
def test_profile_callback_traces_after_its_warm_up(tmp_path, log, calls, message):
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(1,))])
    model.compile("sgd", "mse")
    images = np.zeros((calls, 1), np.float32)
    callback = ProfileCallback(tmp_path, warmup_calls=3, traced_calls=2)
    model.fit(images, images, batch_size=1, verbose=0, callbacks=[callback])
    assert len(traces(tmp_path)) == (not message)
    assert any((message or "trace written to") in line for line in log.messages)


def test_load_returns_the_trained_model(unbroken):
    model, run = unbroken
    assert_equal_variables(simclr_tf.load(run), model)


def test_finished_run_does_not_change(watched_run, log):
    before = (watched_run / "metrics.jsonl").read_bytes()
    # The profile and the probes are no settings that a run must share.
    pretrain(changed(WATCHED, monitoring={"profile": False, "knn_every_epochs": 0.0}), watched_run)
    assert "finished" in log.messages[-1]
    assert (watched_run / "metrics.jsonl").read_bytes() == before


def test_run_keeps_the_newest_checkpoints(watched_run):
    names = sorted(p.name for p in (watched_run / "checkpoints").glob("*.index"))
    assert names == ["step-10.index", "step-12.index"]


def test_steps_per_execution_change_when_rows_are_due_and_nothing_else(tmp_path, unbroken):
    model, run = unbroken
    assert_equal_variables(pretrain(TINY, tmp_path, steps_per_execution=3), model)
    # log_every is 4 and checkpoint_steps 5, of 10; the host sees the steps 3, 6, 9 and 10.
    assert [row["step"] for row in rows(run)] == [4, 8, 10]
    assert [row["step"] for row in rows(tmp_path)] == [6, 9, 10]
    saved = {path.stem for path in (tmp_path / "checkpoints").glob("*.index")}
    assert saved == {"step-6", "step-10"}


def test_run_without_checkpoint_restarts_and_a_callback_may_stop_it(tmp_path, log):
    RunDir(tmp_path).write_config(TINY.resolve(), PLAN)
    settings = changed(optimization={"learning_rate": 0.2, "warmup_epochs": 100})
    stop = AtStep(2, lambda model: setattr(model, "stop_training", True))
    model = pretrain(settings, tmp_path, callbacks=[stop])
    text = "\n".join(log.messages)
    assert "has no checkpoint yet: training restarts" in text
    assert "--warmup_epochs (800 steps)" in text and "never reaches its peak" in text
    assert "stopped by a callback at step 2 of 10" in text
    assert int(model.step) == RunDir(tmp_path).latest_step() == 2
    assert RunDir(tmp_path).read_config()[0].optimization.learning_rate == 0.2


def test_checkpoint_starts_from_other_weights(watched_run):
    task = PretrainTask(changed(checkpoints={"checkpoint": str(watched_run)}))
    model, trained = build_model(task.config, PLAN), simclr_tf.load(watched_run)
    task.load_initial_weights(model)
    for part in "encoder", "projection_head":
        assert_equal_variables(getattr(model, part), getattr(trained, part))


def test_loss_that_is_not_finite_ends_the_run_with_its_step(tmp_path):
    wild = changed(optimization={"learning_rate": 1e30, "warmup_epochs": 0})
    with pytest.raises(UserError, match=r"not finite at step [2-4]\. Fix: use a lower"):
        pretrain(wild, tmp_path)
    # Weights that are not finite are not saved.
    assert RunDir(tmp_path).latest_checkpoint() is None


@pytest.mark.slow
def test_another_loss_trains_is_validated_and_restored(tmp_path):
    settings = changed(
        data={"validation_fraction": 0.25},
        contrastive_loss={"loss": "supcon", "margin": 0.6},
        optimization={"train_steps": 1},
    )
    pretrain(settings, tmp_path)
    model, (row,) = simclr_tf.load(tmp_path), rows(tmp_path)
    _, held_out = open_source("shapes", "train[:256]").holdout(0.25, 0)
    metrics = validation_loss_evaluator(held_out, 32)(model)
    for name, value in metrics.items():
        assert row[name] == pytest.approx(value, rel=1e-5)
    assert RunDir(tmp_path).read_config()[0].contrastive_loss == settings.contrastive_loss
    # The same weights under NT-Xent: another loss, the same accuracy.
    nt_xent = build_model(changed(settings, contrastive_loss={"loss": "nt_xent"}).resolve(), PLAN)
    nt_xent.set_weights(model.get_weights())
    other = validation_loss_evaluator(held_out, 32)(nt_xent)
    assert abs(metrics.pop("validation_loss") - other.pop("validation_loss")) > 1e-4
    assert metrics == other


@pytest.mark.slow
def test_replicas_train_probe_and_resume_as_one_device(tmp_path, mirrored, log):
    settings = changed(
        data={"validation_fraction": 0.25}, monitoring={"log_every": 1, "knn_every_epochs": 1.0}
    )
    one, two = tmp_path / "one", tmp_path / "two"
    pretrain(settings, one)
    log.clear()
    model = pretrain(settings, two, DistributionContext(mirrored(2), "2 CPU devices"))
    assert log.messages[0] == "2 CPU devices: global batch 32, 16 per replica"
    for a, b in zip(rows(two)[:3], rows(one)[:3], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
        assert a["linear_loss"] == pytest.approx(b["linear_loss"], rel=1e-3)
    assert [row["step"] for row in rows(two) if "knn_top1" in row] == [6, 10]
    assert RunDir(two).read_config()[1].num_replicas == 2

    # A run of two devices is loaded and resumed on one, and the other way round.
    loaded = simclr_tf.load(two)
    for a, b in zip(loaded.encoder.variables, model.encoder.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)
    _, held_out = open_source("shapes", "train[:256]").holdout(0.25, 0)
    measured = validation_loss_evaluator(held_out, 32)(loaded)["validation_loss"]
    assert measured == pytest.approx(rows(two)[-1]["validation_loss"], rel=1e-5)
    (two / "checkpoints" / "checkpoint").write_text('model_checkpoint_path: "step-5"\n')
    log.clear()
    pretrain(settings, two)
    assert any("step 5 of 10" in line for line in log.messages)


@pytest.fixture(scope="module")
def loss_in_float32(tmp_path_factory) -> float:
    """The loss of the first step."""
    path = tmp_path_factory.mktemp("float32")
    pretrain(changed(optimization={"train_steps": 1}), path)
    return rows(path)[-1]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [("lars", "bfloat16"), ("adam", "float16"), ("adamw", "float32"), ("muon", "bfloat16")],
)
def test_every_optimizer_and_precision_trains(tmp_path, loss_in_float32, optimizer, precision):
    """LAMB does so in test_resume.py."""
    settings = {"optimizer": optimizer, "precision": precision, "weight_decay": 1e-4}
    model = pretrain(
        changed(optimization={**settings, "train_steps": 2}, monitoring={"log_every": 1}), tmp_path
    )
    first, last = rows(tmp_path)
    assert first["loss"] == pytest.approx(loss_in_float32, rel=0.03)
    assert np.isfinite(last["loss"])
    assert all(v.dtype == tf.float32 for v in model.trainable_variables)
    assert int(simclr_tf.load(tmp_path).step) == 2


def test_missing_or_damaged_run_is_an_error_not_random_weights(watched_run, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        simclr_tf.load(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(watched_run, copy)
    for data in (copy / "checkpoints").glob("*.data-*"):
        data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(UserError, match="does not contain this model"):
        simclr_tf.load(copy)


def test_probes_ignore_images_without_label():
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3)).astype(np.uint8)
    labels = np.random.default_rng(1).integers(0, 2, 40)
    model = build_model(TINY.resolve(), PLAN)
    names = ("a", "b")
    known = ArraySource("known", images[:20], labels[:20], names)
    half = ArraySource("half", images, np.where(np.arange(40) < 20, labels, -1), names)
    assert probe_evaluator(half, half, 16)(model) == probe_evaluator(known, known, 16)(model)
    none = ArraySource("none", images, np.full(40, -1), names)
    # The small class is not outvoted by the large one.
    labels = np.repeat([0, 1], [34, 6])
    images[labels == 1] = [255, 0, 0]
    unbalanced = ArraySource("unbalanced", images, labels, names)
    assert probe_evaluator(unbalanced, unbalanced, 16)(model)["knn_top1"] > 0.9
    with pytest.raises(UserError, match="no image of none has a label"):
        probe_evaluator(known, none, 16)(model)
