"""A loss by name."""

import functools
from collections.abc import Callable
from typing import Any

from simclr_tf.losses.dcl import dcl
from simclr_tf.losses.margin_triplet import margin_triplet
from simclr_tf.losses.nt_logistic import nt_logistic
from simclr_tf.losses.nt_xent import nt_xent
from simclr_tf.losses.supcon import supcon


def build_loss(name: str, margin: float = 0.8) -> Callable[..., Any]:
    """Returns the loss that `--loss` names, to be called as `nt_xent` is.

    `supcon` takes `labels`, too.

    Args:
        name: "nt_xent", "nt_logistic", "margin", "supcon", "dcl"; "nt_logistic_semi_hard" or
            "margin_semi_hard".
        margin: of the last two and of "margin".

    Raises:
        ValueError: if `name` is none of these.
    """
    losses: dict[str, Callable[..., Any]] = {
        "nt_xent": nt_xent,
        "nt_logistic": nt_logistic,
        "nt_logistic_semi_hard": functools.partial(nt_logistic, margin=margin, semi_hard=True),
        "margin": functools.partial(margin_triplet, margin=margin),
        "margin_semi_hard": functools.partial(margin_triplet, margin=margin, semi_hard=True),
        "supcon": supcon,
        "dcl": dcl,
    }
    if name not in losses:
        raise ValueError(f"loss must be one of {', '.join(losses)}, not {name!r}")
    return losses[name]
