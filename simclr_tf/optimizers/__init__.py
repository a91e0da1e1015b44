"""Optimizers and learning rate schedules."""

from simclr_tf.optimizers.build import NAMES, build_optimizer, check_optimizer
from simclr_tf.optimizers.lars import LARS
from simclr_tf.optimizers.schedules import WarmupCosine, peak_learning_rate

__all__ = [
    "LARS",
    "NAMES",
    "WarmupCosine",
    "build_optimizer",
    "check_optimizer",
    "peak_learning_rate",
]
