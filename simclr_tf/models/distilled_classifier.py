"""Classifier trained on the predictions of a teacher: distillation."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.losses import distillation
from simclr_tf.models.classifier import Classifier
from simclr_tf.models.multi_view import Augment, cross_entropy, get_labels


class DistilledClassifier(Classifier):
    """Trains an encoder and its linear head on a teacher's predictions [v2 §2, eq. 2 and 3].

    Teacher and student get the same views. With `alpha` below 1 the labels of the images are used
    as well: alpha·distillation + (1 − alpha)·cross-entropy, both sums over images divided by the
    batch size, so that images without a label (−1) have no weight in the second. With `alpha` 1
    labels are ignored. Before training, `teacher` must be set; it is not part of the model, nor of
    its checkpoints.

    Args:
        encoder, head, augment, seed, name: as in `Classifier`.
        temperature: T of both softmaxes, above 0.
        alpha: weight of the distillation, in [0, 1].

    Example:
    >>> import numpy as np, tensorflow as tf, tf_keras as keras
    >>> import simclr_tf as st
    >>> student = st.models.DistilledClassifier(
    ...     st.models.ResNet(18, width_multiplier=1 / 32, stem="cifar"),
    ...     keras.layers.Dense(3),
    ...     st.augment.SimCLRAugment(image_size=8),
    ... )
    >>> student.teacher = lambda images: tf.reduce_mean(images, axis=[1, 2])  # red, green, blue
    >>> student.compile(optimizer="adam")
    >>> history = student.fit(np.zeros((4, 8, 8, 3), np.uint8), batch_size=4, verbose=0)
    >>> sorted(history.history)
    ['agreement', 'loss']
    """

    def __init__(
        self,
        encoder: keras.Model,
        head: keras.layers.Layer,
        augment: Augment | Sequence[Augment],
        temperature: float = 1.0,
        alpha: float = 1.0,
        seed: int = 0,
        name: str = "student",
    ):
        metric_names = ["loss", "agreement"]
        if alpha < 1:
            metric_names += ["distillation_loss", "labelled_loss", "accuracy"]
        super().__init__(encoder, head, augment, seed=seed, name=name, metric_names=metric_names)
        self.temperature = temperature
        self.alpha = alpha
        # images [N, S, S, 3] → logits [N, C]; a plain function, which Keras does not track.
        self.teacher: Callable[[tf.Tensor], tf.Tensor] | None = None

    def _targets(self, batch: Any, views: tf.Tensor) -> Any:
        if self.teacher is None:
            raise ValueError("DistilledClassifier has no teacher: set `teacher` before training")
        labels = tf.tile(get_labels(batch), [self.views_per_image]) if self.alpha < 1 else None
        return self.teacher(views), labels

    def _loss(self, logits: tf.Tensor, targets: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        teacher_logits, labels = targets
        loss = distillation(logits, teacher_logits, self.temperature)
        agrees = tf.argmax(logits, axis=1) == tf.argmax(teacher_logits, axis=1)
        logs = {"agreement": tf.reduce_mean(tf.cast(agrees, loss.dtype))}
        if labels is not None:
            logs["distillation_loss"] = loss
            labeled_loss, logs["labelled_loss"], logs["accuracy"] = cross_entropy(logits, labels)
            loss = self.alpha * loss + (1 - self.alpha) * labeled_loss
        return loss, {"loss": loss, **logs}
