"""Fine-tuning on the built-in shapes: labels, initial weights, resuming."""

import csv
import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import simclr_tf
from simclr_tf.augment import eval_transform
from simclr_tf.data import sequential_batches
from simclr_tf.errors import UserError
from simclr_tf.evaluation.evaluate import evaluate_classifier, evaluate_run
from simclr_tf.evaluation.options import EvalOptions
from simclr_tf.evaluation.splits import Splits
from simclr_tf.models.build import build_model
from simclr_tf.models.classifier import truncate_projection_head
from simclr_tf.runs.results_file import read_evaluations
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.tasks import (
    FineTuneTask,
    finetune,
    shrink_batch,
    supervised_baseline_config,
    train_supervised_baseline,
)
from tests.processes import rows
from tests.training.tiny import (
    PLAN,
    WIDE,
    AtStep,
    CallbackError,
    assert_equal_variables,
    changed,
    finetune_config,
    raise_error,
    reproducible_rows,
    write_images,
)

HALF = {"label_fraction": 0.5, "ft_proj_selector": 1, "fine_tune_after_block": 4}


@pytest.fixture(scope="module")
def pretrained(unbroken) -> Path:
    return unbroken[1]


@pytest.fixture(scope="module")
def half_labeled(pretrained, tmp_path_factory):
    """(model, run directory) of a run that trains a classifier with half of the labels."""
    path = tmp_path_factory.mktemp("half") / "run"
    return finetune(finetune_config(pretrained, **HALF), path), path


def read_labeled(run: Path) -> list[tuple[str, str]]:
    with (run / "labelled.csv").open(encoding="utf-8", newline="") as file:
        return [(row["id"], row["class"]) for row in csv.DictReader(file)]


def test_labels_are_sampled_class_by_class_and_listed(pretrained, half_labeled, tmp_path):
    task = FineTuneTask(finetune_config(pretrained, label_fraction=0.1))
    task.open_data()
    task.write_extra_files(RunDir(tmp_path))
    tenth, half = read_labeled(tmp_path), read_labeled(half_labeled[1])
    # Of train[:256] six classes have 26 images and four have 25.
    assert set(Counter(name for _, name in tenth).values()) <= {2, 3}
    assert set(Counter(name for _, name in half).values()) <= {12, 13}
    assert set(tenth) < set(half)
    source = simclr_tf.data.open_source("shapes", "train[:256]")
    for image, name in half:
        split, _, position = image.partition("/")
        assert split == "train" and source.class_names[source.labels()[int(position)]] == name
    assert RunDir(half_labeled[1]).read_config()[1].num_examples == len(half)


def test_frozen_encoder_and_projection_layer_are_those_of_the_checkpoint(pretrained, half_labeled):
    model, original = half_labeled[0], simclr_tf.load(pretrained)
    assert_equal_variables(model.encoder, original.encoder)
    assert_equal_variables(model.projection, truncate_projection_head(original.projection_head, 1))


def test_listed_images_of_a_folder_are_the_training_images(pretrained, tmp_path):
    shapes = simclr_tf.data.open_source("shapes", "train[:80]")
    write_images(tmp_path / "photos" / "=round", shapes.images[:40])
    write_images(tmp_path / "photos" / "other", shapes.images[40:80])
    photos = {"dataset": f"folder:{tmp_path / 'photos'}", "train_split": "train[10:]"}
    settings = finetune_config(pretrained, label_fraction=0.6)
    task = FineTuneTask(changed(settings, data=photos | {"validation_fraction": 0.25}))
    task.open_data()
    task.write_extra_files(RunDir(tmp_path))
    listed = [
        (file.removeprefix("'"), name.removeprefix("'")) for file, name in read_labeled(tmp_path)
    ]
    assert all((tmp_path / "photos" / file).is_file() for file, _ in listed)
    assert all(file.partition("/")[0] == name for file, name in listed)
    training, held_out = (
        set(source.image_ids(np.arange(source.num_examples)))
        for source in (task.train, task.held_out)
    )
    assert {file for file, _ in listed} == training
    assert not training & held_out


def test_shrunk_batch_is_a_multiple_of_the_replicas(pretrained):
    def shrunk(count, replicas):
        settings = shrink_batch(finetune_config(pretrained), count, replicas)
        return settings.optimization.train_batch_size

    assert [shrunk(n, 4) for n in (15, 16, 100)] == [12, 16, 16]
    assert shrunk(3, 4) == 16  # too few: refused where the plan is made


def test_zero_initialized_head_is_zero(pretrained):
    for zero in (True, False):
        settings = finetune_config(pretrained, zero_init_logits_layer=zero)
        model = build_model(settings.resolve(), PLAN)
        assert (not np.any(model.head.kernel.numpy())) == zero


def test_run_that_a_callback_broke_resumes_as_an_unbroken_one(
    pretrained, half_labeled, tmp_path, log
):
    whole, path = half_labeled
    settings = finetune_config(pretrained, **HALF)
    with pytest.raises(CallbackError):
        finetune(settings, tmp_path, callbacks=[AtStep(3, raise_error)])
    assert RunDir(tmp_path).latest_step() == 3
    assert "The run is saved at step 3" in log.messages
    assert_equal_variables(finetune(settings, tmp_path), whole)
    assert reproducible_rows(tmp_path) == reproducible_rows(path)
    assert {"loss", "accuracy"} <= set(rows(path)[-1])
    with pytest.raises(UserError, match="--label_fraction"):
        finetune(finetune_config(pretrained, **HALF | {"label_fraction": 0.25}), tmp_path)


