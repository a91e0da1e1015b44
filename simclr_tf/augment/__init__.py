"""Batched image operations, and the policies made of them."""

from simclr_tf.augment.eval_transform import eval_transform, to_uint8
from simclr_tf.augment.rand_augment import RandAugment
from simclr_tf.augment.rng import view_seed
from simclr_tf.augment.simclr import SimCLRAugment
from simclr_tf.augment.study import NamedTransforms

__all__ = [
    "NamedTransforms",
    "RandAugment",
    "SimCLRAugment",
    "eval_transform",
    "to_uint8",
    "view_seed",
]
