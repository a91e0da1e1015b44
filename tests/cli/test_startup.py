"""Start of a command as a process: TensorFlow's log lines and closed pipes."""

import subprocess
import sys

import pytest

from tests.processes import finish, pretrain


def test_first_line_of_a_command_is_its_own(tmp_path):
    status, _, errors = finish(pretrain(tmp_path, "--dataset=shapes", "--train_split=nosuch"))
    assert status == 2
    assert errors.startswith("simclr-tf: error: ") and errors.count("\n") == 1


BLOCKED = """
import hashlib, signal, threading
from simclr_tf.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
main._MAX_SECONDS_TO_INTERRUPT = 0.5
main._run = lambda argv: hashlib.pbkdf2_hmac("sha256", b"", b"", 2**30)  # minutes
threading.Timer(0.5, lambda: signal.raise_signal(signal.SIGINT)).start()
main.console()
"""


def test_command_that_does_not_return_to_python_is_interrupted():
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED, "embed", "--model_dir=my run"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 130
    assert result.stderr.splitlines() == [
        "simclr-tf: interrupted. To continue, run the same command again: "
        "simclr-tf embed '--model_dir=my run'"
    ]


# After the command, which does not need it, TensorFlow is imported: a package that logs this line.
LOGGED = "2026-01-01 tensorflow/core: no driver\n"
CODE = """
import contextlib, sys
from simclr_tf.cli.main import console
sys.path.insert(0, sys.argv.pop(1))
with contextlib.suppress(SystemExit):
    console()
import tensorflow
"""
DEVICES = (
    "import logging as config; config.list_physical_devices = list\nget_logger = config.getLogger"
)


@pytest.mark.parametrize(
    ("flags", "rest", "logs"),
    [([], DEVICES, False), (["--verbose"], DEVICES, True), ([], "raise ImportError('bad')", True)],
    ids=["quiet", "verbose", "failing"],
)
def test_tensorflow_logs_only_if_verbose_or_if_its_import_fails(tmp_path, flags, rest, logs):
    package = tmp_path / "tensorflow"
    package.mkdir()
    (package / "__init__.py").write_text(f"import os; os.write(2, {LOGGED.encode()})\n{rest}\n")
    command = [sys.executable, "-c", CODE, tmp_path, "runs", tmp_path, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == f"no runs in {tmp_path}\n"
    assert done.stderr.startswith(LOGGED) == logs
    assert ("ImportError: bad" in done.stderr) == (done.returncode != 0) == ("raise" in rest)


@pytest.mark.parametrize("arguments", [["--help"], ["pretrain", "--help"]])
def test_help_into_a_closed_pipe_has_no_traceback(arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "simclr_tf", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141
