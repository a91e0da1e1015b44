"""Loss functions: pure functions of two views' projections."""

from simclr_tf.losses.build import build_loss
from simclr_tf.losses.dcl import dcl
from simclr_tf.losses.distillation import distillation
from simclr_tf.losses.margin_triplet import margin_triplet
from simclr_tf.losses.nt_logistic import nt_logistic
from simclr_tf.losses.nt_xent import nt_xent
from simclr_tf.losses.pairs import l2_normalize
from simclr_tf.losses.supcon import supcon

__all__ = [
    "build_loss",
    "dcl",
    "distillation",
    "l2_normalize",
    "margin_triplet",
    "nt_logistic",
    "nt_xent",
    "supcon",
]
