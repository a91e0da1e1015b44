"""What happens to a run that is killed or interrupted, as a user's shell does it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    *("--dataset=shapes", "--train_split=train[:512]", "--image_size=16", "--resnet_depth=18"),
    *("--width_multiplier=0.0625", "--use_blur=False", "--num_proj_layers=2", "--proj_out_dim=16"),
    *("--optimizer=momentum", "--learning_rate=0.1", "--warmup_epochs=1", "--log_every=5"),
]


def start(model_dir: Path, *flags: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "simclr_tf", "pretrain", f"--model_dir={model_dir}", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def kill_at(process: subprocess.Popen, step: int, number: int) -> int:
    """Sends a signal when the line of a step appears; returns the exit status."""
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            process.send_signal(number)
            break
    process.communicate(timeout=300)
    return process.returncode


def rows(model_dir: Path) -> list[dict]:
    lines = (model_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def last_checkpoint(model_dir: Path) -> int:
    path = tf.train.latest_checkpoint(str(model_dir / "checkpoints"))
    return int(path.rpartition("-")[2])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_run_saves_its_last_step(tmp_path, number, status):
    process = start(tmp_path, *TINY, "--train_batch_size=32", "--train_steps=5000")
    assert kill_at(process, 5, number) == status
    step = last_checkpoint(tmp_path)
    # The steps that were finished when the signal came, and hardly more.
    assert 5 <= step < 5000
    assert rows(tmp_path)[-1]["step"] <= step < rows(tmp_path)[-1]["step"] + 5


@pytest.mark.slow
def test_killed_run_ends_as_an_unbroken_one(tmp_path):
    """SIGKILL in mid-epoch, at the quickstart's settings: the same loss to 1e-5 after 120 steps."""
    flags = ["--flagfile=flags/quickstart.flags", "--train_steps=120", "--log_every=15"]
    flags += ["--checkpoint_steps=50", "--knn_every_epochs=0"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start(whole, *flags)
    _, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors

    assert kill_at(start(broken, *flags), 90, signal.SIGKILL) == -signal.SIGKILL
    assert last_checkpoint(broken) == 50
    assert rows(broken)[-1]["step"] >= 90
    process = start(broken, *flags)
    output, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors
    assert "resuming" in output and "step 50 of 120" in output
    assert last_checkpoint(broken) == last_checkpoint(whole) == 120

    ours, theirs = rows(broken), rows(whole)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert our["loss"] == pytest.approx(their["loss"], rel=1e-5)
