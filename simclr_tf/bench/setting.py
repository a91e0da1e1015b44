"""What the benches run: the method's settings at a size, and images of noise.

TensorFlow is imported where it is used, not here: the command's own process reads the settings.
"""

from typing import Any

import numpy as np

from simclr_tf.config import Augmentation, Data, Encoder, Optimization, PretrainConfig, TrainingPlan

NUM_CLASSES = 10
SMALL = 32  # up to this side, in pixels, images are as CIFAR-10's


def recipe(image_size: int) -> Augmentation:
    """Returns the paper's augmentation: up to 32 px as for CIFAR-10, above as for ImageNet."""
    if image_size <= SMALL:
        return Augmentation(image_size=image_size, color_jitter_strength=0.5, use_blur=False)
    return Augmentation(image_size=image_size)


def pretrain_config(
    views: Augmentation, depth: int, width: float, batch_size: int, precision: str
) -> PretrainConfig:
    """Returns a run with such an encoder, resolved; it checks its arguments as a run's."""
    return PretrainConfig(
        Data(dataset="shapes"),
        views,
        Encoder(resnet_depth=depth, width_multiplier=width),
        optimization=Optimization(train_batch_size=batch_size, precision=precision),
    ).resolve()


def plan(batch_size: int, num_classes: int | None = None) -> TrainingPlan:
    """Returns a plan that lets a model take steps of so many images."""
    return TrainingPlan(
        num_examples=batch_size,
        num_classes=num_classes,
        total_steps=1000,
        warmup_steps=0,
        steps_per_epoch=1.0,
        peak_learning_rate=0.1,
    )


def stored_side(config: PretrainConfig) -> int:
    """Returns the side of the images from which a run makes its views, in pixels."""
    size = config.augmentation.image_size
    return size if size <= SMALL else config.data.storage_size


def noise(count: int, side: int) -> np.ndarray:
    """Returns uint8 images [count, side, side, 3], drawn uniformly."""
    return np.random.default_rng(0).integers(256, size=(count, side, side, 3), dtype=np.uint8)


def noise_views(count: int, side: int) -> Any:
    """Returns float32 images [count, side, side, 3] in [0, 1] on the device."""
    import tensorflow as tf

    return tf.random.stateless_uniform([count, side, side, 3], [0, 0])


def noise_source(count: int, side: int) -> Any:
    """Returns a `Source` of so many images of noise in memory, labelled."""
    from simclr_tf.data.base import ArraySource

    names = tuple(str(label) for label in range(NUM_CLASSES))
    return ArraySource("noise", noise(count, side), np.arange(count) % NUM_CLASSES, names)
