"""TensorFlow Addons, which looks for the inside of Keras under the name that it had then."""

import importlib
import sys
import warnings
from types import ModuleType

import tensorflow as tf
import tf_keras as keras

from simclr_tf.errors import UserError


def import_addons() -> ModuleType:
    """Imports TensorFlow Addons while `keras` means tf_keras, and afterwards what it did before.

    Raises:
        UserError: it is not installed, or TensorFlow has chosen Keras 3 already.
    """
    if tf.keras.Model is not keras.Model:  # noqa: TID251 (of TensorFlow's choice)
        raise UserError(
            "--optimizer=lamb: TensorFlow Addons needs TF_USE_LEGACY_KERAS=1 in the environment "
            "before TensorFlow's Keras is first used"
        )
    before = _modules_of("keras")
    for name in before:
        del sys.modules[name]
    sys.modules.update({n.removeprefix("tf_"): m for n, m in _modules_of("tf_keras").items()})
    try:
        with warnings.catch_warnings():
            # Of its end, and that it does not know this TensorFlow.
            warnings.simplefilter("ignore", UserWarning)
            return importlib.import_module("tensorflow_addons")
    except ImportError as error:
        raise UserError(
            f"--optimizer=lamb needs TensorFlow Addons ({error}): pip install "
            "'tensorflow-addons<0.24', under Python 3.11, the last that it has wheels for (this is "
            f"{sys.version_info.major}.{sys.version_info.minor}); or, for a new run, take another "
            "optimizer, such as lars"
        ) from None
    finally:
        for name in _modules_of("keras"):
            del sys.modules[name]
        sys.modules.update(before)


def _modules_of(package: str) -> dict[str, ModuleType]:
    return {n: m for n, m in sys.modules.items() if n.partition(".")[0] == package}
