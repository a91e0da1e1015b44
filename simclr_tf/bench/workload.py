"""Workloads of the benchmarks: the paper's settings at a size, random images.

TensorFlow is imported where it is used, because the command's own process must not load it.
"""

import dataclasses
from typing import Any

import numpy as np

from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.option_groups import Augmentation, Data, Encoder, Optimization
from simclr_tf.options import OptionGroup, option, parse_floats
from simclr_tf.utils.hardware import HardwareInfo

NUM_CLASSES = 10
SMALL_IMAGE_MAX = 32  # up to this side, in pixels, the recipe is that of CIFAR-10


@dataclasses.dataclass(frozen=True)
class WidthOptions(OptionGroup):
    """Base of benchmarks with a case for each width of the encoder."""

    width_multipliers: str = option("1,0.25", "Multipliers of all filter counts.")

    @property
    def widths(self) -> list[float]:
        return parse_floats("width_multipliers", self.width_multipliers)

    def cases(self, hardware: HardwareInfo) -> dict[str, float]:
        return {f"width {width:g}": width for width in self.widths}


def paper_augmentation(image_size: int) -> Augmentation:
    """Returns the paper's augmentation: up to 32 px as for CIFAR-10, above as for ImageNet."""
    if image_size <= SMALL_IMAGE_MAX:
        return Augmentation(image_size=image_size, color_jitter_strength=0.5, use_blur=False)
    return Augmentation(image_size=image_size)


def pretrain_config(
    augmentation: Augmentation, depth: int, width: float, batch_size: int, precision: str
) -> PretrainConfig:
    """Returns a resolved run with such an encoder; its values are validated as a run's."""
    return PretrainConfig(
        Data(dataset="shapes"),
        augmentation,
        Encoder(resnet_depth=depth, width_multiplier=width),
        optimization=Optimization(train_batch_size=batch_size, precision=precision),
    ).resolve()


def dummy_plan(batch_size: int, num_classes: int | None = None) -> TrainingPlan:
    """Returns a plan with which a model can take steps of `batch_size` images."""
    return TrainingPlan(
        num_examples=batch_size,
        num_classes=num_classes,
        total_steps=1000,
        warmup_steps=0,
        steps_per_epoch=1.0,
        peak_learning_rate=0.1,
    )


def random_images(count: int, side: int) -> np.ndarray:
    """Returns uint8 images [count, side, side, 3], uniformly distributed."""
    return np.random.default_rng(0).integers(256, size=(count, side, side, 3), dtype=np.uint8)


def random_views(count: int, side: int) -> Any:
    """Returns float32 images [count, side, side, 3] in [0, 1] on the device."""
    import tensorflow as tf

    return tf.random.stateless_uniform([count, side, side, 3], [0, 0])


def random_source(count: int, config: PretrainConfig) -> Any:
    """Returns an `ImageSource` of labeled random images of the size that a run stores."""
    from simclr_tf.data.base import ArraySource

    size = config.augmentation.image_size
    side = size if size <= SMALL_IMAGE_MAX else config.data.storage_size
    names = tuple(str(label) for label in range(NUM_CLASSES))
    return ArraySource("noise", random_images(count, side), np.arange(count) % NUM_CLASSES, names)
