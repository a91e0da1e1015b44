"""Loss functions of the projections of two or more views, and of logits."""

import functools
from collections.abc import Callable
from typing import Any

from simclr_tf.losses.contrastive import LossOutputs, l2_normalize
from simclr_tf.losses.dcl import dcl
from simclr_tf.losses.distillation import distillation
from simclr_tf.losses.moments import tcr, vicreg
from simclr_tf.losses.nt_xent import NTXent, nt_xent
from simclr_tf.losses.supcon import supcon
from simclr_tf.losses.triplet import margin_triplet, nt_logistic

__all__ = [
    "NTXent",
    "dcl",
    "distillation",
    "get",
    "l2_normalize",
    "margin_triplet",
    "nt_logistic",
    "nt_xent",
    "supcon",
    "tcr",
    "vicreg",
]


def get(
    name: str,
    margin: float = 0.8,
    *,
    invariance_weight: float | None = None,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
) -> Callable[..., LossOutputs]:
    """Returns the contrastive loss function that `--loss` selects.

    Args:
        name: "nt_xent", "nt_logistic", "nt_logistic_semi_hard", "margin", "margin_semi_hard",
            "supcon", "dcl", "vicreg" or "tcr".
        margin: of "margin" and of the semi-hard losses, in cosines.
        invariance_weight: of "vicreg" and "tcr". Default: those of the functions.
        variance_weight, covariance_weight: of "vicreg".

    Returns:
        A function with the arguments and results of `nt_xent`, but only `nt_xent` has `block_size`;
        one without `more_views` takes two views per image. `supcon` also takes `labels`.

    Raises:
        ValueError: `name` is not one of these.

    Example:
    >>> import simclr_tf as st
    >>> st.losses.get("nt_xent") is st.losses.nt_xent
    True
    """
    invariance: dict[str, Any] = {}
    if invariance_weight is not None:
        invariance = {"invariance_weight": invariance_weight}
    losses: dict[str, Callable[..., LossOutputs]] = {
        "nt_xent": nt_xent,
        "nt_logistic": nt_logistic,
        "nt_logistic_semi_hard": functools.partial(nt_logistic, margin=margin, semi_hard=True),
        "margin": functools.partial(margin_triplet, margin=margin),
        "margin_semi_hard": functools.partial(margin_triplet, margin=margin, semi_hard=True),
        "supcon": supcon,
        "dcl": dcl,
        "vicreg": functools.partial(
            vicreg,
            variance_weight=variance_weight,
            covariance_weight=covariance_weight,
            **invariance,
        ),
        "tcr": functools.partial(tcr, **invariance),
    }
    if name not in losses:
        raise ValueError(f"loss must be one of {', '.join(losses)}, got {name!r}")
    return losses[name]
