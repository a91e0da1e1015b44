"""Fixtures of all tests: TensorFlow set-up, datasets or skips."""

import os

# Both act only before TensorFlow is first imported: its log level, and simclr_tf's choice of Keras.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import simclr_tf  # noqa: F401  # isort: skip

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

# Four logical devices let tests of 1, 2 and 4 replicas share one process. TensorFlow takes this
# only before its first operation, so it cannot be a fixture; ordinary operations stay on CPU:0.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration() for _ in range(4)],
)


@pytest.fixture(scope="session", autouse=True)
def _user_cache(tmp_path_factory):
    """Tests and their processes leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def mirrored() -> Callable[[int], tf.distribute.Strategy]:
    """Make a MirroredStrategy over the first logical CPU devices: `mirrored(replicas)`."""

    def make(replicas: int) -> tf.distribute.Strategy:
        # Every strategy of a process names its collectives alike, and two that differ in type
        # under one name end the process's collectives; TensorFlow's tests move the base too.
        tf.distribute.MirroredStrategy._collective_key_base += 1_000
        return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])

    return make


@pytest.fixture(scope="session")
def cifar_data_dir() -> Path:
    """The TFDS directory that holds a prepared CIFAR-10; skips where there is none."""
    named = os.environ.get("SIMCLR_TF_DATA_DIR")
    data_dir = Path(named) if named else SHARED_DATA / "tfds"
    if not (data_dir / "cifar10").is_dir():
        pytest.skip(f"no cifar10 in {data_dir}; set SIMCLR_TF_DATA_DIR to a TFDS directory")
    return data_dir


def _reference_file(name: str) -> Path:
    path = SHARED_DATA / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture(scope="session")
def reference_npz() -> dict[str, np.ndarray]:
    """Variables, an input and its outputs of a small model of the reference implementation."""
    with np.load(_reference_file("reference_resnet18_w025.npz")) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="session")
def reference_variables() -> dict:
    """Names and shapes of the reference implementation's variables, in build order."""
    return json.loads(_reference_file("reference_variables.json").read_text(encoding="utf-8"))
