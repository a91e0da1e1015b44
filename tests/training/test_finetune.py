"""Fine-tuning in this process on the built-in shapes: labels, weights taken over, resuming."""

import csv
import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import simclr_tf
from simclr_tf import config
from simclr_tf.errors import UserError
from simclr_tf.evaluation import read_evaluations
from simclr_tf.evaluation.evaluate import evaluate_classifier, evaluate_run
from simclr_tf.evaluation.options import EvalOptions
from simclr_tf.evaluation.splits import Splits
from simclr_tf.models.classifier import truncate_projection_head
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.tasks import (
    finetune,
    shrink_batch,
    supervised_baseline_config,
    train_supervised_baseline,
)
from tests.processes import rows
from tests.training.tiny import (
    CallbackError,
    RaiseAt,
    assert_equal_variables,
    changed,
    finetune_config,
    reproducible_rows,
)


@pytest.fixture
def pretrained(unbroken) -> Path:
    return unbroken[1]


def test_labels_are_chosen_class_by_class_and_listed(pretrained, tmp_path):
    chosen = {}
    for share in (0.1, 0.5):
        place = tmp_path / str(share)
        finetune(finetune_config(pretrained, steps=1, label_fraction=share), place)
        with (place / "labelled.csv").open(encoding="utf-8", newline="") as file:
            chosen[share] = [(r["id"], r["class"]) for r in csv.DictReader(file)]
    # Of train[:256] six classes have 26 images and four have 25.
    assert set(Counter(name for _, name in chosen[0.1]).values()) <= {2, 3}
    assert set(Counter(name for _, name in chosen[0.5]).values()) <= {12, 13}
    assert set(chosen[0.1]) < set(chosen[0.5])
    labels = simclr_tf.data.open_source("shapes", "train[:256]").labels()
    names = simclr_tf.data.open_source("shapes", "train[:256]").class_names
    for image, name in chosen[0.5]:
        split, _, position = image.partition("/")
        assert split == "train" and names[labels[int(position)]] == name
    plan = RunDir(tmp_path / "0.1").read_config()[1]
    assert plan.num_examples == len(chosen[0.1])


def test_listed_images_are_those_of_the_folder_that_were_learnt_from(pretrained, tmp_path):
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


def test_a_batch_that_shrinks_divides_among_the_replicas(pretrained):
    def shrunk(count, replicas):
        settings = shrink_batch(finetune_config(pretrained), count, replicas)
        return settings.optimization.train_batch_size

    assert [shrunk(n, 4) for n in (15, 16, 100)] == [12, 16, 16]
    assert shrunk(3, 4) == 16  # too few: refused where the plan is made


