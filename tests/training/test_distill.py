"""Distillation on the built-in shapes: teachers, labels, resuming, learning."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import simclr_tf
from simclr_tf.errors import UserError
from simclr_tf.evaluation.evaluate import evaluate_classifier, evaluate_run
from simclr_tf.evaluation.options import EvalOptions
from simclr_tf.evaluation.run_table import format_run_table
from simclr_tf.exporter.export_run import export_run
from simclr_tf.models.build import build_model
from simclr_tf.models.teacher import load_teacher
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext
from simclr_tf.training.schedule import describe_run
from simclr_tf.training.tasks import DistillTask, distill, finetune
from tests.processes import rows
from tests.training.tiny import (
    NARROW,
    PLAN,
    RESNET,
    WIDE,
    AtStep,
    CallbackError,
    assert_equal_variables,
    changed,
    distill_config,
    finetune_config,
    raise_error,
    write_images,
)


@pytest.fixture(scope="module")
def exported(teacher) -> Path:
    return export_run(teacher)


@pytest.fixture(scope="module")
def student(teacher, tmp_path_factory):
    """(model, run directory) of a student without labels."""
    path = tmp_path_factory.mktemp("student") / "run"
    return distill(distill_config(teacher), path), path


@pytest.fixture(scope="module")
def labeled_student(exported, tmp_path_factory):
    """The run directory of a student of the exported teacher, with 4 labels per class."""
    path = tmp_path_factory.mktemp("labeled") / "run"
    distill(distill_config(exported, alpha=0.5, labels=4), path)
    return path


def test_run_and_its_export_are_the_same_teacher(teacher, exported):
    from_run, from_export = map(load_teacher, (teacher, exported))
    images = np.random.default_rng(0).uniform(size=(5, 16, 16, 3)).astype(np.float32)
    expected = simclr_tf.load(teacher)(images, training=False)
    for loaded in (from_run, from_export):
        np.testing.assert_allclose(loaded.logits(images), expected, atol=1e-4)
        assert (loaded.image_size, len(loaded.class_names)) == (16, 10)
    assert from_run.class_names == from_export.class_names
    assert from_run.identity == from_export.identity  # the same weights, whatever holds them


@pytest.mark.slow
def test_run_with_the_same_teacher_elsewhere_resumes(teacher, exported, labeled_student, tmp_path):
    settings = distill_config(teacher, alpha=0.5, labels=4)
    with pytest.raises(CallbackError):
        distill(settings, tmp_path, callbacks=[AtStep(3, raise_error)])
    assert RunDir(tmp_path).latest_step() == 3
    distill(changed(settings, distillation={"teacher": str(exported)}), tmp_path)
    for resumed, unbroken in zip(rows(tmp_path), rows(labeled_student), strict=True):
        for name in ("step", "loss", "accuracy", "distillation_loss", "gradient_norm"):
            assert resumed[name] == pytest.approx(unbroken[name], rel=1e-4)


def test_another_teacher_or_temperature_is_another_run(teacher, exported, student, labeled_student):
    distill(distill_config(exported), student[1])  # the same weights
    with pytest.raises(UserError, match=r"the teacher's weights \(was [0-9a-f]{16}, now"):
        distill(distill_config(labeled_student), student[1])
    hot = changed(distill_config(teacher), distillation={"distill_temperature": 2.0})
    with pytest.raises(UserError, match=r"--distill_temperature \(was 1.0, now 2.0\)"):
        distill(hot, student[1])
    with pytest.raises(UserError, match="the command"):
        distill(distill_config(teacher), teacher)


@pytest.mark.slow
def test_replicas_each_have_the_teacher(teacher, student, tmp_path, mirrored):
    distill(distill_config(teacher), tmp_path, DistributionContext(mirrored(2)))
    for two, one in zip(rows(tmp_path), rows(student[1]), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)


def test_checkpoint_contains_the_student_without_its_teacher(teacher, student):
    model, run = student
    saved = tf.train.list_variables(RunDir(run).checkpoint())
    own = {tuple(v.shape) for v in [*model.variables, *model.optimizer.variables]}
    of_teacher = {tuple(v.shape) for v in simclr_tf.load(teacher).encoder.variables} - own
    assert of_teacher
    assert not of_teacher & {tuple(shape) for _, shape in saved}
    document = json.loads((run / "config.json").read_text(encoding="utf-8"))
    identity = load_teacher(teacher).identity
    assert identity.startswith(document["config"]["distillation"]["teacher_weights"])


def test_labels_are_used_only_if_alpha_is_below_one(student, labeled_student):
    without = student[1]
    assert not RunDir(without).labeled_images_file.exists()
    assert set(rows(without)[-1]) & {"accuracy", "labelled_loss"} == set()
    with RunDir(labeled_student).labeled_images_file.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 40
    _, plan = RunDir(labeled_student).read_config()
    assert (plan.num_examples, plan.num_labels, plan.num_classes) == (256, 40, 10)
    assert {"accuracy", "labelled_loss", "distillation_loss"} <= set(rows(labeled_student)[-1])


def test_student_starts_from_the_encoder_of_a_run(teacher):
    settings = distill_config(teacher, checkpoints={"checkpoint": str(teacher)})
    task = DistillTask(changed(settings, encoder=WIDE))
    model = build_model(task.config, PLAN)
    task.load_initial_weights(model)
    assert_equal_variables(model.encoder, simclr_tf.load(teacher).encoder)
    with pytest.raises(UserError, match="its encoder has other shapes"):
        task.load_initial_weights(build_model(changed(task.config, encoder=NARROW), PLAN))


@pytest.fixture(scope="module")
def tinted(tmp_path_factory) -> Path:
    """Noise that is warm or cold: with labels in `labeled`, other images without in `bare`."""
    place, draw = tmp_path_factory.mktemp("tinted"), np.random.default_rng(0)

    def noise(tint, count):
        return (draw.integers(0, 180, (count, 20, 20, 3)) + np.array(tint)).astype(np.uint8)

    tints = {"warm": [70, 30, 0], "cold": [0, 30, 70]}
    for name, tint in tints.items():
        for split in ("train", "test"):
            write_images(place / "labeled" / split / name, noise(tint, 24))
    write_images(place / "bare", np.concatenate([noise(tint, 48) for tint in tints.values()]))
    return place


@pytest.mark.slow
def test_student_learns_from_predictions_alone(tinted, tmp_path):
    """A narrower encoder, from unlabeled images."""
    labeled = {"dataset": f"folder:{tinted / 'labeled'}", "train_split": "train"}
    labeled |= {"eval_split": "test", "storage_size": 24}
    guide, place = tmp_path / "guide", tmp_path / "student"
    from_scratch = finetune_config("", steps=30, from_scratch=True)
    same_colors = {"color_jitter_strength": 0.0}  # the classes differ in color
    finetune(changed(from_scratch, data=labeled, encoder=WIDE, augmentation=same_colors), guide)
    bare = {**labeled, "dataset": f"folder:{tinted / 'bare'}", "validation_fraction": 0.25}
    settings = distill_config(guide, 40, data=bare, encoder=RESNET, monitoring={"log_every": 5})
    distill(changed(settings, augmentation=same_colors), place)
    first, last = rows(place)[0], rows(place)[-1]
    assert last["agreement"] > 0.9 > first["agreement"]
    assert last["validation_agreement"] > 0.9
    evaluate_classifier(guide)
    evaluate_classifier(place, data=labeled)
    guide_record, student_record = (
        json.loads((run / "evaluations.json").read_text(encoding="utf-8"))[-1]
        for run in (guide, place)
    )
    assert (student_record["protocol"], student_record["setting"]) == ("distill", "T=1")
    assert student_record["num_train"] == 72
    assert guide_record["top1"] > 0.9 and student_record["top1"] > 0.9  # chance is 0.5

    # It is evaluated like any run, and can be a teacher itself.
    evaluate_run(place, EvalOptions(protocols="knn", knn_k=20, dataset=labeled["dataset"]))
    table = " ".join(format_run_table([place]).split())
    assert "| own classifier, T=1 | distilled encoder | R18 × 0.0625 | 32 | – | " in table
    assert f" | 0 | {100 * student_record['top1']:.1f} |" in table
    output = export_run(place)
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "| distilled on | folder:bare, split train, without labels, 40 steps |" in card
    assert str(tmp_path) not in card
    assert load_teacher(output).class_names == load_teacher(guide).class_names == ("cold", "warm")
    with pytest.raises(UserError, match="exports its own classifier"):
        evaluate_run(place, EvalOptions(save_classifier=True))


def test_images_without_labels_are_accepted_and_other_classes_need_alpha_one(
    teacher, student, tmp_path
):
    shapes = simclr_tf.data.open_source("shapes", "train[:64]")
    for folder in ("photos", "classes/a", "classes/b"):
        write_images(tmp_path / folder, shapes.images[:64])
    settings = {"train_split": "train", "storage_size": 24}
    for name in ("photos", "classes"):
        data = settings | {"dataset": f"folder:{tmp_path / name}"}
        task = DistillTask(distill_config(teacher, data=data))
        task.open_data()
        plan = task.complete_plan(PLAN)
        assert (plan.num_classes, plan.num_labels) == (10, 0)
        assert "no labels used" in describe_run(task.config, plan, student[0], task.train)
        with pytest.raises(UserError, match="expected labels of the teacher's 10 classes"):
            DistillTask(distill_config(teacher, alpha=0.5, data=data)).open_data()


def test_mistakes_are_named_before_training(teacher, exported, unbroken, tmp_path):
    pretrained = tmp_path / "pretrained"
    shutil.copytree(unbroken[1], pretrained)
    (tmp_path / "empty").mkdir()
    for source, message in [
        (pretrained, "a pretrained run has no classifier. Fix: choose a run of"),
        (export_run(pretrained), "an export without a classifier"),
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
