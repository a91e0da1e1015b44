"""Weighted k-nearest-neighbor classification of frozen features (Wu et al. 2018, §3.4)."""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from simclr_tf.errors import UserError
from simclr_tf.evaluation.protocols import Prediction, ProtocolInputs

_MAX_DEFAULT_K, _MIN_DEFAULT_K = 200, 5


@dataclass(frozen=True)
class KNN:
    """Protocol `knn`: the k nearest neighbors by cosine vote with exp(similarity / T).

    It returns a prediction for every pair of `k` and `temperature`.

    >>> from simclr_tf.evaluation import KNN
    >>> KNN(k=(20, 200)).check(num_train=1000)

    Args:
        k: numbers of neighbors; without any, `default_k` of the training labels.
        temperature: values of T, above 0.
    """

    k: tuple[int, ...] = ()
    temperature: tuple[float, ...] = (0.1,)

    name: ClassVar[str] = "knn"

    def check(self, num_train: int) -> None:
        """Raises UserError if a k or T is not possible with `num_train` examples."""
        for k in self.k:
            if not 1 <= k <= num_train:
                raise UserError(
                    f"--knn_k={k}: expected 1 to {num_train}, the number of images of "
                    "--train_split. Fix: lower it, or choose a larger split"
                )
        for temperature in self.temperature:
            if not 0 < temperature < float("inf"):
                raise UserError(
                    f"--knn_temperature={temperature}: expected a finite number above 0, "
                    f"got {temperature}"
                )

    def predict(self, inputs: ProtocolInputs) -> list[Prediction]:
        """Classifies the test images with one search for neighbors."""
        train, predictions = inputs.train, []
        ks = self.k or (default_k(train.labels),)
        similarity, nearest = nearest_neighbors(train.features, inputs.test.features, max(ks))
        for k, t in itertools.product(ks, self.temperature):
            labels = train.labels[nearest[:, :k]]
            scores = weighted_votes(similarity[:, :k], labels, inputs.num_classes, t)
            warning = self._warning(k, _smallest_class(train.labels))
            predictions.append(Prediction(scores, f"k={k}, T={t:g}", warning))
        return predictions

    def _warning(self, k: int, smallest: int) -> str:
        size = f"the smallest class has {smallest} training images"
        if self.k and k > smallest:
            return f"--knn_k={k}: {size}, so that larger classes outvote it"
        if not self.k and k < _MAX_DEFAULT_K:
            return f"k-NN uses k={k} instead of {_MAX_DEFAULT_K}, because {size}; see --knn_k"
        return ""


def default_k(labels: np.ndarray) -> int:
    """Returns 200, or the size of the smallest class if that is less, but at least 5.

    The classes of labels [N] or [N, C] that are smaller than k are outvoted by the larger ones.
    Images of label -1 do not count.

    >>> import numpy as np
    >>> from simclr_tf.evaluation.knn import default_k
    >>> default_k(np.repeat([0, 1], [300, 12]))
    12
    """
    if labels.ndim == 1:
        labels = labels[labels >= 0]
    return min(_MAX_DEFAULT_K, max(_MIN_DEFAULT_K, _smallest_class(labels)), len(labels))


def _smallest_class(labels: np.ndarray) -> int:
    """Returns the number of images of the smallest class that has any."""
    counts = np.bincount(labels) if labels.ndim == 1 else (labels == 1).sum(axis=0)
    return int(counts[counts > 0].min())


