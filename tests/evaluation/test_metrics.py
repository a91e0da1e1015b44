"""Metrics against scikit-learn, hand-made cases and a slow transcription of VOC's."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from simclr_tf.evaluation.metrics import (
    METRIC_FUNCTIONS,
    confusion_matrix,
    mean_per_class,
    top_k,
    voc07_mean_average_precision,
)


def _scores(classes=7, count=200):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, count)
    scores = rng.normal(size=(count, classes))
    scores[np.arange(count), labels] += 1.0
    return scores, labels


def test_single_label_metrics_equal_scikit_learn():
    scores, labels = _scores()
    top1, top5 = top_k(scores, labels)
    assert top1 == pytest.approx(top_k_accuracy_score(labels, scores, k=1))
    assert top5 == pytest.approx(top_k_accuracy_score(labels, scores, k=5))
    answers = scores.argmax(axis=1)
    assert mean_per_class(scores, labels) == pytest.approx(balanced_accuracy_score(labels, answers))
    np.testing.assert_array_equal(
        confusion_matrix(scores, labels, 7), sklearn_metrics.confusion_matrix(labels, answers)
    )
    # A class without an image counts neither for nor against.
    few = labels < 5
    assert mean_per_class(scores[few], labels[few]) == pytest.approx(
        np.mean([np.mean(answers[labels == c] == c) for c in range(5)])
    )


def test_top_k_prefers_the_first_class_of_equal_scores():
    assert top_k(np.zeros((3, 7)), np.array([0, 4, 5])) == (1 / 3, 2 / 3)


def test_top_k_of_several_labels_counts_any_of_them():
    # The last image has no class at all.
    labels = np.array([[0, 1, 1], [1, 0, 0], [-1, -1, 0]])
    assert top_k(np.array([[0.0, 2.0, 1.0]] * 3), labels) == (1 / 3, 2 / 3)


def test_average_precision_of_a_known_ranking():
    # Ranked: yes, no, yes. Precisions 1, 1/2, 2/3 at recalls 1/2, 1/2, 1: six levels of 11 have 1
    # and five have 2/3. The second class has no image.
    scores, labels = np.array([[3.0, 0], [2.0, 0], [1.0, 0]]), np.array([[1, 0], [0, 0], [1, 0]])
    assert voc07_mean_average_precision(scores, labels) == pytest.approx((6 + 5 * 2 / 3) / 11)
    # Three, a miss, seven more: the recall 3/10 is the level 0.3, which as 3 · 0.1 lies above it.
    found = np.array([[1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1]]).T
    falling = np.arange(11.0, 0, -1)[:, None]
    assert voc07_mean_average_precision(falling, found) == pytest.approx((4 + 7 * 10 / 11) / 11)


@pytest.mark.parametrize("difficult", [False, True])
def test_average_precision_equals_a_transcription_of_the_voc_kit(difficult):
    """VOCevalcls.m; there an image's truth is 1, -1 (absent) or 0 (difficult objects only)."""
    rng = np.random.default_rng(1)
    scores, truth = rng.normal(size=(60, 4)), rng.choice([1, -1, 0] if difficult else [1, -1], 240)
    truth = truth.reshape(60, 4)
    if difficult:
        truth[:, 3] = np.minimum(truth[:, 3], 0)  # a class that no image counts for
    wanted = []
    for c in range(3 if difficult else 4):
        points, true, false = [], 0, 0
        for i in sorted(range(60), key=lambda i: -scores[i, c]):
            true += truth[i, c] > 0
            false += truth[i, c] < 0
            if true + false:  # 0/0 is NaN in MATLAB, and its max passes over NaN
                points.append((true / (truth[:, c] > 0).sum(), true / (true + false)))
        levels = [max((p for r, p in points if r >= t / 10 - 1e-9), default=0) for t in range(11)]
        wanted.append(sum(levels) / 11)
    labels = np.choose(truth + 1, [0, -1, 1])
    assert voc07_mean_average_precision(scores, labels) == pytest.approx(np.mean(wanted))


def test_metric_functions_are_found_by_name():
    scores, labels = _scores()
    assert METRIC_FUNCTIONS["top-1"](scores, labels) == top_k(scores, labels)[0]
    assert METRIC_FUNCTIONS["mean per class"](scores, labels) == mean_per_class(scores, labels)
