"""Weighted k-nearest-neighbour classification of frozen features (Wu et al. 2018, §3.4)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.protocols import Prediction

# Similarities held at once: 2^26 float32 take 256 MiB.
_BLOCK_ELEMENTS = 2**26


@dataclass(frozen=True)
class KNN:
    """The protocol `knn`: k > 0 neighbours by cosine, each voting with exp(similarity / T)."""

    k: int = 200
    temperature: float = 0.1

    name: ClassVar[str] = "knn"

    def check(self, num_train: int) -> None:
        """Raise UserError where k or T cannot be used with `num_train` examples."""
        if not 1 <= self.k <= num_train:
            raise UserError(
                f"--knn_k={self.k} must lie between 1 and the {num_train} images of --train_split; "
                "lower it, or take a larger split"
            )
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"--knn_temperature={self.temperature} must be above 0 and finite")

    def predict(self, train: Features, test: Features, num_classes: int) -> Prediction:
        """Classify `test` by its neighbours in `train`, which has labels."""
        classes = knn_predict(
            train.features, train.labels, test.features, num_classes, self.k, self.temperature
        )
        return Prediction(classes)


def knn_predict(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    num_classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> np.ndarray:
    """Return the classes with the most votes among each test item's k nearest train items.

    Nearness is cosine similarity s and a neighbour's vote is exp(s / temperature). The test items
    are worked through in blocks, so that the similarities take 256 MiB at most (a block of one
    item aside); they are float32 throughout.

    Args:
        train_features: [N, D] float.
        train_labels: [N] int in [0, num_classes).
        test_features: [M, D] float.
        num_classes: C, at least 1.
        k: neighbours, from 1 to N.
        temperature: above 0; the lower, the more the nearest count.

    Returns:
        [M, min(5, C)] int64, best first; classes with equal votes, none included, by number.

    Raises:
        ValueError: k does not lie between 1 and N, or a label is not in its range.
    """
    num_train = len(train_features)
    if not 1 <= k <= num_train:
        raise ValueError(f"k={k} must lie between 1 and the number of train items, {num_train}")
    if not 0 <= np.min(train_labels) <= np.max(train_labels) < num_classes:
        raise ValueError(f"train labels must lie in [0, {num_classes})")
    block = max(1, min(1024, _BLOCK_ELEMENTS // num_train, len(test_features)))
    bank = tf.constant(_normalise(train_features))
    labels = tf.constant(train_labels, tf.int64)
    scale = tf.constant(temperature, tf.float32)
    queries = _normalise(test_features)
    predicted = []
    for start in range(0, len(queries), block):
        part = queries[start : start + block]
        padded = tf.constant(np.pad(part, [(0, block - len(part)), (0, 0)]))
        classes = _classify(padded, bank, labels, scale, k, num_classes)
        predicted.append(classes.numpy()[: len(part)])
    return np.concatenate(predicted).astype(np.int64)


# At module level, so that a probe that is run again finds it traced.
@tf.function(autograph=False)
def _classify(
    queries: tf.Tensor,
    bank: tf.Tensor,
    labels: tf.Tensor,
    temperature: tf.Tensor,
    k: int,
    num_classes: int,
) -> tf.Tensor:
    """The best min(5, C) classes of normalised queries [M, D] by the votes of a bank [N, D]."""
    similarity, nearest = tf.math.top_k(tf.matmul(queries, bank, transpose_b=True), k)
    size = queries.shape[0]
    # Relative to the nearest neighbour: the order of the sums is the same and exp cannot
    # overflow at low temperatures.
    votes = tf.exp((similarity - similarity[:, :1]) / temperature)  # [M, k]
    rows = tf.range(size, dtype=tf.int64)[:, None]
    ballots = tf.math.unsorted_segment_sum(
        votes, rows * num_classes + tf.gather(labels, nearest), size * num_classes
    )
    ballots = tf.reshape(ballots, [size, num_classes])
    return tf.math.top_k(ballots, min(5, num_classes)).indices


def _normalise(features: np.ndarray) -> np.ndarray:
    # In float64, where the square of no float32 is lost; NumPy converts piece by piece.
    norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    # A feature of all zeros stays zero: equally near to everything.
    norms = np.where(norms > 0, norms, 1)[:, np.newaxis]
    unit = np.empty(features.shape, np.float32)
    return np.divide(features, norms, out=unit, dtype=np.float64, casting="same_kind")
