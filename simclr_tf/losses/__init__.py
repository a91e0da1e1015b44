"""Loss functions: pure functions of two views' projections."""

from simclr_tf.losses.distillation import distillation
from simclr_tf.losses.nt_xent import l2_normalize, nt_xent

__all__ = ["distillation", "l2_normalize", "nt_xent"]