def test_starts_from_the_encoder_and_the_first_layers_of_the_head(pretrained, tmp_path):
    source = simclr_tf.load(pretrained)
    settings = finetune_config(pretrained, steps=1, ft_proj_selector=1, fine_tune_after_block=4)
    model = finetune(settings, tmp_path)
    for ours, theirs in zip(model.encoder.variables, source.encoder.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.name)
    wanted = truncate_projection_head(source.projection_head, 1).get_weights()
    for ours, theirs in zip(model.projection.get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_zero_initialised_head_is_zero(pretrained, tmp_path):
    from simclr_tf.models.build import build_model

    plan = config.TrainingPlan(256, 10, 6, 0, 8.0, 0.1)
    for zero in (True, False):
        model = build_model(
            finetune_config(pretrained, zero_init_logits_layer=zero).resolve(), plan
        )
        assert (not np.any(model.head.kernel.numpy())) == zero


def test_resumed_run_equals_an_unbroken_one(pretrained, tmp_path):
    settings = finetune_config(pretrained, label_fraction=0.5, ft_proj_selector=1)
    whole = finetune(settings, tmp_path / "whole")
    with pytest.raises(CallbackError):
        finetune(settings, tmp_path / "broken", callbacks=[RaiseAt(3)])
    assert RunDir(tmp_path / "broken").latest_step() == 3
    resumed = finetune(settings, tmp_path / "broken")
    assert_equal_variables(resumed, whole)
    assert reproducible_rows(tmp_path / "broken") == reproducible_rows(tmp_path / "whole")
    with pytest.raises(UserError, match="--label_fraction"):
        finetune(
            finetune_config(pretrained, label_fraction=0.25, ft_proj_selector=1),
            tmp_path / "broken",
        )


def test_learns_and_is_measured(pretrained, tmp_path):
    model = finetune(finetune_config(pretrained, steps=40), tmp_path)
    evaluate_classifier(tmp_path, say=lambda line: None)
    (record,) = json.loads((tmp_path / "evaluations.json").read_text(encoding="utf-8"))
    assert record["protocol"] == "finetune" and record["num_train"] == 256
    test = simclr_tf.data.open_source("shapes", "test[:64]")
    images = tf.cast(test._images[test.rows], tf.float32) / 255.0
    from simclr_tf.augment import eval_transform

    logits = simclr_tf.load(tmp_path)(eval_transform(images, 16), training=False).numpy()
    assert record["top1"] == pytest.approx(np.mean(logits.argmax(1) == test.labels()))
    evaluate_classifier(tmp_path, data={"eval_split": "test[:20]"})
    assert read_evaluations(tmp_path / "evaluations.json")[-1]["num_test"] == 20
    for name in ("cat", "dog"):
        place = tmp_path / "photos" / name
        place.mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(place / "1.png")
    others = {"dataset": f"folder:{tmp_path / 'photos'}", "eval_split": "train"}
    with pytest.raises(UserError, match="has other classes"):
        evaluate_classifier(tmp_path, data=others | {"train_split": "train"})
    with pytest.raises(UserError, match="exports its own classifier"):
        evaluate_run(tmp_path, EvalOptions(save_classifier=True))
    assert rows(tmp_path)[-1]["loss"] < rows(tmp_path)[0]["loss"]
    assert {"loss", "accuracy"} <= set(rows(tmp_path)[-1])
    assert int(model.step) == 40


def test_supervised_baseline_has_the_runs_encoder_views_and_steps(pretrained):
    run = RunDir(pretrained)
    before, plan = run.read_config()
    splits = Splits.from_config(before.data)
    settings = supervised_baseline_config(before, plan, splits)
    for section in ("augmentation", "encoder", "projection_head"):
        assert getattr(settings, section) == getattr(before, section)
    # On other splits too it has the run's number of steps, not its epochs.
    fewer = dataclasses.replace(splits, train_split="train[:10%]")
    assert (
        supervised_baseline_config(before, plan, fewer).optimization.train_steps == plan.total_steps
    )
    place = train_supervised_baseline(run, splits)
    after, its_plan = RunDir(place).read_config()
    assert its_plan.total_steps == plan.total_steps
    assert its_plan.peak_learning_rate == plan.peak_learning_rate
    assert after.finetuning.views_per_image == 2
    assert int(simclr_tf.load(place).step) == plan.total_steps


def test_supervised_baselines_of_other_splits_lie_elsewhere():
    run = RunDir(Path("run"))
    assert run.supervised_dir("train") == Path("run/supervised/train")
    splits = ("train", "train[:50%]", "train[:50]", "train[50:]", "train+test", "train_test")
    assert len({run.supervised_dir(split) for split in splits}) == len(splits)
    assert all(run.supervised_dir(s).parent == Path("run/supervised") for s in splits)


def test_supervised_baseline_learns_from_what_pretraining_held_out(pretrained):
    before, plan = RunDir(pretrained).read_config()
    held = changed(before, data={"validation_fraction": 0.25})
    assert (
        supervised_baseline_config(
            held, plan, Splits.from_config(held.data)
        ).data.validation_fraction
        == 0
    )


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


def test_a_start_is_named_or_renounced(pretrained):
    with pytest.raises(UserError, match="--checkpoint is missing"):
        finetune_config("")
    with pytest.raises(UserError, match="exclude each other"):
        finetune_config(pretrained, from_scratch=True)


def test_a_pretrained_run_is_no_place_for_fine_tuning(pretrained):
    with pytest.raises(UserError, match="the command"):
        finetune(finetune_config(pretrained), pretrained)


def test_other_architecture_is_refused(pretrained, tmp_path):
    other = finetune_config(pretrained)
    other = dataclasses.replace(other, encoder=dataclasses.replace(other.encoder, resnet_depth=34))
    with pytest.raises(UserError, match="its encoder has other shapes"):
        finetune(other, tmp_path)
