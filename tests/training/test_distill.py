"""Distillation on the built-in shapes: teachers, labels, resuming, learning."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import simclr_tf
from simclr_tf.errors import UserError
from simclr_tf.evaluation.evaluate import evaluate_classifier, evaluate_run
from simclr_tf.evaluation.options import EvalOptions
from simclr_tf.evaluation.run_table import format_run_table
from simclr_tf.exporter.export_run import export_run
from simclr_tf.models.teacher import load_teacher
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext
from simclr_tf.training.tasks import distill, finetune
from tests.processes import rows
from tests.training.tiny import (
    NARROW,
    RESNET,
    WIDE,
    CallbackError,
    RaiseAt,
    assert_equal_variables,
    changed,
    distill_config,
    from_scratch_config,
    reproducible_rows,
)

QUIET = {"say": lambda line: None}


@pytest.fixture(scope="module")
def exported(teacher) -> Path:
    return export_run(teacher)


@pytest.fixture(scope="module")
def student(teacher, tmp_path_factory):
    """(model, run directory) of a student without labels."""
    path = tmp_path_factory.mktemp("student") / "run"
    return distill(distill_config(teacher), path), path


@pytest.fixture(scope="module")
def labeled_student(teacher, tmp_path_factory):
    """(model, run directory) of a student with 4 labels per class."""
    path = tmp_path_factory.mktemp("labeled") / "run"
    return distill(distill_config(teacher, alpha=0.5, labels=4), path), path


def test_run_and_its_export_teach_the_same(teacher, exported, student, tmp_path):
    of_run, of_export = map(load_teacher, (teacher, exported))
    images = np.random.default_rng(0).uniform(size=(5, 16, 16, 3)).astype(np.float32)
    wanted = simclr_tf.load(teacher)(images, training=False)
    for opened in (of_run, of_export):
        np.testing.assert_allclose(opened.logits(images), wanted, atol=1e-4)
        assert (opened.image_size, len(opened.class_names)) == (16, 10)
    assert of_run.class_names == of_export.class_names
    assert of_run.identity == of_export.identity  # the same weights, whatever holds them
    distill(distill_config(exported), tmp_path)
    for from_export, from_run in zip(rows(tmp_path), rows(student[1]), strict=True):
        assert from_export["loss"] == pytest.approx(from_run["loss"], rel=1e-4)


def test_resumed_run_equals_an_unbroken_one(teacher, labeled_student, tmp_path):
    broken = tmp_path / "broken"
    with pytest.raises(CallbackError):
        distill(distill_config(teacher, alpha=0.5, labels=4), broken, callbacks=[RaiseAt(3)])
    assert RunDir(broken).latest_step() == 3
    # The teacher may have moved in between.
    shutil.copytree(teacher, tmp_path / "moved")
    resumed = distill(distill_config(tmp_path / "moved", alpha=0.5, labels=4), broken)
    assert_equal_variables(resumed, labeled_student[0])
    assert reproducible_rows(broken) == reproducible_rows(labeled_student[1])
    assert rows(broken)[-1]["step"] == 6


def test_another_teacher_or_temperature_is_another_run(teacher, student, tmp_path):
    other = tmp_path / "other"
    finetune(from_scratch_config(1, encoder=WIDE), other)
    with pytest.raises(UserError, match=r"the teacher's weights \(was [0-9a-f]{16}, now"):
        distill(distill_config(other), student[1])
    with pytest.raises(UserError, match=r"--distill_temperature \(was 1.0, now 2.0\)"):
        distill(distill_config(teacher, temperature=2.0), student[1])
    with pytest.raises(UserError, match="the command"):
        distill(distill_config(teacher), teacher)


@pytest.mark.slow
def test_replicas_each_have_the_teacher(teacher, tmp_path, mirrored):
    settings = distill_config(teacher, steps=3, monitoring={"log_every": 1})
    one, two = tmp_path / "one", tmp_path / "two"
    distill(settings, one)
    distill(settings, two, DistributionContext(mirrored(2)))
    for ours, theirs in zip(rows(two), rows(one), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def test_checkpoint_contains_the_student_without_its_teacher(teacher, student):
    model, run = student
    stored = tf.train.list_variables(RunDir(run).checkpoint())
    own = {tuple(v.shape) for v in [*model.variables, *model.optimizer.variables]}
    of_teacher = {tuple(v.shape) for v in simclr_tf.load(teacher).encoder.variables} - own
    assert of_teacher
    assert not of_teacher & {tuple(shape) for _, shape in stored}
    document = json.loads((run / "config.json").read_text(encoding="utf-8"))
    identity = load_teacher(teacher).identity
    assert identity.startswith(document["config"]["distillation"]["teacher_weights"])


def test_labels_are_used_only_if_alpha_is_below_one(student, labeled_student):
    without, labeled = student[1], labeled_student[1]
    assert not RunDir(without).labeled_images_file.exists()
    assert set(rows(without)[-1]) & {"accuracy", "labelled_loss"} == set()
    with RunDir(labeled).labeled_images_file.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 40
    _, plan = RunDir(labeled).read_config()
    assert (plan.num_examples, plan.num_labels, plan.num_classes) == (512, 40, 10)
    assert {"accuracy", "labelled_loss", "distillation_loss"} <= set(rows(labeled)[-1])


def test_starts_from_the_encoder_of_a_run(teacher, tmp_path):
    settings = distill_config(
        teacher,
        steps=1,
        optimization={"learning_rate": 1e-12},
        encoder=WIDE,
        checkpoints={"checkpoint": str(teacher)},
    )
    model = distill(settings, tmp_path / "same")
    theirs = simclr_tf.load(teacher).encoder.trainable_variables
    for ours, wanted in zip(model.encoder.trainable_variables, theirs, strict=True):
        np.testing.assert_allclose(ours.numpy(), wanted.numpy(), atol=1e-6)
    with pytest.raises(UserError, match="its encoder has other shapes"):
        distill(changed(settings, encoder=NARROW), tmp_path / "x")


@pytest.fixture(scope="module")
def tinted(tmp_path_factory) -> Path:
    """Noise that is warm or cold: with labels in `labeled`, other images without in `bare`."""
    place, draw = tmp_path_factory.mktemp("tinted"), np.random.default_rng(0)
    for i in range(192):
        kind, tint = (("warm", [70, 30, 0]), ("cold", [0, 30, 70]))[i % 2]
        folder = place / "bare"
        if i < 96:
            folder = place / "labeled" / ("train" if i < 48 else "test") / kind
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 180, (20, 20, 3)) + np.array(tint)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03}.png")
    return place


@pytest.mark.slow
def test_student_learns_from_predictions_alone(tinted, tmp_path):
    """A narrower encoder, from unlabeled images."""
    labeled = {"dataset": f"folder:{tinted / 'labeled'}", "train_split": "train"}
    labeled |= {"eval_split": "test", "storage_size": 24}
    guide = tmp_path / "guide"
    guide_config = from_scratch_config(
        30,
        data=labeled,
        encoder=WIDE,
        optimization={"train_batch_size": 16},
    )
    finetune(guide_config, guide)
    bare = {**labeled, "dataset": f"folder:{tinted / 'bare'}", "validation_fraction": 0.25}
    place = tmp_path / "student"
    settings = distill_config(
        guide,
        40,
        data=bare,
        encoder=RESNET,
        optimization={"train_batch_size": 16},
        monitoring={"log_every": 5},
    )
    distill(settings, place)
    first, last = rows(place)[0], rows(place)[-1]
    assert last["agreement"] > 0.9 > first["agreement"]
    assert last["validation_agreement"] > 0.9
    evaluate_classifier(guide)
    evaluate_classifier(place, data=labeled)
    of_guide, of_student = (
        json.loads((run / "evaluations.json").read_text(encoding="utf-8"))[-1]
        for run in (guide, place)
    )
    assert (of_student["protocol"], of_student["setting"]) == ("distill", "T=1")
    assert of_student["num_train"] == 72
    assert of_guide["top1"] > 0.9 and of_student["top1"] > 0.9  # chance is 0.5

    # It is evaluated like any run, and can be a teacher itself.
    evaluate_run(place, EvalOptions(protocols="knn", knn_k=20, dataset=labeled["dataset"]))
    table = " ".join(format_run_table([place]).split())
    assert "| own classifier, T=1 | distilled encoder | R18 × 0.0625 | 32 | – | " in table
    assert f" | 0 | {100 * of_student['top1']:.1f} |" in table
    output = export_run(place)
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "| distilled on | folder:bare, split train, without labels, 40 steps |" in card
    assert str(tmp_path) not in card
    assert load_teacher(output).class_names == load_teacher(guide).class_names == ("cold", "warm")
    with pytest.raises(UserError, match="exports its own classifier"):
        evaluate_run(place, EvalOptions(save_classifier=True))


def test_images_without_labels_train_and_other_classes_need_alpha_one(teacher, tmp_path, log):
    shapes = simclr_tf.data.open_source("shapes", "train[:64]")
    for i, image in enumerate(shapes.images[:64]):
        for folder in (tmp_path / "photos", tmp_path / "classes" / f"c{i % 2}"):
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i}.png")
    settings = {"train_split": "train", "storage_size": 24}
    photos, classes = (
        settings | {"dataset": f"folder:{tmp_path / name}"} for name in ("photos", "classes")
    )
    model = distill(distill_config(teacher, steps=1, data=photos), tmp_path / "run")
    assert model.head.kernel.shape[1] == 10
    assert any("no labels used" in line for line in log.messages)
    for data in (photos, classes):
        with pytest.raises(UserError, match="expected labels of the teacher's 10 classes"):
            distill(distill_config(teacher, alpha=0.5, data=data), tmp_path / "labeled")


def test_mistakes_are_named_before_training(teacher, exported, unbroken, tmp_path):
    pretrained = tmp_path / "pretrained"
    shutil.copytree(unbroken[1], pretrained)
    (tmp_path / "empty").mkdir()
    plain = export_run(pretrained)
    for source, message in [
        (pretrained, "a pretrained run has no classifier. Fix: choose a run of"),
        (plain, "an export without a classifier"),
        (tmp_path / "empty", "expected a run or a SavedModel"),
        (tmp_path / "nowhere", "expected a run or a SavedModel"),
    ]:
        with pytest.raises(UserError, match=message) as raised:
            distill(distill_config(source), tmp_path / "run")
        assert "\n" not in str(raised.value)
    for source in (teacher, exported):
        with pytest.raises(
            UserError, match=r"--image_size=24: expected 16, the image size of the teacher"
        ):
            distill(distill_config(source, augmentation={"image_size": 24}), tmp_path / "run")
    with pytest.raises(UserError, match="--labels_per_class=99"):
        distill(distill_config(teacher, alpha=0.5, labels=99), tmp_path / "run")
    assert not (tmp_path / "run").exists()
