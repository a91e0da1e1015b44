"""Dependencies at run time; `make lint` checks the imports between packages."""

import subprocess
import sys

MODULES = [
    "simclr_tf",
    "simclr_tf.config",
    "simclr_tf.api",
    "simclr_tf.cli.main",
    "simclr_tf.cli.bench",
    "simclr_tf.cli.study",
    "simclr_tf.runs.listing",
    "simclr_tf.runs.run_dir",
    "simclr_tf.runs.status",
    "simclr_tf.bench.harness",
    "simclr_tf.study.workers",
]


def test_commands_settings_and_run_directories_load_without_tensorflow():
    """Help is fast, and worker processes get their devices before TensorFlow starts."""
    _check_imports(MODULES, {"tensorflow", "tf_keras"})


def test_training_loads_without_scikit_learn_and_matplotlib():
    _check_imports(["simclr_tf.training.tasks"], {"sklearn", "matplotlib"})


def _check_imports(modules, absent):
    """Imports the modules in a new process, in which none of `absent` may be loaded by them."""
    code = f"""
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
    assert not {absent} & set(sys.modules), name
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
