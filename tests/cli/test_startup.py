"""Start of a command as a process: TensorFlow's log lines, closed pipes, large numbers."""

import re
import subprocess
import sys

import pytest

# Lines of TensorFlow's C++ and Python loggers: "2026-01-01 … I tensorflow/…", "I0000 00:00:…".
_LOG_LINE = re.compile(r"^(\d{4}-\d\d-\d\d |[IWEF]\d{4} |WARNING: All log|WARNING:tensor)", re.M)


def test_tensorflow_logs_nothing_unless_verbose(run_cli, tmp_path):
    flags = ["pretrain", "--dataset=shapes", "--train_split=nosuch", f"--model_dir={tmp_path}"]
    quiet = run_cli(*flags)
    assert quiet.returncode == 2
    assert quiet.stderr.startswith("simclr-tf: error: ") and quiet.stderr.count("\n") == 1
    verbose = run_cli(*flags, "--verbose")
    assert verbose.returncode == 2
    assert _LOG_LINE.search(verbose.stderr)


def test_log_is_shown_if_tensorflow_cannot_be_imported(tmp_path):
    package = tmp_path / "tensorflow"
    package.mkdir()
    code = "import os; os.write(2, b'no driver\\n'); raise ImportError('broken')"
    (package / "__init__.py").write_text(code)
    command = (
        "from simclr_tf.cli.startup import silence_tensorflow; silence_tensorflow();"
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import tensorflow"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("no driver\n") and "ImportError: broken" in done.stderr


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


@pytest.mark.parametrize("flag", ["microbatch_size", "num_replicas", "train_steps", "seed"])
def test_number_beyond_every_limit_is_one_line(run_cli, flag):
    done = run_cli("pretrain", "--dataset=shapes", "--model_dir=x", f"--{flag}={10**20 - 1}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"simclr-tf: error: --{flag}={10**20 - 1}: expected an integer")
    assert done.stderr.count("\n") == 1
