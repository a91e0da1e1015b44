"""Runs that are killed or interrupted, in this process and as a user's shell does it."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training import tasks
from simclr_tf.training.interruption import catch_signals
from tests.processes import ROOT, TINY, finish, last_checkpoint, pretrain, rows, signal_at
from tests.training import tiny


def test_run_that_a_signal_stops_saves_the_next_step_and_ends_as_an_unbroken_one(
    tmp_path, unbroken, log
):
    """The signal stops it in the middle of a logging interval and of an epoch."""
    run, before = RunDir(tmp_path), signal.getsignal(signal.SIGTERM)
    terminate = tiny.AtStep(6, lambda model: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        tasks.pretrain(tiny.TINY, tmp_path, callbacks=[terminate])
    assert ended.value.code == 143
    assert run.latest_step() == 7
    assert json.loads(run.state_file.read_text(encoding="utf-8"))["state"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) == before
    log.clear()
    tiny.assert_equal_variables(tasks.pretrain(tiny.TINY, tmp_path), unbroken[0])
    assert any("resuming" in line and "step 7 of 10" in line for line in log.messages)
    assert tiny.reproducible_rows(tmp_path) == tiny.reproducible_rows(unbroken[1])


def test_first_signal_is_caught_and_a_second_one_interrupts():
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), catch_signals() as received:
            os.kill(os.getpid(), signal.SIGINT)
            assert received == [signal.SIGINT]
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.slow
def test_processes_that_end_in_any_way_leave_a_run_that_ends_as_an_unbroken_one(tmp_path):
    flags = [*TINY, "--train_steps=100", "--checkpoint_steps=40"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    status, _, errors = finish(pretrain(whole, *flags))
    assert status == 0, errors

    # Ctrl-C saves the step that was finished when the signal came, or hardly a later one.
    process = pretrain(broken, *flags)
    signal_at(process, 10, signal.SIGINT)
    assert finish(process)[0] == 130
    assert 10 <= last_checkpoint(broken) < 40

    # SIGKILL in mid-epoch.
    process = pretrain(broken, *flags)
    signal_at(process, 55, signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    assert last_checkpoint(broken) == 40
    assert rows(broken)[-1]["step"] >= 55

    # A full disk: under a limit to the size of files, below the checkpoint's, it fails as it saves.
    command = shlex.join([sys.executable, "-m", "simclr_tf", "pretrain", *flags])
    limited = subprocess.run(
        ["bash", "-c", f"ulimit -f 100; exec {command} --model_dir={broken}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert limited.returncode == 2, limited.stderr
    assert "cannot be written" in limited.stderr.splitlines()[-1]
    assert last_checkpoint(broken) == 40

    # A kill in mid-write leaves such a file, too, and no state that names it.
    (broken / "checkpoints" / "step-79.data-00000-of-00001").write_bytes(b"cut")
    status, output, errors = finish(pretrain(broken, *flags))
    assert status == 0, errors
    assert "resuming" in output and "step 40 of 100" in output
    assert last_checkpoint(broken) == last_checkpoint(whole) == 100

    # TensorBoard does not show the steps after the checkpoint twice either.
    events = EventAccumulator(str(broken / "tensorboard"), {"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("loss")] == [row["step"] for row in rows(broken)]
    for found, expected in zip(rows(broken), rows(whole), strict=True):
        assert found["step"] == expected["step"]
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