def nearest_neighbors(
    bank: np.ndarray,
    queries: np.ndarray,
    k: int,
    *,
    block_elements: int = 2**25,
    query_block: int = 1024,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest rows of `bank` [N, D] by cosine similarity to `queries` [M, D].

    Returns (cosine similarity float32 [M, k], bank row int64 [M, k]), best first; of equal
    similarities, the lower row first. Bank and queries are normalized and compared block by block:
    a block of the bank and its similarities take 128 MiB each, and the bank may be memory-mapped.
    """
    num_bank, dims = bank.shape
    if not 1 <= k <= num_bank:
        raise ValueError(f"k={k}: expected 1 to {num_bank}, the number of training items")
    rows = max(1, block_elements // max(dims, query_block))
    similarity = np.empty((len(queries), 0), np.float32)
    nearest = np.empty((len(queries), 0), np.int64)
    with _full_float32_matmul():
        for start in range(0, num_bank, rows):
            block = tf.constant(l2_normalize_rows(bank[start : start + rows]))
            merged = []
            for first in range(0, len(queries), query_block):
                part = slice(first, first + query_block)
                best, rows_of_best = _merge(
                    tf.constant(l2_normalize_rows(queries[part])),
                    block,
                    tf.constant(similarity[part]),
                    tf.constant(nearest[part]),
                    tf.constant(start, tf.int64),
                    tf.constant(min(k, start + len(block))),
                )
                merged.append((best.numpy(), rows_of_best.numpy()))
            similarity, nearest = map(np.concatenate, zip(*merged, strict=True))
    return similarity, nearest


@contextlib.contextmanager
def _full_float32_matmul() -> Iterator[None]:
    """Disables TensorFloat-32, which rounds the inputs of products to ten bits on recent GPUs."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


# At module level, so that repeated searches reuse its graph.
@tf.function(autograph=False, reduce_retracing=True)
def _merge(queries, block, similarity, nearest, start, k):
    """Returns the best k of the neighbors found so far and a block of the bank."""
    new_similarity = tf.matmul(queries, block, transpose_b=True)
    rows = start + tf.range(tf.shape(block, tf.int64)[0])
    # Earlier neighbors come first, because top_k prefers the first of equal values.
    best, indices = tf.math.top_k(tf.concat([similarity, new_similarity], axis=1), k)
    num_old = tf.shape(similarity)[1]
    old = tf.gather(
        tf.pad(nearest, [[0, 0], [0, 1]]), tf.minimum(indices, num_old), axis=1, batch_dims=1
    )
    new = tf.gather(rows, tf.maximum(indices - num_old, 0))
    return best, tf.where(indices < num_old, old, new)


def weighted_votes(
    similarity: np.ndarray, labels: np.ndarray, num_classes: int, temperature: float
) -> np.ndarray:
    """Returns the sums of the neighbors' votes for each class, float32 [M, C].

    The neighbors have `similarity` [M, k], best first, and `labels` int [M, k], or [M, k, C] of 0
    and 1 with a vote for each class. Votes are relative to that of the nearest neighbor.
    """
    # Relative to the nearest neighbor: the order of the sums is the same and exp cannot overflow
    # at low temperatures.
    weights = np.exp((similarity - similarity[:, :1]) / temperature, dtype=np.float32)
    if labels.ndim == 3:
        return np.matmul(weights[:, np.newaxis], labels.astype(np.float32))[:, 0]
    size = len(labels)
    flat_indices = np.arange(size)[:, None] * num_classes + labels
    votes = np.bincount(flat_indices.ravel(), weights.ravel(), minlength=size * num_classes)
    return votes.reshape(size, num_classes).astype(np.float32)


def knn_predict(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    num_classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> np.ndarray:
    """Classifies test items by the weighted votes of their k nearest training items.

    >>> import numpy as np
    >>> from simclr_tf.evaluation import knn_predict
    >>> train = np.array([[1.0, 0], [0, 1]], np.float32)
    >>> knn_predict(train, np.array([0, 1]), train, num_classes=2, k=1)
    array([[0, 1],
           [1, 0]])

    Args:
        train_features: [N, D] float.
        train_labels: [N] int in [0, num_classes).
        test_features: [M, D] float.
        num_classes: number of classes C, at least 1.
        k: number of neighbors, from 1 to N.
        temperature: above 0.

    Returns:
        Classes [M, min(5, C)] int64, best first; classes with equal votes in ascending order.

    Raises:
        ValueError: if k or a label is out of range.
    """
    similarity, nearest = nearest_neighbors(train_features, test_features, k)
    if not 0 <= np.min(train_labels) <= np.max(train_labels) < num_classes:
        raise ValueError(f"train_labels: expected values in [0, {num_classes})")
    scores = weighted_votes(similarity, np.asarray(train_labels)[nearest], num_classes, temperature)
    return np.argsort(-scores, axis=1, kind="stable")[:, :5]


def l2_normalize_rows(features: np.ndarray) -> np.ndarray:
    """Returns the rows of [N, D] divided by their length as float32; rows of zeros unchanged."""
    # In float64, where the square of a float32 cannot overflow; NumPy converts block by block.
    norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    norms = np.where(norms > 0, norms, 1)[:, np.newaxis]
    unit = np.empty(features.shape, np.float32)
    return np.divide(features, norms, out=unit, dtype=np.float64, casting="same_kind")