def test_accuracy_of_a_run_is_recorded(half_labeled, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(half_labeled[1], run)
    evaluate_classifier(run)
    (record,) = json.loads((run / "evaluations.json").read_text(encoding="utf-8"))
    assert record["protocol"] == "finetune" and record["num_train"] == len(read_labeled(run))
    test = simclr_tf.data.open_source("shapes", "test[:64]")
    (batch,) = sequential_batches(test, 64)
    logits = half_labeled[0](eval_transform(batch["image"], 16), training=False).numpy()
    assert record["top1"] == pytest.approx(np.mean(logits.argmax(1) == test.labels()))
    evaluate_classifier(run, data={"eval_split": "test[:20]"})
    assert read_evaluations(run / "evaluations.json")[-1]["num_test"] == 20
    for name in ("cat", "dog"):
        write_images(tmp_path / "photos" / name, np.zeros((1, 8, 8, 3), np.uint8))
    others = {"dataset": f"folder:{tmp_path / 'photos'}", "eval_split": "train"}
    with pytest.raises(UserError, match="its classes differ from those of the classifier"):
        evaluate_classifier(run, data=others | {"train_split": "train"})
    with pytest.raises(UserError, match="exports its own classifier"):
        evaluate_run(run, EvalOptions(save_classifier=True))


def test_supervised_baseline_has_the_runs_encoder_views_and_steps(pretrained):
    before, plan = RunDir(pretrained).read_config()
    splits = Splits.from_config(before.data)
    settings = supervised_baseline_config(before, plan, splits)
    for section in ("augmentation", "encoder", "projection_head"):
        assert getattr(settings, section) == getattr(before, section)
    held_out = changed(before, data={"validation_fraction": 0.25})
    assert supervised_baseline_config(held_out, plan, splits).data.validation_fraction == 0
    # On other data too it has the run's number of steps, not its epochs.
    fewer = dataclasses.replace(splits, dataset="cifar10", train_split="train[:10%]")
    settings = supervised_baseline_config(before, plan, fewer)
    assert settings.optimization.train_steps == plan.total_steps
    assert (settings.data.dataset, settings.data.train_split) == ("cifar10", "train[:10%]")
    # They may have labels that the run does not use.
    unlabeled = changed(before, data={"labels": "none", "duplicates": "drop", "max_pixels": 9})
    reading = supervised_baseline_config(unlabeled, plan, splits).data.reading
    assert reading == before.data.reading


@pytest.mark.slow
def test_supervised_baseline_trains_in_the_run(pretrained, tmp_path):
    shutil.copytree(pretrained, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    before, plan = run.read_config()
    path = train_supervised_baseline(run, Splits.from_config(before.data))
    after, baseline_plan = RunDir(path).read_config()
    assert baseline_plan.total_steps == plan.total_steps
    assert baseline_plan.peak_learning_rate == plan.peak_learning_rate
    assert after.finetuning.views_per_image == 2
    assert int(simclr_tf.load(path).step) == plan.total_steps


def test_supervised_baselines_of_other_splits_lie_elsewhere():
    run = RunDir(Path("run"))
    assert run.supervised_dir("train") == Path("run/supervised/train")
    splits = ("train", "train[:50%]", "train[:50]", "train[50:]", "train+test", "train_test")
    assert len({run.supervised_dir(split) for split in splits}) == len(splits)
    assert all(run.supervised_dir(s).parent == Path("run/supervised") for s in splits)


@pytest.mark.parametrize(
    ("settings", "split", "message"),
    [
        ({"label_fraction": 0.01}, "train[:256]", "--label_fraction=0.01"),
        ({"labels_per_class": 5}, "train[:40]", "--labels_per_class=5"),
        (
            {"ft_proj_selector": 3},
            "train[:256]",
            "--ft_proj_selector=3: the projection head has no",
        ),
    ],
)
def test_mistakes_are_named_before_training(pretrained, tmp_path, settings, split, message):
    with pytest.raises(UserError, match=message):
        finetune(
            changed(finetune_config(pretrained, **settings), data={"train_split": split}), tmp_path
        )
    assert not (tmp_path / "metrics.jsonl").exists()


def test_start_needs_a_checkpoint_or_from_scratch_or_another_run(pretrained):
    with pytest.raises(UserError, match="--checkpoint is missing"):
        finetune_config("")
    with pytest.raises(UserError, match="exclude each other"):
        finetune_config(pretrained, from_scratch=True)
    with pytest.raises(UserError, match="the command"):
        finetune(finetune_config(pretrained), pretrained)


def test_checkpoint_of_another_architecture_is_refused(pretrained):
    task = FineTuneTask(changed(finetune_config(pretrained), encoder=WIDE))
    with pytest.raises(UserError, match="its encoder has other shapes"):
        task.load_initial_weights(build_model(task.config, PLAN))
