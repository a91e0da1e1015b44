"""Commands in this process and without graphs.

Starting TensorFlow and tracing take most of the time of short commands. Commands in processes of
their own, which signal and kill them, and the tests of training run the graphs.
"""

import contextlib
import io
import subprocess
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from simclr_tf.augment import eval_transform
from simclr_tf.cli.main import main
from simclr_tf.data import open_source

TINY = [
    *("--dataset=shapes", "--train_split=train[:300]", "--eval_split=test[:100]"),
    *("--image_size=16", "--resnet_depth=18", "--width_multiplier=0.0625", "--use_blur=False"),
    *("--num_proj_layers=2", "--proj_out_dim=16", "--optimizer=momentum", "--learning_rate=0.1"),
    *("--train_batch_size=32", "--train_steps=3", "--warmup_epochs=0", "--log_every=1"),
    "--pictures_every_epochs=0",
]


@contextlib.contextmanager
def eager_functions() -> Iterator[None]:
    """Runs each `tf.function` as plain Python."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def run_command(*arguments: object) -> subprocess.CompletedProcess:
    """Runs `simclr-tf ARGUMENTS`; returns its status and output."""
    out, err = io.StringIO(), io.StringIO()
    words = list(map(str, arguments))
    with eager_functions(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


def output_of(*arguments: object) -> str:
    """Returns what a command prints, which must succeed."""
    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def error_of(*arguments: object) -> str:
    """Returns the one line with which a command refuses a mistake of the user."""
    done = run_command(*arguments)
    assert done.returncode == 2, done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("simclr-tf: error: ")]
    assert "Traceback" not in done.stderr
    return line


def exported_accuracy(export, split: str) -> float:
    """Returns the accuracy of an exported classifier on a split of shapes, 16 pixels wide."""
    loaded = tf.saved_model.load(str(export))
    source = open_source("shapes", split)
    images = eval_transform(tf.constant(source.images[source.indices]), 16)
    answer = loaded.signatures["classify"](images=images)
    names = [name.decode() for name in answer["class_name"].numpy()]
    assert names == [source.class_names[i] for i in answer["label"]]
    return np.mean(answer["label"] == source.labels())
