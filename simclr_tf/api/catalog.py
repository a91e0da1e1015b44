"""Names of the built-in encoders, losses, optimizers and evaluation protocols."""

import contextlib
import importlib.util
import io

from simclr_tf.evaluation.options import PROTOCOLS
from simclr_tf.option_groups import ContrastiveLoss, Optimization
from simclr_tf.options import option_fields


def list_encoders() -> list[str]:
    """Returns the built-in values of the option `encoder`.

    `resnet` is built according to `resnet_depth`, `width_multiplier`, `stem`, `sk_ratio` and
    `se_ratio`. The others are presets of KerasCV, if it is installed. `encoder` also takes a
    functional `keras.Model`, and `keras_cv:DIRECTORY`.

    Example:
        >>> import simclr_tf as st
        >>> st.list_encoders()[0]
        'resnet'
    """
    names = ["resnet"]
    if importlib.util.find_spec("keras_cv"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its backend
            import keras_cv

        from simclr_tf.models.keras_cv_backbones import BACKBONES

        kinds = [getattr(keras_cv.models, name) for name in BACKBONES]
        names += [f"keras_cv:{preset}" for kind in kinds for preset in kind.presets]
    return names


def list_losses() -> list[str]:
    """Returns the values of the option `loss`.

    Example:
        >>> import simclr_tf as st
        >>> st.list_losses()[:3]
        ['nt_xent', 'nt_logistic', 'nt_logistic_semi_hard']
    """
    return _choices(ContrastiveLoss, "loss")


def list_optimizers() -> list[str]:
    """Returns the values of the option `optimizer`; `lamb` needs TensorFlow Addons.

    Example:
        >>> import simclr_tf as st
        >>> st.list_optimizers()
        ['momentum', 'adam', 'adamw', 'lars', 'lamb', 'muon']
    """
    return _choices(Optimization, "optimizer")


def list_protocols() -> list[str]:
    """Returns the values of the option `protocols` of `evaluate`.

    Example:
        >>> import simclr_tf as st
        >>> st.list_protocols()
        ['knn', 'logistic', 'linear', 'probes']
    """
    return list(PROTOCOLS)


def _choices(group: type, name: str) -> list[str]:
    (choices,) = (f.metadata["choices"] for f in option_fields(group) if f.name == name)
    return list(choices)
