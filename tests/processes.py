"""Runs in separate processes: starting them, signaling them at a step, reading their files."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import tensorflow as tf

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    *("--dataset=shapes", "--train_split=train[:512]", "--image_size=16", "--resnet_depth=18"),
    *("--width_multiplier=0.0625", "--use_blur=False", "--num_proj_layers=2", "--proj_out_dim=16"),
    *("--optimizer=momentum", "--learning_rate=0.1", "--warmup_epochs=1", "--log_every=5"),
    *("--train_batch_size=32", "--pictures_every_epochs=0"),
]


def python(*arguments: object) -> subprocess.Popen:
    """Starts Python with these arguments; SIGINT interrupts it even if this process ignores it."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # Shells let background processes ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def pretrain(model_dir: Path, *flags: str) -> subprocess.Popen:
    return python("-m", "simclr_tf", "pretrain", f"--model_dir={model_dir}", *flags)


def free_workers(count: int) -> str:
    """Returns host:port,… of `count` processes, at free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    names = ",".join(f"127.0.0.1:{s.getsockname()[1]}" for s in sockets)
    for s in sockets:
        s.close()
    return names


def pretrain_on_workers(model_dir: Path, *flags: str, count: int = 2) -> list[subprocess.Popen]:
    workers = f"--workers={free_workers(count)}"
    return [pretrain(model_dir, workers, f"--worker_index={i}", *flags) for i in range(count)]


def signal_at(process: subprocess.Popen, step: int, number: int, to=None) -> None:
    """Sends a signal to a process (or to another one) when it logs a step."""
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            (to or process).send_signal(number)
            return
    raise AssertionError(f"ended before step {step}: {process.communicate()[1]}")


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Waits for the end; returns exit status, the rest of the output, errors."""
    output, errors = process.communicate(timeout=1200)
    return process.returncode, output, errors


def rows(model_dir: Path) -> list[dict]:
    lines = (model_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def last_checkpoint(model_dir: Path) -> int:
    path = tf.train.latest_checkpoint(str(model_dir / "checkpoints"))
    return int(path.rpartition("-")[2])
