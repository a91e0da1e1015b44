"""Classification metrics of scores: top-k, mean per class, VOC 2007's average precision."""

from collections.abc import Callable

import numpy as np


def top_k(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns top-1 and top-5 accuracy in [0, 1] of scores [M, C] for labels [M] or [M, C].

    Of equal scores the first class counts. With labels [M, C] of 1, 0 and -1, any class of label 1
    is correct.
    """
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    if labels.ndim == 2:
        hits = np.take_along_axis(labels, ranked, axis=1) > 0
    else:
        hits = ranked == labels[:, None]
    return float(hits[:, 0].mean()), float(hits.any(axis=1).mean())


def mean_per_class(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean of the per-class accuracies over the classes among labels [M]."""
    matrix = confusion_matrix(scores, labels, scores.shape[1])
    present = matrix.sum(axis=1) > 0
    return float(np.mean(matrix.diagonal()[present] / matrix.sum(axis=1)[present]))


def voc07_mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns VOC 2007's 11-point mean average precision of scores [M, C], in [0, 1].

    The average precision of a class is the mean, over the recalls 0, 0.1, … 1, of the best
    precision at that recall or a higher one. Images of label -1 (difficult objects only) are
    excluded from their class, and classes without an image of label 1 from the mean.
    """
    precisions = []
    for score, truth in zip(scores.T, labels.T, strict=True):
        if not (truth > 0).any():
            continue
        score, truth = score[truth >= 0], truth[truth >= 0]
        hits = truth[np.argsort(-score, kind="stable")] > 0
        true = np.cumsum(hits)
        precision, recall = true / np.arange(1, len(hits) + 1), true / true[-1]
        # Slightly lower, because tenths are not exact binary numbers.
        levels = np.arange(11) / 10 - 1e-9
        precisions.append(np.mean([precision[recall >= level].max() for level in levels]))
    return float(np.mean(precisions))


def confusion_matrix(scores: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts the images of each true class (row) by predicted class (column): int64 [C, C]."""
    predictions = np.argmax(scores, axis=1)
    pairs = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


# Keys: options.METRICS.
METRIC_FUNCTIONS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "top-1": lambda scores, labels: top_k(scores, labels)[0],
    "mean per class": mean_per_class,
    "11-point mAP": voc07_mean_average_precision,
}
