"""An optimizer by name."""

from typing import Any

import tf_keras as keras

from simclr_tf.optimizers.lars import LARS
from simclr_tf.optimizers.tfa_compat import import_addons
from simclr_tf.optimizers.weight_decay import AdamL2, AdamW, MomentumL2

NAMES = ("momentum", "adam", "adamw", "lars", "lamb")


def build_optimizer(
    name: str, learning_rate: Any, *, momentum: float = 0.9, weight_decay: float = 0.0
) -> keras.optimizers.Optimizer:
    """Returns the optimizer that `--optimizer` names.

    Args:
        name: "momentum" (Nesterov), "adam", "adamw", "lars" or "lamb".
        learning_rate: a number or a schedule.
        momentum: of momentum and LARS; the Adams and LAMB keep their own.
        weight_decay: an L2 term in the gradient, except in AdamW, where it is decoupled, and LAMB,
            where it is under the trust. Biases and normalisation parameters take none in any of
            them.

    Raises:
        ValueError: if `name` is none of these.
        UserError: as `check_optimizer`.
    """
    if name == "lars":
        return LARS(learning_rate, momentum=momentum, weight_decay=weight_decay)
    if name == "momentum":
        return MomentumL2(learning_rate, momentum=momentum, nesterov=True, l2=weight_decay)
    if name == "adam":
        return AdamL2(learning_rate, l2=weight_decay)
    if name == "adamw":
        return AdamW(learning_rate, weight_decay=weight_decay)
    if name == "lamb":
        from simclr_tf.optimizers.lamb import LAMB  # at import it wants TensorFlow Addons

        return LAMB(learning_rate, weight_decay=weight_decay)
    raise ValueError(f"optimizer must be one of {', '.join(NAMES)}, not {name!r}")


def check_optimizer(name: str) -> None:
    """Raises UserError if `--optimizer` names one that this installation lacks."""
    if name == "lamb":
        import_addons()
