"""Evaluation of runs: representations, baselines and returned records."""

import dataclasses
import logging
import shutil

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import config
from simclr_tf.data import open_source
from simclr_tf.errors import UserError
from simclr_tf.evaluation import EvalOptions, evaluate_run, extract_features
from simclr_tf.evaluation.evaluate import check_supervised_baseline
from simclr_tf.evaluation.splits import Splits
from simclr_tf.models.build import build_model
from simclr_tf.runs.listing import summarize_run
from simclr_tf.runs.results_file import read_evaluations
from simclr_tf.runs.run_dir import RunDir

CONFIG = config.PretrainConfig(
    data=config.Data(dataset="shapes", train_split="train[:100]", eval_split="test[:50]"),
    augmentation=config.Augmentation(image_size=16),
    encoder=config.Encoder(resnet_depth=18, width_multiplier=1 / 16),
    projection_head=config.ProjectionHead(num_proj_layers=2, proj_out_dim=16),
    optimization=config.Optimization(train_batch_size=32, train_steps=4, seed=3),
).resolve()
PLAN = config.TrainingPlan(100, 10, 4, 0, 12.5, 0.1)


def write_run(path, settings, plan, model) -> RunDir:
    """Writes a run with the weights of a model."""
    run = RunDir(path)
    run.write_config(settings, plan)
    checkpoint = tf.train.Checkpoint(model=model)
    directory = str(run.checkpoint_dir)
    tf.train.CheckpointManager(checkpoint, directory, 1, checkpoint_name="step").save(4)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose encoder kernels differ from their initial values and whose head is zero."""
    model = build_model(CONFIG, PLAN)
    for variable in model.encoder.trainable_variables:
        variable.assign(1.5 * variable)
    for variable in model.projection_head.trainable_variables:
        if len(variable.shape) > 1:
            variable.assign(tf.zeros_like(variable))
    return write_run(tmp_path_factory.mktemp("evaluate") / "run", CONFIG, PLAN, model)


def test_run_without_labels_is_evaluated_on_its_probe_dataset(tmp_path, caplog):
    caplog.set_level(logging.INFO, "simclr_tf")
    photos = f"folder:{tmp_path / 'photos'}"
    probe = {"probe_dataset": "shapes", "probe_train_split": "train[:60]"}
    # The test split is that of the probes; the run's own images have none.
    settings = CONFIG.override(
        {"data": {"dataset": photos, "train_split": "train"}, "monitoring": probe}
    )
    plan = dataclasses.replace(PLAN, num_classes=None)
    run = write_run(tmp_path / "run", settings, plan, build_model(settings, plan))
    (record,) = evaluate_run(run.path, EvalOptions(protocols="knn"))
    assert record["dataset"] == "shapes" and (record["num_train"], record["num_test"]) == (60, 50)
    assert (
        f"note: {photos} has no labels: evaluating on shapes, the --probe_dataset of the run"
        in (caplog.messages)
    )
    assert any("on shapes test[:50] (" in message for message in caplog.messages)
    summary = summarize_run(run.path)
    assert str(summary.best_probe) == f"knn {100 * record['top1']:.1f} on shapes"
    # Other data are still a choice.
    with pytest.raises(UserError, match="folder, but"):
        evaluate_run(run.path, EvalOptions(protocols="knn", dataset=photos))


def test_evaluate_run_with_a_zero_head_finds_nothing_in_the_projection(run):
    probes = {"protocols": "probes", "probe_transformations": "sobel", "eval_batch_size": 50}
    options = EvalOptions(train_split="train[:200]", eval_split="test[:100]", **probes)
    records = evaluate_run(run.path, options)
    accuracy = {record["protocol"]: record["top1"] for record in records}
    assert accuracy["probe:sobel/projection"] == 0.5
    assert accuracy["probe:sobel"] > 0.8


def test_evaluate_run_evaluates_the_random_baseline_with_the_initial_weights(run, caplog):
    caplog.set_level(logging.INFO, "simclr_tf")
    options = EvalOptions(protocols=["knn"], knn_k=5, baselines=["random"], eval_batch_size=50)
    tf.random.uniform([3])  # an unrelated draw
    records = evaluate_run(run.path, options)
    assert [record["protocol"] for record in records] == ["knn", "knn/random"]
    assert read_evaluations(run.evaluations_file)[-2:] == records
    assert "evaluating on 100 + 50 images of shapes" in caplog.messages
    assert f"written to {run.evaluations_file}" in caplog.messages[-1]
    initial = build_model(CONFIG, PLAN).encoder
    expected = extract_features(initial, open_source("shapes", "test[:50]"), 16, 50).features
    cached = [np.load(file) for file in run.features_dir.glob("*/features.npy")]
    assert len(cached) == 4
    same = [f.shape == expected.shape and np.allclose(f, expected, atol=1e-5) for f in cached]
    assert sum(same) == 1


def test_check_warns_if_the_supervised_baseline_needs_more_memory(run, tmp_path, caplog):
    run = RunDir(shutil.copytree(run.path, tmp_path / "run"))
    splits = Splits.from_config(CONFIG.data)

    def warnings_for(microbatch_size, num_replicas):
        optimization = dataclasses.replace(CONFIG.optimization, microbatch_size=microbatch_size)
        changed = dataclasses.replace(CONFIG, optimization=optimization)
        run.write_config(changed, dataclasses.replace(PLAN, num_replicas=num_replicas))
        caplog.clear()
        check_supervised_baseline(run, splits, EvalOptions(baselines="supervised"))
        return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]

    assert not warnings_for(0, 1)
    (line,) = warnings_for(8, 2)
    assert "batches of 32 images on one device" in line
    assert line.endswith("the run used 2 replicas and microbatches of 8")
    shutil.copytree(run.checkpoint_dir, run.supervised_dir("train[:100]") / "checkpoints")
    assert not warnings_for(8, 2)  # it is trained already


def test_evaluate_run_refuses_a_supervised_baseline_before_any_result(run):
    before = read_evaluations(run.evaluations_file)
    options = EvalOptions(baselines="supervised", knn_k=1, labels_per_class=3)
    with pytest.raises(UserError, match="--baselines=supervised: is trained with all labels"):
        evaluate_run(run.path, options)
    assert read_evaluations(run.evaluations_file) == before
    splits = Splits("shapes", "train[:20]", "test[:50]")
    with pytest.raises(UserError, match=r"requires one batch of the run, 32 images, and .* has 20"):
        check_supervised_baseline(run, splits, EvalOptions())
