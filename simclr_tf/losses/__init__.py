"""Loss functions: pure functions of two views' projections."""

from simclr_tf.losses.nt_xent import l2_normalize, nt_xent

__all__ = ["l2_normalize", "nt_xent"]
