"""Which encoder a figure is of: h or g(h), as it is or as it began; what a baseline will need."""

import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import config
from simclr_tf.data import open_source
from simclr_tf.evaluation import KNN, extract_features, read_evaluations
from simclr_tf.evaluation.evaluate import evaluate_run
from simclr_tf.evaluation.options import EvalOptions
from simclr_tf.models.build import build_model
from simclr_tf.runs.run_dir import RunDir

CONFIG = config.PretrainConfig(
    data=config.Data(dataset="shapes", train_split="train[:400]", eval_split="test[:200]"),
    augmentation=config.Augmentation(image_size=16),
    encoder=config.Encoder(resnet_depth=18, width_multiplier=1 / 16),
    projection_head=config.ProjectionHead(num_proj_layers=2, proj_out_dim=16),
    optimization=config.Optimization(train_batch_size=32, train_steps=4, seed=3),
).resolve()
PLAN = config.TrainingPlan(400, 10, 4, 0, 12.5, 0.1)


@pytest.fixture
def run(tmp_path):
    """A run whose every kernel has moved since it began, and those of whose head are zero."""
    model = build_model(CONFIG, PLAN)
    for variable in model.encoder.trainable_variables:
        variable.assign(1.5 * variable)
    for variable in model.projection_head.trainable_variables:
        if len(variable.shape) > 1:
            variable.assign(tf.zeros_like(variable))
    run = RunDir(tmp_path / "run")
    run.write_config(CONFIG, PLAN)
    checkpoint = tf.train.Checkpoint(model=model)
    directory = str(run.checkpoint_dir)
    tf.train.CheckpointManager(checkpoint, directory, 1, checkpoint_name="step").save(4)
    return run


def test_a_head_of_zeros_leaves_chance_to_the_projection_alone(run):
    evaluate_run(run.path, EvalOptions(transformations=["sobel"]), say=lambda line: None)
    found = {r["protocol"]: r["top1"] for r in read_evaluations(run.evaluations_file)}
    assert found["probe:sobel/projection"] == 0.5
    assert found["probe:sobel"] > 0.8


def test_the_random_baseline_is_the_run_before_its_first_step(run):
    request = EvalOptions(protocols=[KNN((5,), (0.1,))], baselines=["random"])
    tf.random.uniform([3])  # a draw of someone else's
    evaluate_run(run.path, request, say=lambda line: None)
    first = build_model(CONFIG, PLAN).encoder
    wanted = extract_features(first, open_source("shapes", "test[:200]"), 16, 256).features
    kept = [np.load(file) for file in run.features_dir.glob("*/features.npy")]
    assert len(kept) == 4
    same = [f.shape == wanted.shape and np.allclose(f, wanted, atol=1e-5) for f in kept]
    assert sum(same) == 1


def test_what_the_supervised_baseline_takes_in_memory_is_said_first(run):
    request = EvalOptions(baselines=["supervised"])

    def said(pieces, replicas):
        settings = dataclasses.replace(CONFIG.optimization, microbatch_size=pieces)
        cached = dataclasses.replace(CONFIG, optimization=settings)
        run.write_config(cached, dataclasses.replace(PLAN, num_replicas=replicas))
        lines = []
        evaluate_run(run.path, request, say=lines.append)
        return [line for line in lines if line.startswith("note:")]

    assert not said(0, 1)
    (line,) = said(8, 2)
    assert "batches of 32 images at once on one device" in line
    assert line.endswith("the run took them on 2 replicas in pieces of 8")
    assert said(8, 1)[0].endswith("took them in pieces of 8")
    shutil.copytree(run.checkpoint_dir, run.supervised_dir("train[:400]") / "checkpoints")
    assert not said(8, 2)  # it is trained already
