"""Small embedded datasets of random images and features."""

import numpy as np

from simclr_tf.data.base import ArraySource
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset

CLASSES = ("ant", 'b,"ee"', "cat\n")


def random_images(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def random_dataset(
    count=40, size=32, labeled=True, names=None, features=None, max_block_rows=2**14
) -> EmbeddedDataset:
    """Random images, labels (one is -1) and, by default, features with 6 dimensions."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    labels[1] = -1
    source = ArraySource(
        "random",
        random_images(count, size),
        labels if labeled else None,
        CLASSES if labeled else None,
        image_ids=None if names is None else (lambda chosen: [names[i] for i in chosen]),
    )
    if features is None:
        features = rng.normal(size=(count, 6)).astype(np.float32)
    labels = labels if labeled else np.full(count, -1)
    return EmbeddedDataset(source, features, labels, max_block_rows)
