"""Logistic regression against the penalized likelihood, minimized by other means."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.logistic import Logistic
from simclr_tf.evaluation.metrics import top_k
from simclr_tf.evaluation.protocols import ProtocolInputs


def _data(num_train=150, num_test=60, dims=4, classes=(0, 1, 2, 3, 4, 5, 6), seed=0):
    rng = np.random.default_rng(seed)
    centers = 1.5 * rng.normal(size=(len(classes), dims))
    splits = []
    for count in (num_train, num_test):
        drawn = rng.integers(0, len(classes), count)
        # Offsets and scales that differ by dimension: which standardization removes.
        values = (centers[drawn] + rng.normal(size=(count, dims))) * 10.0 ** np.arange(dims) + 5
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


def _ranked(answer):
    return np.argsort(-answer.scores, axis=1, kind="stable")[:, :5]


ADAM = {"adam_epochs": 600, "adam_learning_rate": 0.1}


def _fit(train, test, num_classes, **settings):
    (answer,) = Logistic(**settings).predict(ProtocolInputs(train, test, num_classes))
    return answer


@pytest.mark.parametrize(("solver", "c"), [("lbfgs", 1.0), ("lbfgs", 0.01), ("adam", 0.01)])
def test_fit_equals_the_minimized_likelihood(solver, c):
    train, test = _data()
    # The epochs have one batch of 150 each.
    answer = _fit(train, test, 7, l2=1 / (c * 150), solver=solver, **ADAM)
    assert not answer.warning
    assert answer.setting == ("adam" if solver == "adam" else "")
    expected = _oracle(train, test, 7, c)
    # The tolerance of L-BFGS may turn over near ties.
    assert (_ranked(answer) == expected).mean() > 0.98
    assert (_ranked(answer)[:, 0] == expected[:, 0]).mean() > 0.98


@pytest.mark.parametrize("classes", [(0, 1), (0, 1, 2, 3, 4, 5, 6)])
def test_classifier_takes_features_that_are_not_standardized(classes):
    train, test = _data(classes=classes)
    answer = _fit(train, test, len(classes))
    kernel, bias = answer.classifier.kernel, answer.classifier.bias
    scores = test.features @ kernel + bias
    np.testing.assert_allclose(scores, answer.scores, rtol=1e-3, atol=1e-3)
    scaler = StandardScaler().fit(train.features)
    oracle = LogisticRegression().fit(scaler.transform(train.features), train.labels)
    wanted = oracle.predict_proba(scaler.transform(test.features))
    exponents = np.exp(scores - scores.max(1, keepdims=True))
    np.testing.assert_allclose(exponents / exponents.sum(1, keepdims=True), wanted, atol=1e-3)


def test_classes_absent_from_training_are_never_predicted():
    train, test = _data(classes=(1, 4, 9))
    answer = _fit(train, test, 10)
    assert set(answer.scores.argmax(axis=1)) == {1, 4, 9}
    top1, top5 = top_k(answer.scores, test.labels)
    assert 0.6 < top1 < 1.0
    assert top5 == 1.0


def test_default_penalty_is_scikit_learns():
    train, test = _data()
    np.testing.assert_array_equal(
        _fit(train, test, 7).scores, _fit(train, test, 7, l2=1 / 150).scores
    )


def test_unconverged_fit_has_a_warning():
    train, test = _data()
    assert "after 2 steps" in _fit(train, test, 7, max_iter=2).warning


def test_sweep_selects_the_best_penalty_on_held_out_images():
    # Two informative dimensions and 60 of noise, in which 100 images are separable by chance.
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    values = rng.normal(size=(400, 62)).astype(np.float32)
    values[:, :2] += 1.2 * labels[:, None]
    train, test = Features(values[:100], labels[:100]), Features(values[100:], labels[100:])
    chosen = _fit(train, test, 2, sweep=True)
    assert chosen.setting.startswith("L2=") and chosen.setting.endswith("chosen of 45")
    fit_rows, test_rows = train_test_split(
        np.arange(100), test_size=0.1, random_state=0, stratify=train.labels
    )
    fit_rows = np.sort(fit_rows)
    scores = {}
    for l2 in np.logspace(-6, 5, 45):
        scaler = StandardScaler().fit(values[fit_rows])
        model = LogisticRegression(C=1 / (l2 * 90), max_iter=1000)
        model.fit(scaler.transform(values[fit_rows]), labels[fit_rows])
        scores[l2] = model.score(scaler.transform(values[test_rows]), labels[test_rows])
    wanted = max(l2 for l2 in scores if scores[l2] == max(scores.values()))
    assert chosen.setting == f"L2={wanted:.2g}, chosen of 45"
    fitted = _fit(train, test, 2, l2=wanted)
    np.testing.assert_allclose(chosen.scores, fitted.scores, atol=1e-2)


class _Recording(Logistic):
    """Records the losses of warm-started fits and of the same fits from zero."""

    def fit(self, train, num_classes, l2, start=None, seed=0):
        head = super().fit(train, num_classes, l2, start, seed)
        cold = super().fit(train, num_classes, l2, None, seed)
        LOSSES.append([_loss(head, train), _loss(cold, train)])
        return head


LOSSES = []


@pytest.mark.parametrize(
    ("solver", "multi_label"), [("lbfgs", False), ("lbfgs", True), ("adam", False)]
)
def test_fits_of_the_sweep_start_from_the_previous_one(solver, multi_label):
    """Fits that stop after one step reach a lower loss from there than from zero."""
    LOSSES.clear()
    train, test = _data()
    labels = np.eye(7, dtype=np.int64)[train.labels] if multi_label else train.labels
    inputs = ProtocolInputs(Features(train.features, labels), test, 7)
    values = tuple(np.logspace(-6, -4, 3).tolist())
    sweep = {"sweep": True, "max_iter": 1, "adam_epochs": 1, "l2_values": values}
    (prediction,) = _Recording(solver=solver, **sweep).predict(inputs)
    assert prediction.setting.endswith("chosen of 3")
    warm, cold = np.transpose(LOSSES[:3])
    assert warm[0] == cold[0]
    assert (np.diff(warm) < 0).all() and (warm[1:] < cold[1:]).all()


def _loss(head, part):
    logits = head.logits(part.features)
    if part.labels.ndim == 2:
        return np.logaddexp(0, np.where(part.labels, -logits, logits)).sum(1).mean()
    return -log_softmax(logits, axis=1)[np.arange(len(logits)), part.labels].mean()


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(40) % 10,  # the tenth is fewer images than there are classes
        np.arange(20) == 18,  # the only image of its class, which a plain draw holds out
    ],
)
def test_sweep_works_with_few_labels(labels):
    labels = labels.astype(np.int64)
    train = Features(np.eye(10, dtype=np.float32)[labels], labels)
    answer = _fit(train, train, 10, sweep=True)
    assert answer.setting.endswith("chosen of 45")
    assert top_k(answer.scores, labels)[0] > 0.9


def test_sweep_refuses_held_out_images_without_a_class():
    labels = np.zeros((20, 3), np.int64)
    labels[[0, 2], [0, 1]] = 1
    train = Features(np.eye(20, dtype=np.float32), labels)
    with pytest.raises(UserError, match="--l2_sweep: none of the 2 held-out images"):
        _fit(train, train, 3, sweep=True)


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_several_labels_are_a_regression_per_class(solver):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 3)).astype(np.float32)
    several = (values + 0.8 * rng.normal(size=(200, 3)) > 0).astype(np.int64)
    # One class that no image has, and one that all have.
    several = np.concatenate([several, np.tile([0, 1], (200, 1))], axis=1)
    inputs = ProtocolInputs(
        Features(values[:150], several[:150]), Features(values[150:], several[150:]), 5
    )
    (answer,) = Logistic(solver=solver, **ADAM).predict(inputs)
    assert answer.classifier is None
    scaler = StandardScaler().fit(values[:150])
    for c in range(3):
        oracle = LogisticRegression().fit(scaler.transform(values[:150]), several[:150, c])
        wanted = oracle.decision_function(scaler.transform(values[150:]))
        np.testing.assert_allclose(answer.scores[:, c], wanted, rtol=0.02, atol=0.02)
    assert (answer.scores[:, 3] < 0).all() and (answer.scores[:, 4] > 0).all()


@pytest.mark.parametrize(("sweep", "least"), [(False, 2), (True, 20)])
def test_check_refuses_too_few_images(sweep, least):
    Logistic(sweep=sweep).check(least)
    with pytest.raises(UserError, match="--train_split"):
        Logistic(sweep=sweep).check(least - 1)
