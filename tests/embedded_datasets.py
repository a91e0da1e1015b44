"""Small embedded datasets of random images and features."""

import numpy as np

from simclr_tf.data.base import ArraySource
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset

CLASSES = ("ant", 'b,"ee"', "cat\n")


def random_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def random_dataset(
    count=40,
    dims=6,
    size=32,
    labeled=True,
    names=None,
    features=None,
    images=None,
    seed=0,
    max_block_rows=2**14,
) -> EmbeddedDataset:
    """Random labels, one of which is -1; images and features are random by default."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    labels[1] = -1
    source = ArraySource(
        "random",
        random_images(count, size, seed) if images is None else images,
        labels if labeled else None,
        CLASSES if labeled else None,
        image_ids=None if names is None else (lambda chosen: [names[i] for i in chosen]),
    )
    if features is None:
        features = rng.normal(size=(count, dims)).astype(np.float32)
    labels = labels if labeled else np.full(count, -1)
    return EmbeddedDataset(source, features, labels, max_block_rows)
