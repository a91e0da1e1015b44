"""Small sets with features of their own choosing."""

import numpy as np

from simclr_tf.data.base import ArraySource
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset

CLASSES = ("ant", 'b,"ee"', "cat\n")


def rows(count=40, dims=6, size=32, labelled=True, names=None, features=None) -> EmbeddedDataset:
    """An embedded dataset of random images, with random features and labels, one of which is -1."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, size, size, 3), np.uint8)
    labels = draw.integers(0, 3, count)
    labels[1] = -1
    ids = None if names is None else (lambda chosen: [names[i] for i in chosen])
    source = ArraySource(
        "random", images, labels if labelled else None, CLASSES if labelled else None, ids=ids
    )
    if features is None:
        features = draw.normal(size=(count, dims)).astype(np.float32)
    return EmbeddedDataset(source, features, labels if labelled else np.full(count, -1))
