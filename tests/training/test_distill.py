"""Distillation in this process on the built-in shapes: teachers, labels, resuming, learning."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import simclr_tf
from simclr_tf import config
from simclr_tf.errors import UserError
from simclr_tf.evaluation import KNN
from simclr_tf.evaluation.evaluate import evaluate_classifier, evaluate_run
from simclr_tf.evaluation.options import EvalOptions
from simclr_tf.evaluation.run_table import format_run_table
from simclr_tf.exporter.export_run import export_run
from simclr_tf.models.teacher import load_teacher
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext
from simclr_tf.training.tasks import distill, finetune, pretrain
from tests.processes import rows
from tests.training.test_pretrain import changed

QUIET = {"say": lambda line: None}
CROP_AND_FLIP = {"color_jitter_strength": 0.0, "use_grayscale": False, "crop_min_area": 0.3}


def _base(steps, **sections):
    optimization = {"train_steps": steps, "train_batch_size": 32, "weight_decay": 0.0}
    optimization |= {"learning_rate_scaling": "none", **sections.pop("optimization", {})}
    return changed(
        changed(
            augmentation=CROP_AND_FLIP,
            data={"train_split": "train[:512]", "eval_split": "test[:200]"},
            optimization=optimization,
            checkpoints={"checkpoint_steps": 3},
            monitoring={"log_every": 2},
        ),
        **sections,
    )


def student(teacher, steps=6, *, temperature=1.0, alpha=1.0, labels=0, **sections):
    base = _base(steps, **sections)
    names = [field.name for field in dataclasses.fields(config.PretrainConfig)]
    return config.DistillConfig(
        **{name: getattr(base, name) for name in names},
        distillation=config.Distillation(
            teacher=str(teacher),
            distill_temperature=temperature,
            distill_alpha=alpha,
            labels_per_class=labels,
        ),
    )


def _supervised(steps, place, **sections):
    base = _base(steps, **sections)
    names = [field.name for field in dataclasses.fields(config.PretrainConfig)]
    settings = config.FinetuneConfig(
        **{name: getattr(base, name) for name in names},
        finetuning=config.FineTuning(from_scratch=True),
    )
    finetune(settings, place, **QUIET)
    return place


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A run with a classifier that has taken a few steps, twice as wide as its students."""
    place = tmp_path_factory.mktemp("teacher") / "run"
    return _supervised(10, place, encoder={"width_multiplier": 1 / 8})


@pytest.fixture(scope="module")
def exported(teacher) -> Path:
    return export_run(teacher, **QUIET)


