"""Runs that are resumed, or refused before anything is trained or written."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

import simclr_tf
from simclr_tf.data.base import ArraySource
from simclr_tf.errors import UserError
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext
from simclr_tf.training.schedule import check_same_sharding
from simclr_tf.training.tasks import PretrainTask, pretrain
from tests.optional import needs
from tests.processes import rows
from tests.training.tiny import (
    PLAN,
    TINY,
    WATCHED,
    WIDE,
    AtStep,
    CallbackError,
    assert_equal_variables,
    changed,
    raise_error,
    reproducible_rows,
    write_images,
)


@pytest.mark.slow
@needs("tensorflow_addons")
def test_resumed_run_with_lamb_in_float16_equals_an_unbroken_one(tmp_path):
    lamb = {"optimizer": "lamb", "learning_rate": 0.01, "weight_decay": 0.1}
    config = changed(optimization={**lamb, "precision": "float16"})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    model = pretrain(config, whole)
    with pytest.raises(CallbackError):
        pretrain(config, broken, callbacks=[AtStep(7, raise_error)])
    assert_equal_variables(pretrain(config, broken), model)
    assert reproducible_rows(broken) == reproducible_rows(whole)


def test_statistics_per_replica_need_the_same_number_of_replicas(tmp_path):
    run, local = RunDir(tmp_path), changed(encoder={"global_bn": False})
    run.write_config(local, PLAN)
    two = dataclasses.replace(PLAN, num_replicas=2)
    with pytest.raises(UserError, match=r"--global_bn \(was False, now True\)"):
        run.check_resumable(TINY, PLAN)
    with pytest.raises(UserError, match=r"the number of replicas \(was 1, now 2\)"):
        run.check_resumable(local, two)
    run.write_config(TINY, PLAN)
    run.check_resumable(TINY, two)


def test_files_sharded_over_workers_need_as_many_workers(tmp_path):
    class Sharded(ArraySource):
        def shard_by_file(self, num_workers, worker_index):
            return self

    run = RunDir(tmp_path)
    run.write_config(TINY, dataclasses.replace(PLAN, num_workers=2))
    images = np.zeros((4, 8, 8, 3), np.uint8)
    records, files = ArraySource("it", images), Sharded("it", images)
    check_same_sharding(run, PLAN, records)
    check_same_sharding(run, dataclasses.replace(PLAN, num_workers=2), files)
    with pytest.raises(UserError, match="trained by 2 workers, now there are 1, and the files of"):
        check_same_sharding(run, PLAN, files)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("projection_head", "proj_out_dim", 8),
        ("optimization", "train_batch_size", 64),
        ("contrastive_loss", "temperature", 0.5),
    ],
)
def test_resuming_with_other_settings_is_refused_by_name(watched_run, section, field, value):
    with pytest.raises(UserError, match=f"--{field} "):
        pretrain(changed(WATCHED, **{section: {field: value}}), watched_run)


def test_changed_number_of_images_or_classes_is_refused(watched_run):
    config, plan = RunDir(watched_run).read_config()
    for field, name in ("num_examples", "images"), ("num_classes", "classes"):
        with pytest.raises(UserError, match=rf"the number of {name} \(was .*, now 3\)"):
            RunDir(watched_run).check_resumable(config, dataclasses.replace(plan, **{field: 3}))


def test_checkpoints_that_no_state_file_names_are_not_overwritten(watched_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(watched_run, copy)
    (copy / "checkpoints" / "checkpoint").unlink()
    with pytest.raises(UserError, match='model_checkpoint_path: "step-12"'):
        pretrain(WATCHED, copy)
    assert (copy / "metrics.jsonl").read_bytes() == (watched_run / "metrics.jsonl").read_bytes()
    (copy / "checkpoints" / "checkpoint").write_text('model_checkpoint_path: "step-10"')
    assert int(simclr_tf.load(copy).step) == 10


@pytest.mark.slow
@pytest.mark.parametrize(("probed", "replicas"), [(True, 1), (False, 2)])
def test_undecodable_image_is_named_and_the_run_resumes_without_it(
    tmp_path, mirrored, probed, replicas, log
):
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        images = draw.integers(0, 256, (20, 40, 40, 3), dtype=np.uint8)
        write_images(tmp_path / "photos" / name, images)
    victim = tmp_path / "photos" / "b" / "17.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:2000] + whole[-12:])  # header and end are right
    # Either training finds it, or the probe, after a step on the first 16 images.
    photos = f"folder:{tmp_path / 'photos'}"
    train_split = "train[:16]" if probed else "train"
    settings = changed(
        data={"dataset": photos, "train_split": train_split, "eval_split": "train[:4]"},
        optimization={"train_batch_size": 8, "train_steps": 5},
        monitoring={"log_every": 5},
    )
    if probed:
        settings = changed(settings, monitoring={"probe_dataset": photos, "knn_every_epochs": 1.0})
    run = tmp_path / "run"
    with pytest.raises(UserError, match=str(victim)) as raised:
        pretrain(settings, run, DistributionContext(mirrored(2)) if replicas == 2 else None)
    saved = int(simclr_tf.load(run).step)
    assert f"saved at step {saved}" in str(raised.value)
    if probed:
        assert [row["step"] for row in rows(run)] == [saved] == [2]

    victim.write_bytes(whole)
    model = pretrain(settings, run)
    assert any(f"at step {saved} of 5" in line for line in log.messages)
    assert int(model.step) == 5
    assert rows(run)[-1]["step"] == 5


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"optimization": {"train_batch_size": 512}}, "--train_batch_size=512: expected at most"),
        (
            {"optimization": {"train_epochs": 0.01, "train_steps": 0}},
            "--train_epochs=0.01: expected at least one step, got 2.56 images",
        ),
        ({"data": {"train_split": "trian"}}, "train"),
        (
            {"optimization": {"microbatch_size": 12}},
            "--microbatch_size=12: expected a divisor of the 32",
        ),
        (
            {"optimization": {"microbatch_size": 16}, "augmentation": {"policy": "randaugment"}},
            "--microbatch_size=16: microbatches compute every view",
        ),
    ],
)
def test_mistakes_are_named_before_anything_is_written(tmp_path, sections, message):
    with pytest.raises(UserError, match=message):
        pretrain(changed(**sections), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_url_is_no_run_directory():
    with pytest.raises(UserError, match="--model_dir=gs://bucket/run: expected a directory"):
        pretrain(TINY, "gs://bucket/run")


def test_checkpoint_of_another_architecture_is_refused(watched_run, tmp_path):
    for encoder, checkpoint, message in (
        (WIDE, watched_run, r"--checkpoint=.*encoder has other shapes\. Fix: "),
        ({}, tmp_path / "nothing", "holds no run"),
    ):
        settings = changed(encoder=encoder, checkpoints={"checkpoint": str(checkpoint)})
        with pytest.raises(UserError, match=message):
            pretrain(settings, tmp_path / "new")
        assert not (tmp_path / "new").exists()


def store_dataset(path: Path, name: str, label: str, feature: object, labels: object) -> dict:
    """Data settings of a new TFDS dataset of 16 images, with labels(i) for image i."""
    draw = np.random.default_rng(0)
    examples = [
        (i, {"image": draw.integers(0, 256, (16, 16, 3), np.uint8), label: labels(i)})
        for i in range(16)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(16, 16, 3)), label: feature}
        ),
        split_datasets={"train": examples, "test": examples[:8]},
        data_dir=path,
    )
    return {"dataset": name, "data_dir": str(path), "train_split": "train", "eval_split": "test"}


NAMES = tfds.features.ClassLabel(names=list("abcd"))


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> dict:
    """Data settings of a dataset whose images have several labels each."""
    names = tfds.features.Sequence(NAMES)
    path = tmp_path_factory.mktemp("tfds")
    return store_dataset(path, "several", "labels", names, lambda i: [i % 3, 3])


@pytest.mark.parametrize("probe_dataset", ["", "several"])
def test_probes_of_several_labels_per_image_are_refused(tmp_path, several, probe_dataset):
    data = {**several, "dataset": "shapes"} if probe_dataset else several
    settings = changed(
        data=data,
        optimization={"train_batch_size": 4},
        monitoring={"knn_every_epochs": 1.0, "probe_dataset": probe_dataset},
    )
    message = "--knn_every_epochs: expected .* several t.* several labels per image.* --probe_dat"
    with pytest.raises(UserError, match=message):
        pretrain(settings, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_probes_use_their_own_splits(tmp_path, log):
    splits = {"probe_train_split": "train[:40]", "probe_eval_split": "test[:20]"}
    settings = changed(
        data={"eval_split": "validation"}, monitoring={"knn_every_epochs": 1.0, **splits}
    )
    run = RunDir(tmp_path)
    task = PretrainTask(settings)
    task.open_data()
    (probe,) = task.evaluators(PLAN, run)
    assert probe.steps == 8
    assert log.messages == [
        "probes: fitted to 40 images of shapes train[:40], tested on 20 of shapes test[:20]"
    ]
    wrong = changed(settings, monitoring={"probe_eval_split": "", "probe_dataset": "shapes"})
    message = r"probes \(.*--probe_eval_split\): --dataset=shapes has no split 'validation'"
    task = PretrainTask(wrong)
    task.open_data()
    with pytest.raises(UserError, match=message):
        task.evaluators(PLAN, run)


@pytest.mark.slow
def test_images_of_several_labels_train_without_a_linear_head(tmp_path, several, log):
    settings = changed(data=several, optimization={"train_batch_size": 4, "train_steps": 2})
    model = pretrain(settings, tmp_path)
    assert model.linear_head is None and int(model.step) == 2
    last = rows(tmp_path)[-1]
    assert np.isfinite(last["loss"]) and "linear_accuracy" not in last
    (note,) = [line for line in log.messages if "--lineareval_while_pretraining" in line]
    assert note.startswith("note: the images of several train have several labels each")
    assert any("several train, several labels per image; " in line for line in log.messages)
    assert simclr_tf.load(tmp_path).linear_head is None


def test_supcon_without_one_label_per_image_is_refused(tmp_path, several):
    write_images(tmp_path / "photos", np.zeros((4, 40, 40, 3), np.uint8))
    unlabeled = store_dataset(tmp_path / "tfds", "unlabeled", "label", NAMES, lambda i: -1)
    for data, problem in (
        ({"dataset": f"folder:{tmp_path / 'photos'}", "train_split": "train"}, "no labels"),
        (several, "several labels per image"),
        (unlabeled, "no image with a label"),
    ):
        settings = changed(
            data=data, contrastive_loss={"loss": "supcon"}, optimization={"train_batch_size": 4}
        )
        message = f"--loss=supcon: expected one label per image, .* has {problem}"
        with pytest.raises(UserError, match=message):
            pretrain(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
