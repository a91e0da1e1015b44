"""Runs on two worker processes on this machine that are stopped or killed."""

import signal
import time

import pytest

from tests.processes import (
    TINY,
    finish,
    free_workers,
    last_checkpoint,
    pretrain,
    pretrain_on_workers,
    rows,
    signal_at,
)

FLAGS = [*TINY, "--train_steps=30", "--checkpoint_steps=8", "--log_every=1"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The metrics of a run of two workers without interruption."""
    path = tmp_path_factory.mktemp("cluster") / "whole"
    for process in pretrain_on_workers(path, *FLAGS):
        status, _, errors = finish(process)
        assert status == 0, errors
    return rows(path)


def resume(path, unbroken):
    """Resumes to the end, which is that of the unbroken run."""
    start = last_checkpoint(path)
    chief, other = pretrain_on_workers(path, *FLAGS)
    status, output, errors = finish(chief)
    assert status == 0, errors
    assert finish(other)[0] == 0
    assert f"at step {start} of 30" in output
    found = rows(path)
    assert [row["step"] for row in found] == [row["step"] for row in unbroken]
    for ours, theirs in zip(found, unbroken, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


@pytest.mark.parametrize("victim", [0, 1])
def test_workers_stop_at_the_same_step(tmp_path, unbroken, victim):
    workers = pretrain_on_workers(tmp_path, *FLAGS)
    signal_at(workers[0], 12, signal.SIGTERM, to=workers[victim])
    assert [finish(process)[0] for process in workers] == [143, 143]
    assert 12 <= last_checkpoint(tmp_path) < 30
    assert last_checkpoint(tmp_path) == rows(tmp_path)[-1]["step"]
    if victim:
        resume(tmp_path, unbroken)


@pytest.mark.parametrize("victim", [0, 1])
def test_other_worker_ends_when_one_is_killed(tmp_path, unbroken, victim):
    workers = pretrain_on_workers(tmp_path, *FLAGS)
    signal_at(workers[0], 12, signal.SIGKILL, to=workers[victim])
    killed = time.monotonic()
    status, _, errors = finish(workers[1 - victim])
    assert time.monotonic() - killed < 60
    finish(workers[victim])
    assert status == 2, errors
    last = errors.splitlines()[-1]
    assert last.startswith("simclr-tf: error: lost another worker")
    assert "start all workers again" in last
    assert last_checkpoint(tmp_path) == 8
    if victim:
        resume(tmp_path, unbroken)


def test_workers_with_different_settings_are_refused(tmp_path):
    workers = f"--workers={free_workers(2)}"
    pair = [
        pretrain(
            tmp_path, *FLAGS, workers, f"--worker_index={index}", f"--proj_out_dim={16 + index}"
        )
        for index in range(2)
    ]
    for process in pair:
        status, _, errors = finish(process)
        assert status == 2
        assert "the workers differ in their settings" in errors
