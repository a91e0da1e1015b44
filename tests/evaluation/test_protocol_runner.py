"""Protocols × encoders on tiny data, their cache, and refused inputs."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.data.base import ArraySource
from simclr_tf.errors import UserError
from simclr_tf.evaluation import KNN, EvalContext, Linear, Logistic, run_protocols
from simclr_tf.evaluation.metrics import voc07_mean_average_precision
from tests.evaluation.color_images import NAMES, color_source

PROTOCOLS = (KNN(k=(5,)), Logistic())
RECORD_KEYS = [
    *("protocol", "dataset", "train_split", "test_split", "top1", "top5", "num_train"),
    *("num_test", "step", "seconds", "setting", "metric", "value"),
]


def _splits(train=(0, 1, 2) * 7, test=(0, 1, 2) * 4):
    return color_source(train, seed=0), color_source(test, seed=1)


def _color(images, training):
    return tf.reduce_mean(images, [1, 2])


def _noise(images, training):
    return images[:, :2, 0, 0] * 1e-3


def _evaluate(encoder=_color, splits=None, protocols=PROTOCOLS, random=None, **changes):
    train, test = splits or _splits()
    context = EvalContext("colors", "train", "test", image_size=8, step=12, batch_size=8)
    encoders = {"": lambda: (encoder, "trained")}
    if random:
        encoders["random"] = lambda: (random, "random")
    context = dataclasses.replace(context, **changes)
    return run_protocols(encoders, train, test, protocols, context)


def test_every_protocol_runs_on_every_encoder():
    found = list(_evaluate(random=_noise))
    names = ["knn", "logistic", "knn/random", "logistic/random"]
    assert [e.protocol for e in found] == names
    by_name = {e.protocol: e for e in found}
    assert by_name["knn"].top1 == by_name["logistic"].top1 == 1.0
    assert by_name["knn/random"].top1 < 0.9
    for evaluation in found:
        record = evaluation.record()
        assert list(record) == RECORD_KEYS
        assert (record["num_train"], record["num_test"], record["step"]) == (21, 12, 12)
        assert (record["metric"], record["value"]) == ("top-1", record["top1"])
        assert record["top5"] == 1.0
        assert 0 < record["seconds"] < 60


def test_encoder_is_traced_once_for_all_splits_and_protocols():
    calls = []

    def encoder(images, training):
        calls.append(training)
        return _color(images, training)

    list(_evaluate(encoder, protocols=(KNN(k=(1, 5)), Logistic())))
    assert calls == [False]


def test_predictions_are_cached(tmp_path, monkeypatch):
    stopped = _evaluate(cache_dir=tmp_path)
    before = next(stopped)
    monkeypatch.setattr(KNN, "predict", None)  # would fail if it were called again
    again, logistic = _evaluate(cache_dir=tmp_path)
    assert again.record() == before.record()
    np.testing.assert_array_equal(again.scores, before.scores)
    monkeypatch.setattr(Logistic, "predict", None)
    _, found = _evaluate(cache_dir=tmp_path)
    assert found.record() == logistic.record()
    np.testing.assert_array_equal(found.classifier.kernel, logistic.classifier.kernel)
    np.testing.assert_array_equal(found.classifier.bias, logistic.classifier.bias)


@pytest.mark.parametrize(
    "changes",
    [
        {"protocols": (KNN(k=(4,)),)},
        {"seed": 1},
        {"splits": _splits(test=(0, 1, 2) * 3)},
        {"splits": _splits(train=(0, 1, 2) * 6)},
    ],
)
def test_predictions_of_other_inputs_are_computed_again(tmp_path, monkeypatch, changes):
    list(_evaluate(cache_dir=tmp_path))
    asked = []
    predict = KNN.predict
    monkeypatch.setattr(KNN, "predict", lambda *args: asked.append(1) or predict(*args))
    list(_evaluate(cache_dir=tmp_path, **changes))
    assert asked


def test_results_are_yielded_before_a_later_failure():
    found = _evaluate(random=lambda images, training: _color(images, training) / 0)
    assert [next(found).protocol, next(found).protocol] == ["knn", "logistic"]
    with pytest.raises(UserError, match="not finite"):
        next(found)


def test_warning_is_not_part_of_the_record():
    (evaluation,) = _evaluate(protocols=(Logistic(max_iter=1),))
    assert "before convergence" in evaluation.warning
    assert list(evaluation.record()) == RECORD_KEYS


def _never(images, training):
    raise AssertionError("the encoder ran before the settings were checked")


UNLABELED = ArraySource("none", np.zeros((9, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocols": (KNN(k=(22,)),)}, "--knn_k=22"),
        ({"splits": (_splits()[0], UNLABELED)}, "--dataset=colors: split 'test' has no labels"),
        ({"splits": (UNLABELED, _splits()[1])}, "split 'train' has no labels"),
        (
            {"splits": [color_source([0] * 9, seed, ("red",)) for seed in (0, 1)]},
            "single class 'red'",
        ),
        (
            {"splits": (_splits()[0], color_source([0, 1], 1, ("cyan", "green")))},
            "different classes",
        ),
        ({"metric": "11-point mAP"}, "--metric=11-point mAP: the images"),
        (
            {"splits": _splits((1,) * 9, (1,) * 3)},
            "--train_split=train: expected at least two classes, got the single class 'green'",
        ),
        (
            {"splits": _splits((0, 1) * 5, (0, 1, 2))},
            "--train_split=train: lacks 1 .* such as 'blue'",
        ),
        ({"splits": _splits((0, 1, -1) * 5, (0, 1))}, "split 'train' has images without a label"),
        ({"splits": _splits((0, 1) * 5, (0, 1, -1))}, "split 'test' has images without a label"),
    ],
)
def test_inputs_are_checked_before_the_encoder_runs(changes, message):
    # Raised by the call itself, before iterating.
    with pytest.raises(UserError, match=message):
        _evaluate(_never, **changes)


def _multi_label(count, seed):
    """Images of any of three colors, which shine where the label is 1."""
    labels = np.random.default_rng(seed).integers(0, 2, (count, 3))
    images = np.random.default_rng(seed).integers(0, 60, (count, 8, 8, 3), dtype=np.uint8)
    images += (120 * labels[:, None, None, :]).astype(np.uint8)
    return images, labels


def _multi_label_source(images, labels):
    source = ArraySource("multi-label", images, labels, NAMES)
    source.multi_label = True
    return source


def test_several_labels_per_image_use_average_precision():
    splits = [_multi_label_source(*_multi_label(60, 0)), _multi_label_source(*_multi_label(30, 1))]
    found = list(_evaluate(splits=splits, metric="11-point mAP"))
    for evaluation in found:
        assert evaluation.value > 0.95 and evaluation.classifier is None
        assert evaluation.record()["metric"] == "11-point mAP"
    with pytest.raises(UserError, match="have several labels each"):
        _evaluate(splits=splits)


def test_difficult_labels_are_absent_in_training_and_excluded_from_the_metric():
    (images, labels), (queries, truth) = _multi_label(60, 0), _multi_label(30, 1)
    labels[::4, 1] = truth[::3, 2] = -1
    train, test = _multi_label_source(images, labels), _multi_label_source(queries, truth)
    adam = Logistic(solver="adam", adam_epochs=1)
    protocols = (KNN(k=(1,)), Logistic(), adam, Linear(2, cached=True), Linear(2))
    found = list(_evaluate(splits=(train, test), metric="11-point mAP", protocols=protocols))
    plain = _multi_label_source(images, np.maximum(labels, 0))
    same = list(_evaluate(splits=(plain, test), metric="11-point mAP", protocols=protocols))
    for ours, theirs in zip(found, same, strict=True):
        np.testing.assert_array_equal(ours.scores, theirs.scores)
        np.testing.assert_array_equal(ours.labels, truth)
        assert ours.value == voc07_mean_average_precision(ours.scores, truth)


def test_class_with_difficult_labels_only_counts_as_absent():
    (images, labels), test = _multi_label(30, 0), _multi_label_source(*_multi_label(30, 1))
    labels[:, 1] = -1
    with pytest.raises(UserError, match="such as 'green'"):
        _evaluate(_never, (_multi_label_source(images, labels), test), metric="11-point mAP")
    nothing = _multi_label_source(images, np.minimum(labels, 0))
    for splits, message in [
        ((nothing, test), "--train_split=train: expected at least two classes, got no class"),
        ((test, nothing), "--eval_split=test: no image of --dataset=colors has a class"),
    ]:
        with pytest.raises(UserError, match=message):
            _evaluate(_never, splits, metric="11-point mAP")