def test_a_run_and_its_export_teach_the_same(teacher, exported, tmp_path):
    of_run, of_export = map(load_teacher, (teacher, exported))
    images = np.random.default_rng(0).uniform(size=(5, 16, 16, 3)).astype(np.float32)
    wanted = simclr_tf.load(teacher)(images, training=False)
    for opened in (of_run, of_export):
        np.testing.assert_allclose(opened.logits(images), wanted, atol=1e-4)
        assert (opened.image_size, len(opened.class_names)) == (16, 10)
    assert of_run.class_names == of_export.class_names
    assert of_run.identity == of_export.identity  # the same weights, whatever holds them
    for name, source in (("run", teacher), ("export", exported)):
        distill(student(source), tmp_path / name, **QUIET)
    for ours, theirs in zip(rows(tmp_path / "run"), rows(tmp_path / "export"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


class _Killed(Exception):
    pass


def test_resumed_run_equals_an_unbroken_one(teacher, tmp_path, monkeypatch):
    settings = student(teacher, alpha=0.5, labels=4)
    whole = distill(settings, tmp_path / "whole", **QUIET)

    from simclr_tf.training.checkpoints import CheckpointCallback

    save = CheckpointCallback.save

    def save_and_die(self):
        save(self)
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointCallback, "save", save_and_die)
        with pytest.raises(_Killed):
            distill(settings, tmp_path / "broken", **QUIET)
    assert RunDir(tmp_path / "broken").latest_step() == 3
    # The teacher may have moved in between.
    shutil.copytree(teacher, tmp_path / "moved")
    elsewhere = student(tmp_path / "moved", alpha=0.5, labels=4)
    resumed = distill(elsewhere, tmp_path / "broken", **QUIET)
    for ours, theirs in zip(resumed.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.name)
    kept = [
        [{k: v for k, v in row.items() if k != "views_per_second"} for row in rows(tmp_path / name)]
        for name in ("broken", "whole")
    ]
    assert kept[0] == kept[1] and kept[0][-1]["step"] == 6


def test_another_teacher_or_temperature_is_another_run(teacher, tmp_path):
    place = tmp_path / "student"
    distill(student(teacher, steps=1), place, **QUIET)
    other = _supervised(1, tmp_path / "other", encoder={"width_multiplier": 1 / 8})
    with pytest.raises(UserError, match=r"the teacher's weights \(was [0-9a-f]{16}, now"):
        distill(student(other, steps=1), place, **QUIET)
    with pytest.raises(UserError, match=r"--distill_temperature \(was 1.0, now 2.0\)"):
        distill(student(teacher, steps=1, temperature=2.0), place, **QUIET)
    with pytest.raises(UserError, match="the command"):
        distill(student(teacher, steps=1), teacher, **QUIET)


@pytest.mark.slow
def test_replicas_each_have_the_teacher(teacher, tmp_path, mirrored):
    settings = student(teacher, steps=3, monitoring={"log_every": 1})
    one, two = tmp_path / "one", tmp_path / "two"
    distill(settings, one, **QUIET)
    distill(settings, two, DistributionContext(mirrored(2)), **QUIET)
    for ours, theirs in zip(rows(two), rows(one), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def test_the_students_checkpoint_holds_the_student_alone(teacher, tmp_path):
    model = distill(student(teacher, steps=1), tmp_path, **QUIET)
    stored = tf.train.list_variables(RunDir(tmp_path).checkpoint())
    own = {tuple(v.shape) for v in [*model.variables, *model.optimizer.variables]}
    of_teacher = {tuple(v.shape) for v in simclr_tf.load(teacher).encoder.variables} - own
    assert of_teacher
    assert not of_teacher & {tuple(shape) for _, shape in stored}
    document = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    identity = load_teacher(teacher).identity
    assert identity.startswith(document["config"]["distillation"]["teacher_weights"])


def test_labels_are_used_only_where_they_are_asked_for(teacher, tmp_path):
    alone, few = tmp_path / "alone", tmp_path / "few"
    distill(student(teacher, steps=2), alone, **QUIET)
    assert not RunDir(alone).labeled_images_file.exists()
    assert set(rows(alone)[-1]) & {"accuracy", "labelled_loss"} == set()
    distill(student(teacher, steps=2, alpha=0.5, labels=3), few, **QUIET)
    with RunDir(few).labeled_images_file.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 30
    _, plan = RunDir(few).read_config()
    assert (plan.num_examples, plan.num_labels, plan.num_classes) == (512, 30, 10)
    assert {"accuracy", "labelled_loss", "distillation_loss"} <= set(rows(few)[-1])


def test_starts_from_the_encoder_of_a_run(teacher, tmp_path):
    settings = student(
        teacher,
        steps=1,
        optimization={"learning_rate": 1e-12},
        encoder={"width_multiplier": 1 / 8},
        checkpoints={"checkpoint": str(teacher)},
    )
    model = distill(settings, tmp_path / "same", **QUIET)
    theirs = simclr_tf.load(teacher).encoder.trainable_variables
    for ours, wanted in zip(model.encoder.trainable_variables, theirs, strict=True):
        np.testing.assert_allclose(ours.numpy(), wanted.numpy(), atol=1e-6)
    with pytest.raises(UserError, match="its encoder has other shapes"):
        distill(changed(settings, encoder={"width_multiplier": 1 / 16}), tmp_path / "x", **QUIET)


@pytest.fixture(scope="module")
def tinted(tmp_path_factory) -> Path:
    """Noise that is warm or cold: with labels in `labelled`, other images without in `bare`."""
    place, draw = tmp_path_factory.mktemp("tinted"), np.random.default_rng(0)
    for i in range(192):
        kind, tint = (("warm", [70, 30, 0]), ("cold", [0, 30, 70]))[i % 2]
        folder = place / "bare"
        if i < 96:
            folder = place / "labelled" / ("train" if i < 48 else "test") / kind
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 180, (20, 20, 3)) + np.array(tint)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03}.png")
    return place


