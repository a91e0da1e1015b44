"""Workloads of the benchmarks: the paper's settings at a size, random images, list options.

TensorFlow is imported where it is used, because the command's own process must not load it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.errors import UserError
from simclr_tf.option_groups import Augmentation, Data, Encoder, Optimization
from simclr_tf.options import OptionGroup, option, split_commas
from simclr_tf.utils.hardware import HardwareInfo

NUM_CLASSES = 10
SMALL_IMAGE_MAX = 32  # up to this side, in pixels, the recipe is that of CIFAR-10


def parse_list(name: str, text: str, convert: Callable[[str], Any], expected: str) -> list[Any]:
    """Parses a comma-separated option without duplicates; `convert` raises ValueError."""
    try:
        values = [convert(item) for item in split_commas(text)]
    except ValueError:
        values = []
    if not values:
        raise UserError(f"--{name}={text}: expected {expected}, separated by commas, got {text!r}")
    return list(dict.fromkeys(values))


def parse_ints(name: str, text: str, min: int = 1) -> list[int]:
    """Parses an option such as 1,2,4."""

    def convert(item):
        if not item.isdecimal() or not min <= int(item) < 2**31:
            raise ValueError(item)
        return int(item)

    return parse_list(name, text, convert, f"integers of at least {min}")


def parse_floats(name: str, text: str) -> list[float]:
    """Parses an option such as 1,0.25."""

    def convert(item):
        value = float(item)
        if not 0 < value < float("inf"):
            raise ValueError(item)
        return value

    return parse_list(name, text, convert, "positive numbers")


def parse_choices(name: str, text: str, allowed: tuple[str, ...]) -> list[str]:
    """Parses an option such as dense,blocks."""
    expected = f"some of {', '.join(allowed)}"
    return parse_list(name, text, lambda item: allowed[allowed.index(item)], expected)


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
