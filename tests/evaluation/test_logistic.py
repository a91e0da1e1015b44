"""Logistic regression against the penalised likelihood, minimised by other means."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from simclr_tf.errors import UserError
from simclr_tf.evaluation import logistic
from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.logistic import Logistic
from simclr_tf.evaluation.metrics import top_k
from simclr_tf.evaluation.protocols import ProtocolInputs


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


def _ranked(answer):
    return np.argsort(-answer.scores, axis=1, kind="stable")[:, :5]


def _fit(train, test, num_classes, **settings):
    (answer,) = Logistic(**settings).predict(ProtocolInputs(train, test, num_classes))
    return answer


@pytest.mark.parametrize("c", [1.0, 0.01])
@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_equals_the_minimised_likelihood(monkeypatch, c, solver):
    train, test = _data()
    monkeypatch.setattr(logistic, "_ADAM_EPOCHS", 3000)  # of one batch of 150 each
    monkeypatch.setattr(logistic, "_ADAM_RATE", 0.02)
    answer = _fit(train, test, 7, l2=1 / (c * 150), solver=solver)
    assert not answer.notice
    assert answer.setting == ("adam" if solver == "adam" else "")
    expected = _oracle(train, test, 7, c)
    # The tolerance of L-BFGS may turn over near ties.
    assert (_ranked(answer) == expected).mean() > 0.98
    assert (_ranked(answer)[:, 0] == expected[:, 0]).mean() > 0.98


def test_default_penalty_is_scikit_learns():
    train, test = _data()
    explicit = _fit(train, test, 7, l2=1 / 150)
    np.testing.assert_allclose(_fit(train, test, 7).scores, explicit.scores)


@pytest.mark.parametrize("classes", [(0, 1), (0, 1, 2, 3, 4, 5, 6)])
def test_the_classifier_takes_features_as_they_are(classes):
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


def test_classes_that_train_skips_keep_their_numbers():
    train, test = _data(classes=(1, 4, 9))
    answer = _fit(train, test, 10)
    assert set(answer.scores.argmax(axis=1)) == {1, 4, 9}
    top1, top5 = top_k(answer.scores, test.labels)
    assert 0.6 < top1 < 1.0
    assert top5 == 1.0


def test_a_fit_that_does_not_converge_says_so():
    train, test = _data()
    assert "after 2 steps" in _fit(train, test, 7, max_iter=2).notice


def test_the_sweep_takes_the_penalty_that_is_best_on_what_it_held_out():
    # Two dimensions that tell, and 60 of noise in which 100 images can be told apart by chance.
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    values = rng.normal(size=(400, 62)).astype(np.float32)
    values[:, :2] += 1.2 * labels[:, None]
    train, test = Features(values[:100], labels[:100]), Features(values[100:], labels[100:])
    answer = _fit(train, test, 2, sweep=True)
    assert answer.setting.startswith("L2=") and answer.setting.endswith("chosen of 45")
    learn, judge = train_test_split(
        np.arange(100), test_size=0.1, random_state=0, stratify=train.labels
    )
    learn = np.sort(learn)
    scores = {}
    for l2 in np.logspace(-6, 5, 45):
        scaler = StandardScaler().fit(values[learn])
        model = LogisticRegression(C=1 / (l2 * 90), max_iter=1000)
        model.fit(scaler.transform(values[learn]), labels[learn])
        scores[l2] = model.score(scaler.transform(values[judge]), labels[judge])
    wanted = max(l2 for l2 in scores if scores[l2] == max(scores.values()))
    assert answer.setting == f"L2={wanted:.2g}, chosen of 45"
    fitted = _fit(train, test, 2, l2=wanted)
    np.testing.assert_allclose(answer.scores, fitted.scores, atol=1e-2)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_each_fit_of_the_sweep_starts_from_the_one_before(monkeypatch, solver, several):
    """Fits that are cut short after a step get further from there than from zero."""
    monkeypatch.setattr(logistic, "_ADAM_EPOCHS", 1)
    monkeypatch.setattr(logistic, "L2_SWEEP", np.logspace(-6, -4, 4))
    train, test = _data()
    labels = np.eye(7, dtype=np.int64)[train.labels] if several else train.labels
    task = ProtocolInputs(Features(train.features, labels), test, 7)
    settings = Logistic(sweep=True, solver=solver, max_iter=1)
    assert settings.predict(task)[0].setting.endswith("chosen of 4")

    fit = settings._by_lbfgs if solver == "lbfgs" else settings._by_adam
    losses = []

    def recording(task, part, l2, start, notices):
        head = fit(task, part, l2, start, notices)
        losses.append([_loss(h, part) for h in (head, fit(task, part, l2, None, []))])
        return head

    settings._choose(task, recording, [])
    warm, cold = np.transpose(losses)
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
        np.arange(20) == 18,  # the one image of its class, which a plain draw holds out
    ],
)
def test_the_sweep_takes_few_labels(labels):
    labels = labels.astype(np.int64)
    train = Features(np.eye(10, dtype=np.float32)[labels], labels)
    answer = _fit(train, train, 10, sweep=True)
    assert answer.setting.endswith("chosen of 45")
    assert top_k(answer.scores, labels)[0] > 0.9


def test_a_sweep_without_a_class_to_choose_by_is_refused():
    labels = np.zeros((20, 3), np.int64)
    labels[[0, 2], [0, 1]] = 1
    train = Features(np.eye(20, dtype=np.float32), labels)
    with pytest.raises(UserError, match="--l2_sweep: none of the 2 images"):
        _fit(train, train, 3, sweep=True)


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_several_labels_are_a_regression_for_each_class(monkeypatch, solver):
    monkeypatch.setattr(logistic, "_ADAM_EPOCHS", 3000)
    monkeypatch.setattr(logistic, "_ADAM_RATE", 0.02)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 3)).astype(np.float32)
    several = (values + 0.8 * rng.normal(size=(200, 3)) > 0).astype(np.int64)
    # One is never there, and one always.
    several = np.concatenate([several, np.tile([0, 1], (200, 1))], axis=1)
    task = ProtocolInputs(
        Features(values[:150], several[:150]), Features(values[150:], several[150:]), 5
    )
    (answer,) = Logistic(solver=solver).predict(task)
    assert answer.classifier is None
    scaler = StandardScaler().fit(values[:150])
    for c in range(3):
        oracle = LogisticRegression().fit(scaler.transform(values[:150]), several[:150, c])
        wanted = oracle.decision_function(scaler.transform(values[150:]))
        np.testing.assert_allclose(answer.scores[:, c], wanted, rtol=0.02, atol=0.02)
    assert (answer.scores[:, 3] < 0).all() and (answer.scores[:, 4] > 0).all()


@pytest.mark.parametrize(("sweep", "least"), [(False, 2), (True, 20)])
def test_too_few_images(sweep, least):
    Logistic(sweep=sweep).check(least)
    with pytest.raises(UserError, match="--train_split"):
        Logistic(sweep=sweep).check(least - 1)
