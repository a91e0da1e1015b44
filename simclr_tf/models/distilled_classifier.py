"""A classifier that learns what a teacher answers: distillation."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.losses import distillation
from simclr_tf.models.classifier import Classifier
from simclr_tf.models.multi_view import Augment, cross_entropy


class DistilledClassifier(Classifier):
    """Trains an encoder and its linear head to answer as a teacher does [v2 §2, eq. 2 and 3].

    Teacher and student see the same views. With `alpha` below 1 the images' own labels count, too:
    alpha·distillation + (1 − alpha)·cross-entropy, both sums over images divided by the batch, so
    that images without a label (−1) weigh nothing in the second. Otherwise labels are not looked
    at. Before training, `teacher` must be set: it is not part of the model, nor of its checkpoints.

    Args:
        encoder, head, augment, seed: as of `Classifier`.
        temperature: T of both softmaxes, above 0.
        alpha: weight of the distillation, in [0, 1].
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
        figures = ["loss", "agreement"]
        if alpha < 1:
            figures += ["distillation_loss", "labelled_loss", "accuracy"]
        super().__init__(encoder, head, augment, seed=seed, name=name, metric_names=figures)
        self.temperature = temperature
        self.alpha = alpha
        # images [N, S, S, 3] → logits [N, C]; a plain function, which Keras does not track.
        self.teacher: Callable[[tf.Tensor], tf.Tensor] | None = None

    def _targets(self, batch: Any, views: tf.Tensor) -> Any:
        if self.teacher is None:
            raise ValueError("a student without a teacher: set `teacher` before training")
        labels = super()._targets(batch, views) if self.alpha < 1 else None
        return self.teacher(views), labels

    def _loss(self, logits: tf.Tensor, targets: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        taught, labels = targets
        loss = distillation(logits, taught, self.temperature)
        alike = tf.argmax(logits, axis=1) == tf.argmax(taught, axis=1)
        figures = {"loss": loss, "agreement": tf.reduce_mean(tf.cast(alike, loss.dtype))}
        if labels is None:
            return loss, figures
        labelled, mean, accuracy = cross_entropy(logits, labels)
        figures |= {"distillation_loss": loss, "labelled_loss": mean, "accuracy": accuracy}
        loss = self.alpha * loss + (1 - self.alpha) * labelled
        return loss, figures | {"loss": loss}
