"""Runs that are killed or interrupted, in this process and as a user's shell does it."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
import tf_keras as keras
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training import tasks
from tests.processes import ROOT, TINY, finish, last_checkpoint, pretrain, rows, signal_at
from tests.training import tiny


class SendSignal(keras.callbacks.Callback):
    """Sends this process a signal after a step."""

    def __init__(self, number: int, step: int):
        super().__init__()
        self._number, self._step = number, step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.step) == self._step:
            os.kill(os.getpid(), self._number)


def test_signal_ends_a_run_with_a_checkpoint_of_the_next_step(tmp_path):
    run = RunDir(tmp_path)
    for number, status, step in ((signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 6)):
        before = signal.getsignal(number)
        with pytest.raises(SystemExit) as ended:
            tasks.pretrain(tiny.TINY, tmp_path, callbacks=[SendSignal(number, step)])
        assert ended.value.code == status
        assert run.latest_step() == step + 1
        state = json.loads(run.state_file.read_text(encoding="utf-8"))
        assert state["state"] == "interrupted"
        assert signal.getsignal(number) == before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_run_saves_its_last_step(tmp_path, number, status):
    process = pretrain(tmp_path, *TINY, "--train_steps=5000", "--log_every=1")
    signal_at(process, 5, number)
    assert finish(process)[0] == status
    # The step that was finished when the signal came, or hardly a later one, and it is logged.
    assert 5 <= last_checkpoint(tmp_path) < 100
    assert last_checkpoint(tmp_path) == rows(tmp_path)[-1]["step"]


@pytest.mark.slow
def test_full_disk_does_not_harm_the_last_good_checkpoint(tmp_path):
    """Resumed under a limit to the size of files, below the checkpoint's: it fails as it saves."""
    flags = [*TINY, "--train_steps=20", "--checkpoint_steps=10"]
    process = pretrain(tmp_path, *flags)
    signal_at(process, 10, signal.SIGTERM)
    assert finish(process)[0] == 143
    good = last_checkpoint(tmp_path)
    command = shlex.join([sys.executable, "-m", "simclr_tf", "pretrain", *flags])
    limited = subprocess.run(
        ["bash", "-c", f"ulimit -f 100; exec {command} --model_dir={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert limited.returncode == 2, limited.stderr
    assert "cannot be written" in limited.stderr.splitlines()[-1]
    assert last_checkpoint(tmp_path) == good

    # A kill in mid-write leaves such a file, too, and no state that names it.
    (tmp_path / "checkpoints" / "step-19.data-00000-of-00001").write_bytes(b"cut")
    status, output, errors = finish(pretrain(tmp_path, *flags))
    assert status == 0, errors
    assert f"at step {good} of 20" in output
    assert last_checkpoint(tmp_path) == 20


@pytest.mark.slow
def test_killed_run_ends_as_an_unbroken_one(tmp_path):
    """SIGKILL in mid-epoch, at the quickstart's settings: the same loss to 1e-5 after 120 steps."""
    flags = ["--flagfile=flags/quickstart.flags", "--train_steps=120", "--log_every=15"]
    flags += ["--checkpoint_steps=50", "--knn_every_epochs=0"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    status, _, errors = finish(pretrain(whole, *flags))
    assert status == 0, errors

    process = pretrain(broken, *flags)
    signal_at(process, 90, signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    assert last_checkpoint(broken) == 50
    assert rows(broken)[-1]["step"] >= 90
    status, output, errors = finish(pretrain(broken, *flags))
    assert status == 0, errors
    assert "resuming" in output and "step 50 of 120" in output
    assert last_checkpoint(broken) == last_checkpoint(whole) == 120

    # TensorBoard does not show the steps after the checkpoint twice either.
    events = EventAccumulator(str(broken / "tensorboard"), {"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("loss")] == list(range(15, 121, 15))

    ours, theirs = rows(broken), rows(whole)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert our["loss"] == pytest.approx(their["loss"], rel=1e-5)
