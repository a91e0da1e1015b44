"""Runs whose encoder is KerasCV's: from a preset's weights, and without the preset afterwards."""

import json
import logging
import shutil

import numpy as np
import pytest
import tensorflow as tf

import simclr_tf
from simclr_tf.errors import UserError
from simclr_tf.evaluation.evaluate import evaluate_classifier, evaluate_run
from simclr_tf.evaluation.options import EvalOptions
from simclr_tf.evaluation.run_table import format_run_table
from simclr_tf.exporter.export_run import ExportOptions, export_run
from simclr_tf.models.keras_cv_backbones import build_backbone, describe_preset, load_preset_weights
from simclr_tf.models.keras_cv_backbones import save_preset as save
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.tasks import finetune, pretrain, supervised_baseline_config
from tests.training.tiny import changed, finetune_config

keras_cv = pytest.importorskip("keras_cv")
IMAGES = np.random.default_rng(0).uniform(size=(3, 16, 16, 3)).astype(np.float32)
QUIET = {"say": lambda line: None}


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
    save(backbone, directory)
    return directory


def _settings(preset, **sections):
    resnets = {"resnet_depth": 50, "width_multiplier": 1.0, "backbone": None}
    encoder = {"encoder": f"keras_cv:{preset}", **resnets, **sections.pop("encoder", {})}
    return changed(encoder=encoder, **sections)


@pytest.fixture(scope="module")
def run_dir(preset, place):
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    """A finished run, and the preset that it started from no longer there."""
    logger = logging.getLogger("simclr_tf")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    pretrain(_settings(preset), place / "run")
    logger.removeHandler(handler)
    assert f"starting keras_cv:{preset} from its weights" in lines
    assert any("KerasCV MobileNetV3Backbone, " in line for line in lines)
    preset.rename(place / "moved")
    return place / "run"


@pytest.mark.slow
def test_run_starts_from_the_presets_weights_by_default(run_dir, place):
    moved = place / "moved"
    still = {"train_steps": 1, "learning_rate": 1e-12}
    model = pretrain(_settings(moved, optimization=still), place / "still")
    wanted = build_backbone(describe_preset(str(moved), 16))
    assert load_preset_weights(wanted, str(moved))
    pairs = list(zip(model.encoder.trainable_variables, wanted.trainable_variables, strict=True))
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)
    random = _settings(moved, optimization=still, encoder={"preset_weights": False})
    model = pretrain(random, place / "random")
    kernels = [v for v in model.encoder.trainable_variables if v.shape.rank > 1]
    theirs = [v for v in wanted.trainable_variables if v.shape.rank > 1]
    assert not any(np.allclose(a, b) for a, b in zip(kernels, theirs, strict=True))


def test_run_is_loaded_resumed_and_evaluated_without_the_preset(run_dir, preset, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    for file in (copy / "checkpoints").glob("step-10.*"):
        file.unlink()
    (copy / "checkpoints" / "checkpoint").write_text('model_checkpoint_path: "step-5"\n')
    resumed = pretrain(_settings(preset), copy)
    loaded = simclr_tf.load(run_dir)
    for ours, theirs in zip(resumed.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.name)

    evaluate_run(run_dir, EvalOptions(protocols="knn", baselines="random"))
    records = json.loads((run_dir / "evaluations.json").read_text(encoding="utf-8"))
    assert {record["protocol"] for record in records} == {"knn", "knn/random"}
    width = loaded.encoder.output_shape[-1]
    table = " ".join(format_run_table([run_dir]).split())
    assert f"| MobileNetV3Backbone | {width} | 16 | " in table

    with pytest.raises(UserError, match="expected a directory or a KerasCV"):
        pretrain(_settings(preset), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_exported_model_card_contains_no_path(run_dir, place):
    output = export_run(run_dir)
    encoder = simclr_tf.load(run_dir).encoder
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
    settings = changed(settings, encoder=vars(pretrained.encoder))
    model = finetune(settings, tmp_path)
    moved = [
        (ours.numpy() != theirs.numpy()).any()
        for ours, theirs in zip(
            model.encoder.variables, simclr_tf.load(run_dir).encoder.variables, strict=True
        )
    ]
    assert any(moved) == (after == -1)
    evaluate_classifier(tmp_path)


def test_supervised_baseline_starts_from_random_weights(run_dir):
    from simclr_tf.evaluation.splits import Splits

    before, plan = RunDir(run_dir).read_config()
    settings = supervised_baseline_config(before, plan, Splits.from_config(before.data))
    assert settings.encoder.backbone == before.encoder.backbone
    assert not settings.encoder.preset_weights
