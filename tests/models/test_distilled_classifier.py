"""The student: eq. 3 of SimCLR v2 on one device and on replicas, and what it keeps of a teacher."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.augment import view_seed
from simclr_tf.models import DistilledClassifier
from tests.models.tiny_simclr import (
    BATCH,
    CLASSES,
    assert_equal,
    batches,
    dimmed,
    optimizer_named,
    train,
    two_blocks,
)


def _classifier(seed):
    keras.utils.set_random_seed(seed)
    head = keras.layers.Dense(CLASSES, kernel_initializer="random_normal", dtype="float64")
    head.build((None, 8))
    head.kernel.assign(10 * head.kernel)
    return two_blocks(), head


def _teacher():
    encoder, head = _classifier(7)
    return lambda images: head(encoder(images, training=False))


def _build(alpha, optimizer="momentum"):
    encoder, head = _classifier(1)
    model = DistilledClassifier(encoder, head, dimmed, temperature=0.5, alpha=alpha)
    model.build((None, 8, 8, 3))
    model.compile(optimizer_named(optimizer))
    model.optimizer.build(model.trainable_variables)
    return model


def _train(steps, strategy=None, labels=True, **settings):
    with (strategy or tf.distribute.get_strategy()).scope():
        model = _build(**settings)
        model.teacher = _teacher()
    figures = train(model, steps, strategy, labels=labels)
    return figures, dict(enumerate(w for layer in model.layers for w in layer.get_weights()))


def _log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("alpha", [1.0, 0.7, 0.0])
def test_step_equals_the_equation_of_the_paper(alpha):
    (batch,) = batches(1)
    model = _build(alpha)
    views = dimmed(batch["image"], view_seed(0, 0, 0), 0, None)
    logits, taught = model(views, training=True).numpy(), _teacher()(views).numpy()
    p = np.exp(_log_softmax(taught / 0.5))
    distilled = -0.25 * (p * _log_softmax(logits / 0.5)).sum(axis=1)
    labels = batch["label"].numpy()
    known = labels >= 0
    labeled = -_log_softmax(logits)[known, labels[known]]
    # Both sums over the batch's images, of which two have no label.
    wanted = (alpha * distilled.sum() + (1 - alpha) * labeled.sum()) / BATCH
    (found,), _ = _train(1, alpha=alpha)
    np.testing.assert_allclose(found["loss"], wanted, rtol=1e-6)
    alike = logits.argmax(axis=1) == taught.argmax(axis=1)
    np.testing.assert_allclose(found["agreement"], alike.mean(), rtol=1e-6)
    if alpha < 1:
        np.testing.assert_allclose(found["distillation_loss"], distilled.mean(), rtol=1e-6)
        np.testing.assert_allclose(found["labelled_loss"], labeled.mean(), rtol=1e-6)
        right = (logits.argmax(axis=1) == labels)[known].mean()
        np.testing.assert_allclose(found["accuracy"], right, rtol=1e-6)


def test_replicas_train_as_one_device(mirrored):
    found, weights = _train(5, mirrored(2), alpha=0.7, optimizer="lars")
    wanted, wanted_weights = _train(5, alpha=0.7, optimizer="lars")
    assert_equal(weights, wanted_weights)
    for ours, theirs in zip(found, wanted, strict=True):
        for name in ("loss", "agreement"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6)


def test_labels_are_ignored_with_alpha_1():
    with_labels, without = (_train(2, alpha=1.0, labels=given) for given in (True, False))
    assert with_labels[0] == without[0]
    model = _build(0.5)
    model.teacher = _teacher()
    (batch,) = batches(1)
    with pytest.raises(ValueError, match="expected labels"):
        model.train_step({"image": batch["image"]})


def test_teacher_is_not_tracked_by_the_student():
    model = _build(1.0)
    before = [v.name for v in model.variables]
    with pytest.raises(ValueError, match="has no teacher: set `teacher`"):
        model.train_step(next(iter(batches(1))))
    model.teacher = _teacher()
    assert [v.name for v in model.variables] == before
    assert {layer.name for layer in model.layers} == {model.encoder.name, model.head.name}