@pytest.mark.slow
def test_a_student_learns_from_answers_alone(tinted, tmp_path):
    """A narrower encoder, from images of which nobody has said what they show."""
    labelled = {"dataset": f"folder:{tinted / 'labelled'}", "train_split": "train"}
    labelled |= {"eval_split": "test", "storage_size": 24}
    guide = _supervised(
        30,
        tmp_path / "guide",
        data=labelled,
        encoder={"width_multiplier": 1 / 8},
        optimization={"train_batch_size": 16},
    )
    bare = {**labelled, "dataset": f"folder:{tinted / 'bare'}", "validation_fraction": 0.25}
    place = tmp_path / "student"
    settings = student(
        guide, 40, data=bare, optimization={"train_batch_size": 16}, monitoring={"log_every": 5}
    )
    distill(settings, place, **QUIET)
    first, last = rows(place)[0], rows(place)[-1]
    assert last["agreement"] > 0.9 > first["agreement"]
    assert last["validation_agreement"] > 0.9
    evaluate_classifier(guide, **QUIET)
    evaluate_classifier(place, data=labelled, **QUIET)
    of_guide, of_student = (
        json.loads((run / "evaluations.json").read_text(encoding="utf-8"))[-1]
        for run in (guide, place)
    )
    assert (of_student["protocol"], of_student["setting"]) == ("distill", "T=1")
    assert of_student["num_train"] == 72
    assert of_guide["top1"] > 0.9 and of_student["top1"] > 0.9  # chance is 0.5

    # It is a run like others, and a teacher in its turn.
    evaluate_run(place, EvalOptions([KNN((20,))], datasets=[labelled["dataset"]]), **QUIET)
    table = format_run_table([place])
    assert "| its own head, T=1 | distilled encoder | R18 × 0.0625 | 32 | – | " in table
    assert f" | 0 | {100 * of_student['top1']:.1f} |" in table
    output = export_run(place, **QUIET)
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "| distilled on | folder:bare, split train, without labels, 40 steps |" in card
    assert str(tmp_path) not in card
    assert load_teacher(output).class_names == load_teacher(guide).class_names == ("cold", "warm")
    with pytest.raises(UserError, match="exports its own classifier"):
        evaluate_run(place, EvalOptions(save_classifier=True), **QUIET)


def test_images_without_labels_or_of_other_classes(teacher, tmp_path):
    shapes = simclr_tf.data.open_source("shapes", "train[:64]")
    for i, image in enumerate(shapes._images[:64]):
        for place in (tmp_path / "photos", tmp_path / "classes" / f"c{i % 2}"):
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{i}.png")
    for name in ("photos", "classes"):
        data = {"dataset": f"folder:{tmp_path / name}", "train_split": "train", "storage_size": 24}
        said = []
        settings = student(teacher, steps=1, data=data)
        model = distill(settings, tmp_path / name / "run", say=said.append)
        assert model.head.kernel.shape[1] == 10
        assert any("no labels used" in line for line in said)
        with pytest.raises(UserError, match="are not of the 10 classes that the teacher"):
            distill(student(teacher, alpha=0.5, data=data), tmp_path / "labelled", **QUIET)


def test_mistakes_are_named_before_training(teacher, exported, tmp_path):
    pretrained = tmp_path / "pretrained"
    pretrain(changed(optimization={"train_steps": 1}), pretrained, **QUIET)
    (tmp_path / "empty").mkdir()
    plain = export_run(pretrained, **QUIET)
    for source, message in [
        (pretrained, "a pretrained run has no classifier to learn from; name a run of"),
        (plain, "an export without a classifier"),
        (tmp_path / "empty", "neither a run nor a SavedModel"),
        (tmp_path / "nowhere", "neither a run nor a SavedModel"),
    ]:
        with pytest.raises(UserError, match=message) as raised:
            distill(student(source), tmp_path / "run", **QUIET)
        assert "\n" not in str(raised.value)
    for source in (teacher, exported):
        with pytest.raises(UserError, match=r"--image_size=24: the teacher .* of 16 pixels"):
            distill(student(source, augmentation={"image_size": 24}), tmp_path / "run", **QUIET)
    with pytest.raises(UserError, match="--labels_per_class=99"):
        distill(student(teacher, alpha=0.5, labels=99), tmp_path / "run", **QUIET)
    assert not (tmp_path / "run").exists()
