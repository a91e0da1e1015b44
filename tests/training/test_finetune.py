"""Fine-tuning on the built-in shapes: labels, initial weights, resuming."""

import csv
import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import simclr_tf
from simclr_tf import config
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
    finetune,
    shrink_batch,
    supervised_baseline_config,
    train_supervised_baseline,
)
from tests.processes import rows
from tests.training.tiny import (
    WIDE,
    CallbackError,
    RaiseAt,
    assert_equal_variables,
    changed,
    finetune_config,
    reproducible_rows,
)

HALF = {"label_fraction": 0.5, "ft_proj_selector": 1}


@pytest.fixture(scope="module")
def pretrained(unbroken) -> Path:
    return unbroken[1]


@pytest.fixture(scope="module")
def half_labeled(pretrained, tmp_path_factory):
    """(model, run directory) of a run with half of the labels."""
    path = tmp_path_factory.mktemp("half") / "run"
    return finetune(finetune_config(pretrained, **HALF), path), path


def read_labeled(run: Path) -> list[tuple[str, str]]:
    with (run / "labelled.csv").open(encoding="utf-8", newline="") as file:
        return [(row["id"], row["class"]) for row in csv.DictReader(file)]


def test_labels_are_sampled_class_by_class_and_listed(pretrained, half_labeled, tmp_path):
    model = finetune(
        finetune_config(
            pretrained, steps=1, label_fraction=0.1, ft_proj_selector=1, fine_tune_after_block=4
        ),
        tmp_path,
    )
    tenth, half = read_labeled(tmp_path), read_labeled(half_labeled[1])
    # Of train[:256] six classes have 26 images and four have 25.
    assert set(Counter(name for _, name in tenth).values()) <= {2, 3}
    assert set(Counter(name for _, name in half).values()) <= {12, 13}
    assert set(tenth) < set(half)
    source = simclr_tf.data.open_source("shapes", "train[:256]")
    for image, name in half:
        split, _, position = image.partition("/")
        assert split == "train" and source.class_names[source.labels()[int(position)]] == name
    assert RunDir(tmp_path).read_config()[1].num_examples == len(tenth)

    # Everything but the new head is frozen: the encoder and the head's first layer are the run's.
    original = simclr_tf.load(pretrained)
    assert_equal_variables(model.encoder, original.encoder)
    wanted = truncate_projection_head(original.projection_head, 1).get_weights()
    for weights, expected in zip(model.projection.get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(weights, expected)


def test_listed_images_of_a_folder_are_the_training_images(pretrained, tmp_path):
    shapes = simclr_tf.data.open_source("shapes", "train[:80]")
    for i, (image, label) in enumerate(zip(shapes.images, shapes.labels(), strict=False)):
        place = tmp_path / "photos" / ("=round" if label < 5 else "other")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i}.png")
    photos = {"dataset": f"folder:{tmp_path / 'photos'}", "train_split": "train[10:]"}
    settings = finetune_config(pretrained, steps=1, label_fraction=0.6)
    finetune(changed(settings, data=photos | {"validation_fraction": 0.25}), tmp_path / "run")
    with (tmp_path / "run" / "labelled.csv").open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    files = [row["id"].removeprefix("'") for row in listed]
    assert all((tmp_path / "photos" / file).is_file() for file in files)
    classes = [row["class"].removeprefix("'") for row in listed]
    assert classes == [file.partition("/")[0] for file in files]
    assert len(files) == RunDir(tmp_path / "run").read_config()[1].num_examples
    source = simclr_tf.data.open_source(*photos.values(), storage_size=24)
    rest, held_out = source.holdout(0.25, 0)
    assert set(files) <= set(rest.image_ids(np.arange(rest.num_examples)))
    assert not set(files) & set(held_out.image_ids(np.arange(held_out.num_examples)))


def test_shrunk_batch_is_a_multiple_of_the_replicas(pretrained):
    def shrunk(count, replicas):
        settings = shrink_batch(finetune_config(pretrained), count, replicas)
        return settings.optimization.train_batch_size

    assert [shrunk(n, 4) for n in (15, 16, 100)] == [12, 16, 16]
    assert shrunk(3, 4) == 16  # too few: refused where the plan is made


def test_zero_initialized_head_is_zero(pretrained):
    plan = config.TrainingPlan(256, 10, 6, 0, 8.0, 0.1)
    for zero in (True, False):
        model = build_model(
            finetune_config(pretrained, zero_init_logits_layer=zero).resolve(), plan
        )
        assert (not np.any(model.head.kernel.numpy())) == zero


def test_resumed_run_equals_an_unbroken_one(pretrained, half_labeled, tmp_path):
    whole, path = half_labeled
    with pytest.raises(CallbackError):
        finetune(finetune_config(pretrained, **HALF), tmp_path, callbacks=[RaiseAt(3)])
    assert RunDir(tmp_path).latest_step() == 3
    assert_equal_variables(finetune(finetune_config(pretrained, **HALF), tmp_path), whole)
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
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "1.png")
    others = {"dataset": f"folder:{tmp_path / 'photos'}", "eval_split": "train"}
    with pytest.raises(UserError, match="its classes differ from those of the classifier"):
        evaluate_classifier(run, data=others | {"train_split": "train"})
    with pytest.raises(UserError, match="exports its own classifier"):
        evaluate_run(run, EvalOptions(save_classifier=True))


def test_supervised_baseline_has_the_runs_encoder_views_and_steps(pretrained):
    run = RunDir(pretrained)
    before, plan = run.read_config()
    splits = Splits.from_config(before.data)
    settings = supervised_baseline_config(before, plan, splits)
    for section in ("augmentation", "encoder", "projection_head"):
        assert getattr(settings, section) == getattr(before, section)
    held_out = changed(before, data={"validation_fraction": 0.25})
    assert supervised_baseline_config(held_out, plan, splits).data.validation_fraction == 0
    # On other splits too it has the run's number of steps, not its epochs.
    fewer = dataclasses.replace(splits, train_split="train[:10%]")
    assert (
        supervised_baseline_config(before, plan, fewer).optimization.train_steps == plan.total_steps
    )


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
    ("settings", "message"),
    [
        ({"label_fraction": 0.01}, "--label_fraction=0.01"),
        ({"labels_per_class": 30}, "--labels_per_class=30"),
        ({"ft_proj_selector": 3}, "--ft_proj_selector=3: the projection head has no layer 3"),
        ({"split": "train[:40]", "labels_per_class": 5}, "--labels_per_class=5"),
    ],
)
def test_mistakes_are_named_before_training(pretrained, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        finetune(finetune_config(pretrained, **settings), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_start_needs_a_checkpoint_or_from_scratch(pretrained):
    with pytest.raises(UserError, match="--checkpoint is missing"):
        finetune_config("")
    with pytest.raises(UserError, match="exclude each other"):
        finetune_config(pretrained, from_scratch=True)


def test_finetuning_refuses_the_directory_of_a_pretrained_run(pretrained):
    with pytest.raises(UserError, match="the command"):
        finetune(finetune_config(pretrained), pretrained)


def test_checkpoint_of_another_architecture_is_refused(pretrained, tmp_path):
    other = changed(finetune_config(pretrained), encoder=WIDE)
    with pytest.raises(UserError, match="its encoder has other shapes"):
        finetune(other, tmp_path)
