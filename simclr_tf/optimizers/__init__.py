"""Optimizers and learning rate schedules."""

from typing import Any

import tf_keras as keras

from simclr_tf.optimizers.lars import LARS
from simclr_tf.optimizers.muon import Muon
from simclr_tf.optimizers.schedules import WarmupCosine, peak_learning_rate
from simclr_tf.optimizers.tfa_compat import import_tensorflow_addons
from simclr_tf.optimizers.weight_decay import SGDL2, AdamL2, AdamW

__all__ = [
    "LARS",
    "OPTIMIZER_NAMES",
    "Muon",
    "WarmupCosine",
    "check_available",
    "get",
    "peak_learning_rate",
]

OPTIMIZER_NAMES = ("momentum", "adam", "adamw", "lars", "lamb", "muon")


def get(
    name: str, learning_rate: Any, *, momentum: float = 0.9, weight_decay: float = 0.0
) -> keras.optimizers.Optimizer:
    """Returns the optimizer that `--optimizer` selects.

    Args:
        name: "momentum" (Nesterov), "adam", "adamw", "lars", "lamb" or "muon".
        learning_rate: a number or a schedule.
        momentum: of momentum, LARS and Muon, in [0, 1); the others use their own defaults.
        weight_decay: at least 0. An L2 term in the gradient; in AdamW and Muon decoupled; in LAMB
            part of the update that the trust ratio scales. Biases and normalization parameters take
            none.

    Raises:
        ValueError: `name` is not one of these.
        UserError: as `check_available`.

    Example:
    >>> import simclr_tf as st
    >>> optimizer = st.optimizers.get("lars", learning_rate=0.3, weight_decay=1e-6)
    >>> optimizer.name
    'LARS'
    """
    if name == "lars":
        return LARS(learning_rate, momentum=momentum, weight_decay=weight_decay)
    if name == "momentum":
        return SGDL2(learning_rate, momentum=momentum, nesterov=True, l2=weight_decay)
    if name == "adam":
        return AdamL2(learning_rate, l2=weight_decay)
    if name == "adamw":
        return AdamW(learning_rate, weight_decay=weight_decay)
    if name == "muon":
        return Muon(learning_rate, momentum=momentum, weight_decay=weight_decay)
    if name == "lamb":
        from simclr_tf.optimizers.lamb import LAMB  # its import needs TensorFlow Addons

        return LAMB(learning_rate, weight_decay=weight_decay)
    raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZER_NAMES)}, got {name!r}")


def check_available(name: str) -> None:
    """Raises UserError if `--optimizer` names an optimizer that this installation lacks.

    Example:
    >>> import simclr_tf as st
    >>> st.optimizers.check_available("lars")
    """
    if name == "lamb":
        import_tensorflow_addons()
