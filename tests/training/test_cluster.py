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

FLAGS = [*TINY, "--train_steps=50", "--checkpoint_steps=16", "--log_every=1"]

pytestmark = pytest.mark.slow


def finish_run(path) -> str:
    """Starts or resumes two workers to the end; returns the output of the chief."""
    chief, other = pretrain_on_workers(path, *FLAGS)
    status, output, errors = finish(chief)
    assert status == finish(other)[0] == 0, errors
    return output


def test_run_whose_workers_are_stopped_and_killed_ends_as_an_unbroken_one(tmp_path):
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    finish_run(unbroken)

    # Both workers stop at the same step.
    workers = pretrain_on_workers(run, *FLAGS)
    signal_at(workers[0], 3, signal.SIGTERM, to=workers[1])
    assert [finish(process)[0] for process in workers] == [143, 143]
    assert 3 <= last_checkpoint(run) == rows(run)[-1]["step"] < 16

    # When one is killed, the other one ends.
    for victim, step, saved in (0, 20, 16), (1, 36, 32):
        workers = pretrain_on_workers(run, *FLAGS)
        signal_at(workers[0], step, signal.SIGKILL, to=workers[victim])
        killed = time.monotonic()
        status, _, errors = finish(workers[1 - victim])
        assert time.monotonic() - killed < 60
        finish(workers[victim])
        assert status == 2, errors
        last = errors.splitlines()[-1]
        assert last.startswith("simclr-tf: error: lost another worker")
        assert "start all workers again" in last
        assert last_checkpoint(run) == saved

    assert "at step 32 of 50" in finish_run(run)
    assert [row["step"] for row in rows(run)] == [row["step"] for row in rows(unbroken)]
    for found, expected in zip(rows(run), rows(unbroken), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)


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
