"""Runs whose encoder is KerasCV's: from a preset's weights, and without the preset afterwards."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

import simclr_tf
from simclr_tf.errors import UserError
from simclr_tf.evaluation.evaluate import evaluate_classifier, evaluate_run
from simclr_tf.evaluation.options import EvalOptions
from simclr_tf.evaluation.run_table import format_run_table
from simclr_tf.evaluation.splits import Splits
from simclr_tf.exporter.export_run import ExportOptions, export_run
from simclr_tf.models.build import build_model
from simclr_tf.models.keras_cv_backbones import (
    build_backbone,
    describe_preset,
    load_preset_weights,
    save_preset,
)
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.tasks import PretrainTask, finetune, pretrain, supervised_baseline_config
from tests.training.tiny import PLAN, assert_equal_variables, changed, finetune_config

keras_cv = pytest.importorskip("keras_cv")
IMAGES = np.random.default_rng(0).uniform(size=(3, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("keras_cv")


@pytest.fixture(scope="module")
def preset(place):
    directory = place / "tiny preset"
    backbone = keras_cv.models.MobileNetV3Backbone(
        stackwise_expansion=[1, 4],
        stackwise_filters=[8, 16],
        stackwise_kernel_size=[3, 3],
        stackwise_stride=[2, 2],
        stackwise_se_ratio=[0.25, None],
        stackwise_activation=["relu", "hard_swish"],
        include_rescaling=True,
    )
    save_preset(backbone, directory)
    return directory


def _settings(preset, **encoder):
    resnets = {"resnet_depth": 50, "width_multiplier": 1.0, "backbone": None}
    return changed(
        encoder={"encoder": f"keras_cv:{preset}", **resnets, **encoder},
        optimization={"train_steps": 2},
        checkpoints={"checkpoint_steps": 1},
    )


@pytest.fixture(scope="module")
def run_dir(preset, place):
    """A finished run, and the preset that it started from no longer there."""
    pretrain(_settings(preset), place / "run")
    preset.rename(place / "moved")
    return place / "run"


@pytest.mark.parametrize("pretrained", [True, False])
def test_run_starts_from_the_presets_weights_by_default(run_dir, place, log, pretrained):
    moved = place / "moved"
    task = PretrainTask(_settings(moved, **({} if pretrained else {"preset_weights": False})))
    task.resolve_encoder(None)
    model = build_model(task.config, PLAN)
    task.load_initial_weights(model)
    expected = build_backbone(describe_preset(str(moved), 16))
    assert load_preset_weights(expected, str(moved))
    assert pretrained == (f"starting keras_cv:{moved} from its weights" in log.messages)
    for found, other in zip(model.encoder.variables, expected.variables, strict=True):
        if found.shape.rank > 1:
            assert np.array_equal(found, other) == pretrained


def test_run_is_loaded_and_resumed_without_the_preset(run_dir, preset, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    for file in (copy / "checkpoints").glob("step-2.*"):
        file.unlink()
    (copy / "checkpoints" / "checkpoint").write_text('model_checkpoint_path: "step-1"\n')
    assert_equal_variables(pretrain(_settings(preset), copy), simclr_tf.load(run_dir))
    with pytest.raises(UserError, match="expected a directory or a KerasCV"):
        pretrain(_settings(preset), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_run_is_evaluated_and_exported_without_the_preset_or_its_path(run_dir, place):
    evaluate_run(run_dir, EvalOptions(protocols="knn", baselines="random"))
    records = json.loads((run_dir / "evaluations.json").read_text(encoding="utf-8"))
    assert {record["protocol"] for record in records} == {"knn", "knn/random"}
    encoder = simclr_tf.load(run_dir).encoder
    table = " ".join(format_run_table([run_dir]).split())
    assert f"| MobileNetV3Backbone | {encoder.output_shape[-1]} | 16 | " in table

    output = export_run(run_dir)
    loaded = tf.saved_model.load(str(output))
    np.testing.assert_allclose(loaded(IMAGES), encoder(IMAGES), atol=1e-5)
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "KerasCV MobileNetV3Backbone" in card and "`keras_cv:tiny preset`" in card
    assert str(place) not in card
    card = export_run(run_dir, ExportOptions(format="keras")).with_suffix(".keras.md")
    assert "import keras_cv, tf_keras" in card.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("after", [-1, 4])
def test_run_is_fine_tuned(run_dir, tmp_path, after):
    pretrained, _ = RunDir(run_dir).read_config()
    settings = finetune_config(run_dir, steps=2, fine_tune_after_block=after)
    model = finetune(changed(settings, encoder=vars(pretrained.encoder)), tmp_path)
    before = simclr_tf.load(run_dir).encoder.variables
    changes = [
        (new.numpy() != old.numpy()).any()
        for new, old in zip(model.encoder.variables, before, strict=True)
    ]
    assert any(changes) == (after == -1)
    evaluate_classifier(tmp_path)


def test_supervised_baseline_starts_from_random_weights(run_dir):
    before, plan = RunDir(run_dir).read_config()
    settings = supervised_baseline_config(before, plan, Splits.from_config(before.data))
    assert settings.encoder.backbone == before.encoder.backbone
    assert not settings.encoder.preset_weights
