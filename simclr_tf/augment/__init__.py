"""Batched image operations, and the policies made of them."""

from simclr_tf.augment.composition import Composition
from simclr_tf.augment.draws import make_seed
from simclr_tf.augment.evaluation import as_bytes, eval_transform
from simclr_tf.augment.rand_augment import RandAugment
from simclr_tf.augment.simclr import SimCLRAugment

__all__ = [
    "Composition",
    "RandAugment",
    "SimCLRAugment",
    "as_bytes",
    "eval_transform",
    "make_seed",
]
