"""Runs whose encoder is the user's own Keras model: stored with the run, rebuilt without it."""

import json
import logging

import numpy as np
import pytest
import tensorflow as tf

import simclr_tf
from simclr_tf.errors import UserError
from simclr_tf.evaluation.evaluate import evaluate_run
from simclr_tf.evaluation.options import EvalOptions
from simclr_tf.exporter.export_run import export_run
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.tasks import finetune, pretrain
from tests.models.test_custom_encoder import tiny_encoder
from tests.training.tiny import changed, finetune_config

IMAGES = np.random.default_rng(0).uniform(size=(3, 16, 16, 3)).astype(np.float32)
DEFAULTS = {"encoder": {"resnet_depth": 50, "width_multiplier": 1.0}}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run with an encoder of which nothing is left in memory."""
    path = tmp_path_factory.mktemp("own") / "run"
    pretrain(changed(**DEFAULTS), path, encoder=tiny_encoder(name="mine"))
    return path


def test_run_starts_from_the_weights_of_the_model(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    model = tiny_encoder(name="mine")
    still = {"train_steps": 1, "learning_rate": 1e-12}
    trained = pretrain(changed(**DEFAULTS, optimization=still), tmp_path, encoder=model)
    assert "starting from the weights of the Keras model mine" in caplog.messages
    pairs = zip(trained.encoder.trainable_variables, model.trainable_variables, strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, atol=1e-6)


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
    by_name = {"encoder": {**DEFAULTS["encoder"], "encoder": "keras:mine", "backbone": None}}
    for config, model in (
        (changed(**DEFAULTS), tiny_encoder(name="another name")),
        (changed(**by_name), None),
    ):
        resumed = pretrain(config, run_dir, encoder=model)
        for found, value in zip(resumed.variables, expected, strict=True):
            np.testing.assert_array_equal(found.numpy(), value)
    with pytest.raises(UserError, match="expected the architecture of the run's keras:mine"):
        pretrain(changed(**DEFAULTS), run_dir, encoder=tiny_encoder(width=12))


def test_run_is_fine_tuned(run_dir, tmp_path):
    source, _ = RunDir(run_dir).read_config()
    config = changed(finetune_config(run_dir, steps=1), encoder=vars(source.encoder))
    classifier = finetune(config, tmp_path)
    assert classifier.encoder.output_shape == (None, 8)
    assert simclr_tf.load(tmp_path).encoder.name == "mine"
