"""How good scores are, by the metric that is usual for a dataset."""

from collections.abc import Callable

import numpy as np


def top_k(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return (top-1, top-5) accuracy in [0, 1]; of classes with equal scores the first counts.

    Args:
        scores: [M, C], higher for likelier classes.
        labels: int [M], or [M, C] of 1 (there), 0 and -1: then a found class is any of 1.

    With fewer than six classes every class is among the first five, and top-5 is 1.
    """
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    if labels.ndim == 2:
        hits = np.take_along_axis(labels, ranked, axis=1) > 0
    else:
        hits = ranked == labels[:, None]
    return float(hits[:, 0].mean()), float(hits.any(axis=1).mean())


def mean_per_class(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over the classes among labels [M] of the share of each that is found."""
    matrix = confusion_matrix(scores, labels, scores.shape[1])
    there = matrix.sum(axis=1) > 0
    return float(np.mean(matrix.diagonal()[there] / matrix.sum(axis=1)[there]))


def voc07_mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return VOC 2007's mean average precision, in [0, 1], of labels [M, C] of 1, 0 and -1.

    A class's average precision is the mean over the recalls 0, 0.1, … 1 of the best precision at
    that recall or a higher one. Images of label -1 (difficult objects only) are left out of their
    class, and classes without an image of label 1 out of the mean.
    """
    found = []
    for score, truth in zip(scores.T, labels.T, strict=True):
        if not (truth > 0).any():
            continue
        score, truth = score[truth >= 0], truth[truth >= 0]
        hits = truth[np.argsort(-score, kind="stable")] > 0
        true = np.cumsum(hits)
        precision, recall = true / np.arange(1, len(hits) + 1), true / true[-1]
        # A little below, for tenths are no binary numbers.
        levels = np.arange(11) / 10 - 1e-9
        found.append(np.mean([precision[recall >= level].max() for level in levels]))
    return float(np.mean(found))


def confusion_matrix(scores: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return int64 [C, C]: how many images of the row's class are taken for the column's."""
    answers = np.argmax(scores, axis=1)
    pairs = np.bincount(labels * num_classes + answers, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "top-1": lambda scores, labels: top_k(scores, labels)[0],
    "mean per class": mean_per_class,
    "11-point mAP": voc07_mean_average_precision,
}
