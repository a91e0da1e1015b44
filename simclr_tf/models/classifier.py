"""Classifier on an encoder: fine-tuning, and supervised training from random weights."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.models.multi_view import (
    Augment,
    MultiViewModel,
    as_batch,
    cross_entropy,
    get_labels,
)
from simclr_tf.models.resnet import ENDPOINTS

BLOCK_ENDPOINTS = ENDPOINTS[1:-1]


class Classifier(MultiViewModel):
    """Trains an encoder and a linear head on labels [v1 §B.5].

    `fit` takes what `SimCLR.fit` takes, with labels; images of label -1 are left out of the loss.
    Called on images, the model returns logits. Frozen layers (`trainable = False`), including batch
    norm, run in inference mode and are never updated.

    Args:
        encoder, augment, seed, name: as in `SimCLR`.
        head: keras layer, features → logits [N, C].
        projection: keras.Model between encoder and head, features [N, D] → input of the head: the
            first layers of a projection head [v2 §2.2], or None.
        views_per_image: number of views of each image per step.
        metric_names: names of the scalars that a step returns.

    Example:
    >>> import numpy as np, tf_keras as keras
    >>> import simclr_tf as st
    >>> model = st.models.Classifier(
    ...     st.models.ResNet(18, width_multiplier=1 / 32, stem="cifar"),
    ...     keras.layers.Dense(10),
    ...     st.augment.SimCLRAugment(image_size=8),
    ... )
    >>> model.compile(optimizer="adam")
    >>> images, labels = np.zeros((4, 8, 8, 3), np.uint8), np.arange(4)
    >>> history = model.fit(images, labels, batch_size=4, verbose=0)
    >>> model(images / 255).shape
    TensorShape([4, 10])
    """

    def __init__(
        self,
        encoder: keras.Model,
        head: keras.layers.Layer,
        augment: Augment | Sequence[Augment],
        projection: keras.Model | None = None,
        seed: int = 0,
        views_per_image: int = 1,
        name: str = "classifier",
        metric_names: Sequence[str] = ("loss", "accuracy"),
    ):
        super().__init__(augment, seed, metric_names, views_per_image, name)
        self.encoder = encoder
        self.projection = projection
        self.head = head

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        features = self.encoder(images, training=training)
        if self.projection is not None:
            features = self.projection(features, training=training)
        return self.head(features)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Trains on this replica's part of a global batch and returns the logs of this step."""
        batch = as_batch(data)
        views = self.make_views(batch, self.step)
        targets = self._targets(batch, views)
        with tf.GradientTape() as tape:
            loss, logs = self._loss(self(views, training=True), targets)
            if self.losses:
                loss += tf.cast(tf.add_n(self.losses), loss.dtype)
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            scaled = self._scale_loss(loss / replicas)
        gradients = tape.gradient(scaled, self.trainable_variables)
        self._apply_gradients(gradients, logs, per_replica_losses=["loss"])
        return logs

    def _targets(self, batch: Any, views: tf.Tensor) -> Any:
        """Returns the targets of the views [V·B, S, S, 3]."""
        return tf.tile(get_labels(batch), [self.views_per_image])

    def _loss(self, logits: tf.Tensor, targets: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns the loss, whose gradients add up over replicas of equal batches, and the logs."""
        loss, mean_loss, accuracy = cross_entropy(logits, targets)
        return loss, {"loss": mean_loss, "accuracy": accuracy}


def freeze_through_block(encoder: keras.Model, last_block: int) -> None:
    """Freezes the first part of a ResNet, so that training starts after it.

    `last_block`: -1 freezes nothing, 0 the stem, 1 to 3 also the block groups up to that one, 4 the
    whole encoder.
    """
    if last_block not in range(-1, 5):
        raise ValueError(f"last_block must be -1 to 4, got {last_block!r}")
    if last_block == 4:
        encoder.trainable = False
    elif last_block >= 0:
        # In graph order: every layer that leads to the block's output precedes it.
        names = [layer.name for layer in encoder.layers]
        for layer in encoder.layers[: names.index(BLOCK_ENDPOINTS[last_block]) + 1]:
            layer.trainable = False


def truncate_projection_head(head: keras.Model, num_layers: int) -> keras.Model:
    """Returns a projection head's first `num_layers` layers as a model that shares its weights."""
    names = {layer.name for layer in head.layers}
    for name in (f"layer{num_layers}_relu", f"layer{num_layers}_bn"):  # the last has no ReLU
        if name in names:
            return keras.Model(head.inputs, head.get_layer(name).output, name="projection")
    raise ValueError(f"the projection head has no layer {num_layers}")
