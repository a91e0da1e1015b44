"""Batched image operations and the augmentation policies made of them."""

from simclr_tf.augment.eval_transform import eval_transform, to_uint8
from simclr_tf.augment.rng import view_seed
from simclr_tf.augment.simclr import SimCLRAugment, SimCLRAugmentation
from simclr_tf.augment.study import NamedTransforms, RandAugment

__all__ = [
    "NamedTransforms",
    "RandAugment",
    "SimCLRAugment",
    "SimCLRAugmentation",
    "eval_transform",
    "to_uint8",
    "view_seed",
]
