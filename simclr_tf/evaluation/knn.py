"""Weighted k-nearest-neighbour classification of frozen features (Wu et al. 2018, §3.4)."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from simclr_tf.errors import UserError
from simclr_tf.evaluation.protocols import Prediction, ProtocolInputs

# What is held at once of the bank and of the similarities: 2^25 float32 take 128 MiB.
_BLOCK_ELEMENTS = 2**25
_QUERIES = 1024


@dataclass(frozen=True)
class KNN:
    """The protocol `knn`: k neighbours by cosine, each voting with exp(similarity / T).

    With several `k` or `temperature` there is an answer for every pair of them.
    """

    k: tuple[int, ...] = (200,)
    temperature: tuple[float, ...] = (0.1,)

    name: ClassVar[str] = "knn"

    def check(self, num_train: int) -> None:
        """Raise UserError where a k or T cannot be used with `num_train` examples."""
        for k in self.k:
            if not 1 <= k <= num_train:
                raise UserError(
                    f"--knn_k={k} must lie between 1 and the {num_train} images of --train_split; "
                    "lower it, or take a larger split"
                )
        for temperature in self.temperature:
            if not 0 < temperature < float("inf"):
                raise UserError(f"--knn_temperature={temperature} must be above 0 and finite")

    def predict(self, task: ProtocolInputs) -> list[Prediction]:
        """Classify the test images by their neighbours, which are searched for once."""
        train = task.train
        similarity, nearest = nearest_neighbors(train.features, task.test.features, max(self.k))
        return [
            Prediction(
                weighted_votes(
                    similarity[:, :k], train.labels[nearest[:, :k]], task.num_classes, t
                ),
                f"k={k}, T={t:g}",
            )
            for k in self.k
            for t in self.temperature
        ]


def nearest_neighbors(
    bank: np.ndarray, queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (cosine similarity float32 [M, k], row int64 [M, k]) of the k nearest, best first.

    Of rows that are equally near the first counts. Bank and queries are worked through in blocks,
    normalised on the way, so that beside them there are 128 MiB of each, of their similarities, and
    the answer; the bank may be mapped from a file.

    Args:
        bank: float [N, D].
        queries: float [M, D].
        k: from 1 to N.

    Raises:
        ValueError: k does not lie between 1 and N.
    """
    num_bank, dims = bank.shape
    if not 1 <= k <= num_bank:
        raise ValueError(f"k={k} must lie between 1 and the number of train items, {num_bank}")
    rows = max(1, _BLOCK_ELEMENTS // max(dims, _QUERIES))
    similarity = np.empty((len(queries), 0), np.float32)
    nearest = np.empty((len(queries), 0), np.int64)
    with _all_digits():
        for start in range(0, num_bank, rows):
            block = tf.constant(l2_normalize_rows(bank[start : start + rows]))
            best, places = [], []
            for first in range(0, len(queries), _QUERIES):
                part = slice(first, first + _QUERIES)
                values, indices = _merge(
                    tf.constant(l2_normalize_rows(queries[part])),
                    block,
                    tf.constant(similarity[part]),
                    tf.constant(nearest[part]),
                    tf.constant(start, tf.int64),
                    tf.constant(min(k, start + len(block))),
                )
                best.append(values.numpy())
                places.append(indices.numpy())
            similarity, nearest = np.concatenate(best), np.concatenate(places)
    return similarity, nearest


@contextlib.contextmanager
def _all_digits() -> Iterator[None]:
    """Multiplies in float32, where GPUs of late would keep ten bits of the inputs."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


# At module level, so that repeated probes reuse its graph.
@tf.function(autograph=False, reduce_retracing=True)
def _merge(queries, block, similarity, nearest, start, k):
    """The best k of those found so far and of a block of the bank."""
    found = tf.matmul(queries, block, transpose_b=True)
    rows = start + tf.range(tf.shape(block, tf.int64)[0])
    # Those found so far stand first: of equals, top_k takes the first.
    together = tf.concat([similarity, found], axis=1)
    best, places = tf.math.top_k(together, k)
    before = tf.shape(similarity)[1]
    old = tf.gather(
        tf.pad(nearest, [[0, 0], [0, 1]]), tf.minimum(places, before), axis=1, batch_dims=1
    )
    new = tf.gather(rows, tf.maximum(places - before, 0))
    return best, tf.where(places < before, old, new)


def weighted_votes(
    similarity: np.ndarray, labels: np.ndarray, num_classes: int, temperature: float
) -> np.ndarray:
    """Return the sums of votes, float32 [M, C].

    Args:
        similarity: [M, k], best first.
        labels: of the neighbours, int [M, k], or [M, k, C] of 0 and 1: a vote for each class.
        num_classes: C.
        temperature: above 0; the lower, the more the nearest count.
    """
    # Relative to the nearest neighbour: the order of the sums is the same and exp cannot overflow
    # at low temperatures.
    weights = np.exp((similarity - similarity[:, :1]) / temperature, dtype=np.float32)
    if labels.ndim == 3:
        return np.matmul(weights[:, np.newaxis], labels.astype(np.float32))[:, 0]
    size = len(labels)
    ballots = np.arange(size)[:, None] * num_classes + labels
    counted = np.bincount(ballots.ravel(), weights.ravel(), minlength=size * num_classes)
    return counted.reshape(size, num_classes).astype(np.float32)


def knn_predict(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    num_classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> np.ndarray:
    """Return the classes with the most votes among each test item's k nearest train items.

    Args:
        train_features: [N, D] float.
        train_labels: [N] int in [0, num_classes).
        test_features: [M, D] float.
        num_classes: C, at least 1.
        k: neighbours, from 1 to N.
        temperature: above 0.

    Returns:
        [M, min(5, C)] int64, best first; classes with equal votes, none included, by number.

    Raises:
        ValueError: k does not lie between 1 and N, or a label is not in its range.
    """
    similarity, nearest = nearest_neighbors(train_features, test_features, k)
    if not 0 <= np.min(train_labels) <= np.max(train_labels) < num_classes:
        raise ValueError(f"train labels must lie in [0, {num_classes})")
    scores = weighted_votes(similarity, np.asarray(train_labels)[nearest], num_classes, temperature)
    return np.argsort(-scores, axis=1, kind="stable")[:, :5]


def l2_normalize_rows(features: np.ndarray) -> np.ndarray:
    """Return float32 [N, D], each row over its length; a row of zeros stays."""
    # In float64, where the square of no float32 is lost; NumPy converts piece by piece.
    norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    # A feature of all zeros stays zero: equally near to everything.
    norms = np.where(norms > 0, norms, 1)[:, np.newaxis]
    unit = np.empty(features.shape, np.float32)
    return np.divide(features, norms, out=unit, dtype=np.float64, casting="same_kind")
