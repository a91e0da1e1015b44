"""An encoder under a classification head: fine-tuning, and training with labels from nothing."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.models.multi_view import Augment, MultiViewModel, cross_entropy

BLOCK_ENDPOINTS = (
    "initial_max_pool",
    "block_group1",
    "block_group2",
    "block_group3",
    "block_group4",
)


class Classifier(MultiViewModel):
    """Trains an encoder and the linear head on top of it by the labels [v1 §B.5].

    `fit` on a dataset of {"image": uint8 [B, H, W, 3], "label": int [B]}, with "aspect" float [B]
    where there is one; images of label -1 are left out of the loss. Called on images it returns
    logits. What is frozen (`trainable = False`) runs in inference mode, its batch norm included,
    and does not change by a bit.

    Args:
        encoder: any keras.Model, images [N, S, S, 3] in [0, 1] → features [N, D].
        head: a built keras layer → logits [N, C].
        augment: makes a view: (images, seed, offset, aspect) → float32 [N, S, S, 3] in [0, 1]; or
            one such for each view.
        projection: keras.Model between the two, features [N, D] → what the head sees: the first
            layers of a projection head [v2 §2.2], or None.
        seed: the run's seed; the views follow from it, the step and the position in the batch.
        views_per_image: how many views of each image a step learns from.
        metric_names: names of the scalars that a step reports.
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
        hidden = self.encoder(images, training=training)
        if self.projection is not None:
            hidden = self.projection(hidden, training=training)
        return self.head(hidden)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Trains on a replica's share of a global batch; returns this step's metric_names."""
        views = self.make_views(batch, self.step)
        targets = self._targets(batch, views)
        with tf.GradientTape() as tape:
            loss, statistics = self._loss(self(views, training=True), targets)
            if self.losses:
                loss += tf.cast(tf.add_n(self.losses), loss.dtype)
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            scaled = self._scale_loss(loss / replicas)
        gradients = tape.gradient(scaled, self.trainable_variables)
        self._apply_gradients(gradients, statistics, per_replica_losses=["loss"])
        return statistics

    def _targets(self, batch: Any, views: tf.Tensor) -> Any:
        """What is to be answered of the views [V·B, S, S, 3]."""
        del views
        return tf.tile(batch["label"], [self.views_per_image])

    def _loss(self, logits: tf.Tensor, targets: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns the loss, whose gradients add up over replicas, and the logs."""
        loss, mean, accuracy = cross_entropy(logits, targets)
        return loss, {"loss": mean, "accuracy": accuracy}


def freeze_through_block(encoder: keras.Model, after_block: int) -> None:
    """Freezes the first part of a ResNet, so that training starts after it.

    Args:
        encoder: of `ResNet`, or another whose layers bear those names.
        after_block: -1 freezes nothing, 0 the stem, 1 to 3 also the block groups up to that one,
            4 all of the encoder.

    Raises:
        ValueError: `after_block` is none of these, or the encoder has no such layer.
    """
    if after_block not in range(-1, 5):
        raise ValueError(f"after_block must be -1 to 4, got {after_block!r}")
    if after_block == 4:
        encoder.trainable = False
    elif after_block >= 0:
        # In the order of the graph: whatever leads to the block's output stands before it.
        names = [layer.name for layer in encoder.layers]
        for layer in encoder.layers[: names.index(BLOCK_ENDPOINTS[after_block]) + 1]:
            layer.trainable = False


def truncate_projection_head(head: keras.Model, count: int) -> keras.Model:
    """Returns the first `count` layers of a projection head as a model, sharing its weights.

    Raises:
        ValueError: the head has fewer layers, or none.
    """
    names = {layer.name for layer in head.layers}
    for name in (f"layer{count}_relu", f"layer{count}_bn"):  # the last layer has no ReLU
        if name in names:
            return keras.Model(head.inputs, head.get_layer(name).output, name="projection")
    raise ValueError(f"the projection head has no layer {count}")
