"""Logistic regression against the penalised likelihood, minimised by other means."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.logistic import Logistic
from simclr_tf.evaluation.protocols import top_k_accuracy


def _data(num_train=150, num_test=60, dims=4, classes=(0, 1, 2, 3, 4, 5, 6), seed=0):
    rng = np.random.default_rng(seed)
    centres = 1.5 * rng.normal(size=(len(classes), dims))
    splits = []
    for count in (num_train, num_test):
        drawn = rng.integers(0, len(classes), count)
        # Offsets and scales that differ by dimension: what standardisation takes away.
        values = (centres[drawn] + rng.normal(size=(count, dims))) * 10.0 ** np.arange(dims) + 5
        splits.append(Features(values.astype(np.float32), np.array(classes)[drawn]))
    return splits


def _oracle(train, test, num_classes, c):
    mean, std = train.features.mean(0), train.features.std(0)
    inputs, queries = ((f.features - mean).astype(np.float64) / std for f in (train, test))
    onehot = np.eye(num_classes)[train.labels]

    def split(flat):
        return flat[:-num_classes].reshape(-1, num_classes), flat[-num_classes:]

    def objective(flat):
        weights, bias = split(flat)
        likelihood = (onehot * log_softmax(inputs @ weights + bias, axis=1)).sum()
        return -c * likelihood + 0.5 * (weights**2).sum()

    start = np.zeros((inputs.shape[1] + 1) * num_classes)
    # Without a gradient of ours: BFGS takes finite differences.
    weights, bias = split(minimize(objective, start, method="BFGS").x)
    return np.argsort(-(queries @ weights + bias), axis=1)[:, :5]


@pytest.mark.parametrize("c", [1.0, 0.01])
def test_equals_the_minimised_likelihood(c):
    train, test = _data()
    answer = Logistic(C=c).predict(train, test, 7)
    assert not answer.notice
    expected = _oracle(train, test, 7, c)
    assert answer.classes.shape == (60, 5)
    # The tolerance of L-BFGS may turn over near ties.
    assert (answer.classes == expected).mean() > 0.98
    assert (answer.classes[:, 0] == expected[:, 0]).mean() > 0.98


def test_classes_that_train_skips_keep_their_numbers():
    train, test = _data(classes=(1, 4, 9))
    answer = Logistic().predict(train, test, 10)
    assert set(np.unique(answer.classes)) == {1, 4, 9}
    top1, top5 = top_k_accuracy(answer.classes, test.labels)
    assert 0.6 < top1 < 1.0
    assert top5 == 1.0


def test_a_fit_that_does_not_converge_says_so():
    train, test = _data()
    assert "after 2 steps" in Logistic(max_iter=2).predict(train, test, 7).notice


def test_top_k_accuracy():
    classes = np.array([[3, 1, 0, 2, 4], [0, 1, 2, 3, 4], [5, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
    assert top_k_accuracy(classes, np.array([3, 4, 0, 2])) == (0.25, 0.75)
