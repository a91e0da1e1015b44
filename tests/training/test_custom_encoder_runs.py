"""Runs whose encoder is the user's own Keras model: stored with the run, rebuilt without it."""

import json

import numpy as np
import pytest
import tensorflow as tf

import simclr_tf
from simclr_tf.errors import UserError
from simclr_tf.evaluation.evaluate import evaluate_run
from simclr_tf.evaluation.options import EvalOptions
from simclr_tf.exporter.export_run import export_run
from simclr_tf.models.build import build_model
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.tasks import FineTuneTask, PretrainTask, pretrain
from tests.models.test_custom_encoder import tiny_encoder
from tests.training.tiny import PLAN, changed, finetune_config

IMAGES = np.random.default_rng(0).uniform(size=(3, 16, 16, 3)).astype(np.float32)
CONFIG = changed(
    encoder={"resnet_depth": 50, "width_multiplier": 1.0}, optimization={"train_steps": 1}
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run with an encoder of which nothing is left in memory."""
    path = tmp_path_factory.mktemp("own") / "run"
    pretrain(CONFIG, path, encoder=tiny_encoder(name="mine"))
    return path


def test_run_starts_from_the_weights_of_the_model(log):
    model = tiny_encoder(name="mine")
    task = PretrainTask(CONFIG, model)
    task.resolve_encoder(None)
    initial = build_model(task.config, PLAN)
    task.load_initial_weights(initial)
    assert "starting from the weights of the Keras model mine" in log.messages
    for found, expected in zip(initial.encoder.variables, model.variables, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_run_is_loaded_evaluated_and_exported_without_the_model(run_dir):
    encoder = simclr_tf.load(run_dir).encoder
    config, _ = RunDir(run_dir).read_config()
    assert config.encoder.encoder == "keras:mine"
    evaluate_run(run_dir, EvalOptions(protocols="knn", baselines="random"))
    records = json.loads((run_dir / "evaluations.json").read_text(encoding="utf-8"))
    assert {record["protocol"] for record in records} == {"knn", "knn/random"}
    loaded = tf.saved_model.load(str(export_run(run_dir)))
    np.testing.assert_allclose(loaded(IMAGES), encoder(IMAGES), atol=1e-5)


def test_run_resumes_with_and_without_the_model(run_dir):
    expected = [v.numpy() for v in simclr_tf.load(run_dir).variables]
    by_name = changed(CONFIG, encoder={"encoder": "keras:mine", "backbone": None})
    for config, model in (CONFIG, tiny_encoder(name="another name")), (by_name, None):
        resumed = pretrain(config, run_dir, encoder=model)
        for found, value in zip(resumed.variables, expected, strict=True):
            np.testing.assert_array_equal(found.numpy(), value)
    with pytest.raises(UserError, match="expected the architecture of the run's keras:mine"):
        pretrain(CONFIG, run_dir, encoder=tiny_encoder(width=12))


def test_fine_tuning_starts_from_the_encoder_of_the_run(run_dir):
    source, _ = RunDir(run_dir).read_config()
    task = FineTuneTask(changed(finetune_config(run_dir), encoder=vars(source.encoder)))
    classifier = build_model(task.config, PLAN)
    task.load_initial_weights(classifier)
    trained = simclr_tf.load(run_dir).encoder
    np.testing.assert_array_equal(classifier.encoder(IMAGES), trained(IMAGES))
