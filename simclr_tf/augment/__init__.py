"""Batched image operations, and the policies made of them."""

from simclr_tf.augment.eval_transform import as_bytes, eval_transform
from simclr_tf.augment.rand_augment import RandAugment
from simclr_tf.augment.rng import make_seed
from simclr_tf.augment.simclr import SimCLRAugment
from simclr_tf.augment.study import Composition

__all__ = [
    "Composition",
    "RandAugment",
    "SimCLRAugment",
    "as_bytes",
    "eval_transform",
    "make_seed",
]
