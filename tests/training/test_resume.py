"""Resumed runs: equal to unbroken ones, or refused with the setting that differs."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

import simclr_tf
from simclr_tf.data.base import ArraySource
from simclr_tf.errors import UserError
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext
from simclr_tf.training.schedule import check_same_sharding
from simclr_tf.training.tasks import pretrain
from tests.optional import needs
from tests.processes import rows
from tests.training.tiny import (
    PLAN,
    TINY,
    WATCHED,
    CallbackError,
    RaiseAt,
    assert_equal_variables,
    changed,
    reproducible_rows,
)


def assert_resumed_equals_unbroken(config, broken, unbroken_model, unbroken_run, log):
    """Breaks a run at step 7, in the middle of a logging interval and of an epoch."""
    with pytest.raises(CallbackError):
        pretrain(config, broken, callbacks=[RaiseAt(7)])
    assert RunDir(broken).latest_step() == 7
    assert "The run is saved at step 7" in log.messages
    log.clear()
    resumed = pretrain(config, broken)
    assert any("resuming" in line and "step 7 of 10" in line for line in log.messages)
    assert_equal_variables(resumed, unbroken_model)
    for row, unbroken_row in zip(
        reproducible_rows(broken), reproducible_rows(unbroken_run), strict=True
    ):
        for name in row.keys() & unbroken_row.keys():
            assert row[name] == unbroken_row[name], name


def test_run_that_a_callback_broke_resumes_as_an_unbroken_one(tmp_path, unbroken, log):
    assert_resumed_equals_unbroken(TINY, tmp_path, *unbroken, log)


@pytest.mark.slow
@needs("tensorflow_addons")
def test_resumed_run_with_lamb_in_float16_equals_an_unbroken_one(tmp_path, log):
    lamb = {"optimizer": "lamb", "learning_rate": 0.01, "weight_decay": 0.1}
    config = changed(optimization={**lamb, "precision": "float16"})
    whole = pretrain(config, tmp_path / "whole")
    assert_resumed_equals_unbroken(config, tmp_path / "broken", whole, tmp_path / "whole", log)


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
@pytest.mark.parametrize(("probed", "replicas"), [(False, 1), (True, 1), (False, 2)])
def test_undecodable_image_is_named_and_the_run_resumes_without_it(
    tmp_path, mirrored, probed, replicas, log
):
    draw = np.random.default_rng(0)
    for i in range(40):
        folder = tmp_path / "photos" / f"kind{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    victim = tmp_path / "photos" / "kind1" / "17.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:2000])  # the header is right
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
