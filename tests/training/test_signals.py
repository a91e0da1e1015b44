"""Runs that are killed or interrupted, in this process and as a user's shell does it."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from simclr_tf.runs.run_dir import RunDir, recorded_command
from simclr_tf.training import interruption, tasks
from simclr_tf.utils.signals import catch_signals
from tests.embedded_datasets import random_images
from tests.processes import ROOT, TINY, finish, last_checkpoint, pretrain, rows, signal_at
from tests.training import tiny


def test_run_that_a_signal_stops_saves_the_next_step_and_ends_as_an_unbroken_one(
    tmp_path, unbroken, log
):
    """The signal stops it in the middle of a logging interval and of an epoch."""
    run, before = RunDir(tmp_path), signal.getsignal(signal.SIGTERM)
    terminate = tiny.AtStep(6, lambda model: os.kill(os.getpid(), signal.SIGTERM))
    command = ["simclr-tf", "pretrain", "--dataset=folder:my photos"]
    with pytest.raises(SystemExit) as ended, recorded_command(command):
        tasks.pretrain(tiny.TINY, tmp_path, callbacks=[terminate])
    assert ended.value.code == 143
    assert any(line.startswith("SIGTERM: the run stops after this step") for line in log.messages)
    assert log.messages[-1] == (
        f"stopped: step 7 of 10 is saved in {tmp_path}. To resume, run the same command again: "
        "simclr-tf pretrain '--dataset=folder:my photos'"
    )
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
        noticed = []
        watch = catch_signals(lambda *signal: noticed.append(signal))
        with pytest.raises(KeyboardInterrupt), watch as received:
            os.kill(os.getpid(), signal.SIGINT)
            assert received == [signal.SIGINT]
            os.kill(os.getpid(), signal.SIGINT)
        assert noticed == [(signal.SIGINT, False), (signal.SIGINT, True)]
    finally:
        signal.signal(signal.SIGINT, previous)


def test_signal_is_noticed_before_the_main_thread_returns_to_python():
    """As in a step of TensorFlow: the hash takes minutes, without Python code."""
    code = """if True:
        import hashlib, os, signal, threading
        from simclr_tf.utils.signals import catch_signals
        with catch_signals(lambda number, is_repeated: os._exit(7)):
            threading.Timer(0.5, lambda: signal.raise_signal(signal.SIGINT)).start()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**30)
    """
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 7


class BlockedReads:
    """Replaces image files by named pipes, whose readers wait until they are replaced again."""

    def __init__(self, folder):
        self._files = {path: path.read_bytes() for path in sorted(folder.iterdir())}
        self._pipes = []

    def block(self):
        for path in self._files:
            pipe = path.with_suffix(".pipe")
            os.mkfifo(pipe)
            self._pipes.append(os.open(pipe, os.O_PATH))
            pipe.replace(path)

    def release(self):
        for path, contents in self._files.items():
            file = path.with_suffix(".new")
            file.write_bytes(contents)
            file.replace(path)
        while self._pipes:
            pipe = self._pipes.pop()
            with contextlib.suppress(OSError):  # no reader waits
                os.close(os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK))
            os.close(pipe)


def wait_until_steps_end(current_step):
    """Waits until the images that were read before they were blocked have been used."""
    step = -1
    while step < current_step():
        step = current_step()
        time.sleep(1)  # nothing signals that no step comes; a step takes milliseconds


@pytest.mark.slow
def test_run_without_images_stops_after_the_last_whole_step(tmp_path, log, monkeypatch):
    """The images are blocked in the middle of a run, which resumes as an unbroken one."""
    monkeypatch.setattr(interruption, "_PATIENCE", 0.5)
    tiny.write_images(tmp_path / "photos", random_images(64, 16))
    data = {"dataset": f"folder:{tmp_path / 'photos'}", "train_split": "train", "eval_split": ""}
    settings = tiny.changed(
        data=data,
        optimization={"train_batch_size": 8, "train_steps": 24},
        monitoring={"log_every": 1},
    )
    reads = BlockedReads(tmp_path / "photos")
    models = []

    def interrupt():
        wait_until_steps_end(lambda: int(models[0].step.numpy()))
        interrupted_at.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)
        if not stopped.wait(20):  # otherwise a run that does not stop would not end the test
            reads.release()

    def block(model):
        models.append(model)
        reads.block()
        threading.Thread(target=interrupt).start()

    interrupted_at, stopped, run = [], threading.Event(), RunDir(tmp_path / "run")
    try:
        with pytest.raises(SystemExit) as stop:
            tasks.pretrain(settings, run.path, callbacks=[tiny.AtStep(3, block)])
        assert time.monotonic() - interrupted_at[0] < 10
    finally:
        stopped.set()
        reads.release()
    step = int(models[0].step.numpy())
    assert stop.value.code == 143 and run.latest_step() == step < 24
    assert "note: the images of the next step did not arrive in time" in log.messages
    assert log.messages[-1].startswith(f"stopped: step {step} of 24 is saved in {run.path}. To")
    whole = tasks.pretrain(settings, tmp_path / "whole")
    tiny.assert_equal_variables(tasks.pretrain(settings, run.path), whole)


@pytest.mark.slow
def test_command_ends_while_reads_are_blocked(tmp_path):
    tiny.write_images(tmp_path / "photos", random_images(64, 16))
    reads = BlockedReads(tmp_path / "photos")
    data = (f"--dataset=folder:{tmp_path / 'photos'}", "--train_split=train", "--warmup_epochs=0")
    run, steps = tmp_path / "my run", ("--train_steps=100000", "--train_batch_size=8")
    steps += ("--log_every=1",)
    process = pretrain(run, *TINY, *data, *steps)
    try:
        for line in process.stdout:
            if line.startswith("step 10/"):
                break
        reads.block()
        wait_until_steps_end(lambda: rows(run)[-1]["step"])
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        status, output, _ = finish(process)
        assert time.monotonic() - began < 10
    finally:
        process.kill()
        reads.release()
    assert status == 130
    assert "Ctrl-C: the run stops after this step" in output
    assert "note: the images of the next step did not arrive in time" in output
    last = output.splitlines()[-1]
    assert last.startswith(f"stopped: step {last_checkpoint(run)} of 100000 is saved in {run}. To")
    assert f"'--model_dir={run}'" in last


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
