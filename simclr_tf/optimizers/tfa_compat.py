"""Import of TensorFlow Addons, which expects tf_keras under the module name `keras`."""

import importlib
import sys
import warnings
from types import ModuleType

import tensorflow as tf
import tf_keras as keras

from simclr_tf.errors import UserError


def import_tensorflow_addons() -> ModuleType:
    """Imports TensorFlow Addons while the module name `keras` temporarily refers to tf_keras."""
    if tf.keras.Model is not keras.Model:  # noqa: TID251 (the Keras that TensorFlow uses)
        raise UserError(
            "--optimizer=lamb: expected tf.keras to be tf_keras, got Keras 3. Fix: set "
            "TF_USE_LEGACY_KERAS=1 in the environment, or import simclr_tf before using tf.keras"
        )
    before = _modules_of("keras")
    for name in before:
        del sys.modules[name]
    sys.modules.update({n.removeprefix("tf_"): m for n, m in _modules_of("tf_keras").items()})
    try:
        with warnings.catch_warnings():
            # It announces its end of life, and that it was not tested with this TensorFlow.
            warnings.simplefilter("ignore", UserWarning)
            return importlib.import_module("tensorflow_addons")
    except ImportError as error:
        raise UserError(
            f"--optimizer=lamb: expected TensorFlow Addons to be installed, got: {error}. Fix: pip "
            "install 'tensorflow-addons<0.24' under Python 3.11, the last version with wheels "
            f"(this is {sys.version_info.major}.{sys.version_info.minor}); or choose another "
            "optimizer for a new run, such as lars"
        ) from None
    finally:
        for name in _modules_of("keras"):
            del sys.modules[name]
        sys.modules.update(before)


def _modules_of(package: str) -> dict[str, ModuleType]:
    return {n: m for n, m in sys.modules.items() if n.partition(".")[0] == package}
