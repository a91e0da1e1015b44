"""The SimCLR model: encoder, projection head, and their training step [v1 Algorithm 1]."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.losses import LossOutputs, l2_normalize, nt_xent
from simclr_tf.models.gradient_cache import cached_gradients
from simclr_tf.models.multi_view import Augment, MultiViewModel, cross_entropy, static_batch_size


class SimCLR(MultiViewModel):
    """Trains an encoder by telling two views of an image from all other views of the batch.

    `fit` on a dataset of {"image": uint8 [B, H, W, 3]}, with "label" int [B] and "aspect" float [B]
    where there are any, runs the whole method: the views are made on the device, the encoder runs
    once on all 2B of them (so that batch norm sees them all), then the projection head and the loss
    over the global batch. B must be known beforehand: `batch(B, drop_remainder=True)`. Called on
    images it returns their projections.

    Args:
        encoder: any keras.Model, images [N, S, S, 3] in [0, 1] → features [N, D].
        projection_head: keras.Model, [N, D] → projections [N, P].
        augment: makes a view: (images, seed, offset, aspect) → float32 [N, S, S, 3] in [0, 1]; or
            one such for each view.
        temperature: τ of the loss, above 0.
        normalize: whether the loss normalises the projections.
        linear_head: a built keras layer [N, D] → logits, trained concurrently on the labels behind
            a stop-gradient [v1 §B.6], or None. Images of label −1 are left out of its loss.
        seed: the run's seed; all views follow from it, the step and the position in the batch.
        microbatch_size: above 0, both views of so many images of a replica's share are encoded at a
            time, which bounds the memory that training takes (see `cached_gradients`); it must
            divide the share. The step is that of the whole batch, exactly, for an encoder whose
            features of an image depend on that image alone. Batch norm sees one piece at a time
            (under `global_bn` the same piece of every replica), and its moving statistics move
            once per step, to the mean over the pieces. Encoders that draw at random (dropout,
            stochastic depth) would draw anew in the second pass: not for those. 0: off.
        contrastive_loss: (z_a, z_b, temperature=…, normalize=…) → (loss, accuracy, entropy), with
            what `nt_xent` promises under replicas. One with a parameter `labels` is given those of
            the batch, int [B].

    Raises:
        ValueError: `microbatch_size` is negative.
    """

    def __init__(
        self,
        encoder: keras.Model,
        projection_head: keras.Model,
        augment: Augment | Sequence[Augment],
        temperature: float = 0.1,
        normalize: bool = True,
        linear_head: keras.layers.Layer | None = None,
        seed: int = 0,
        microbatch_size: int = 0,
        contrastive_loss: Callable[..., LossOutputs] = nt_xent,
        name: str = "simclr",
    ):
        if microbatch_size < 0:
            raise ValueError(f"microbatch_size must be at least 0, got {microbatch_size}")
        figures = ["loss", "contrastive_accuracy", "contrastive_entropy"]
        figures += ["alignment", "uniformity", "feature_std"]
        if linear_head is not None:
            figures += ["linear_loss", "linear_accuracy"]
        super().__init__(augment, seed, figures, views_per_image=2, name=name)
        self.encoder = encoder
        self.projection_head = projection_head
        self.linear_head = linear_head
        self.temperature = temperature
        self.normalize = normalize
        self.microbatch_size = microbatch_size
        self.contrastive_loss = contrastive_loss
        self._takes_labels = "labels" in inspect.signature(contrastive_loss).parameters

    def compile(self, optimizer: keras.optimizers.Optimizer, **kwargs: Any) -> None:
        if self.linear_head is not None:
            if not self.linear_head.built:
                raise ValueError("build the linear_head first: head.build((None, features))")
            inner = getattr(optimizer, "inner_optimizer", optimizer)
            inner.exclude_from_weight_decay(var_list=self.linear_head.trainable_variables)
        super().compile(optimizer=optimizer, **kwargs)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.projection_head(self.encoder(images, training=training), training=training)

    def encode_and_contrast(
        self, views: tf.Tensor, training: bool, labels: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """Encodes 2B views and contrasts them, with the labels [B] of the images if there are any.

        Returns:
            (features [2B, D], loss, statistics), the loss as `nt_xent` defines it under replicas,
            the statistics a dict of scalars that includes it.

        Raises:
            ValueError: the loss takes labels, and there are none.
        """
        outputs = self._encode(views, training)
        return outputs["features"], *self._contrast(outputs, labels)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Trains on a replica's share of a global batch.

        Exchanged between R replicas: the projections, as `losses.contrastive.all_gather` says; the
        statistics of each batch norm of C channels, 3·C numbers forward and 2·C back (of each
        piece, and forward twice, where there is a `microbatch_size`); and the gradients, summed by
        the optimizer: one number per weight, 4 bytes in float32. All are all-reduces.

        Returns:
            This step's figures; those of more than one step are in `metrics`.

        Raises:
            ValueError: the batch's size is not known beforehand, or no multiple of
                `microbatch_size`; or as `encode_and_contrast`.
        """
        variables = self.trainable_variables
        if self.microbatch_size in (0, static_batch_size(batch)):
            views = self.make_views(batch, self.step)
            with tf.GradientTape() as tape:
                loss, statistics = self._loss(self._encode(views, training=True), batch)
            gradients = tape.gradient(loss, variables)
        else:
            gradients, statistics = self._cached_gradients(batch, variables)
        per_replica = [] if self.linear_head is None else ["linear_loss"]
        self._apply_gradients(gradients, statistics, per_replica)
        # Not the means: each would be summed over the replicas, at every step.
        return statistics

    def _cached_gradients(self, batch, variables):
        """What the plain step has, `microbatch_size` images at a time: (gradients, statistics)."""
        share, size = static_batch_size(batch), self.microbatch_size
        if share % size:
            raise ValueError(
                f"microbatch_size={size} must divide the {share} images of a replica's share"
            )
        parts = self.encoder, self.projection_head

        def encode(k):
            return self._encode(self.make_views(batch, self.step, k * size, size), training=True)

        def loss_of(outputs):
            whole = {
                name: tf.reduce_mean(x) if name == "penalty" else _in_order(x)
                for name, x in outputs.items()
            }
            return self._loss(whole, batch)

        return cached_gradients(
            share // size,
            encode,
            loss_of,
            variables,
            [v for part in parts for v in part.non_trainable_variables if v.dtype.is_floating],
        )

    def _encode(self, views, training):
        """Features and projections of views, and where it has one the encoder's own penalty."""
        features = self.encoder(views, training=training)
        projections = self.projection_head(features, training=training)
        outputs = {"features": features, "projections": projections}
        penalties = self.encoder.losses + self.projection_head.losses
        return {**outputs, "penalty": tf.add_n(penalties)} if penalties else outputs

    def _loss(self, outputs, batch):
        """The loss of all views on this replica, scaled for 16 bits, and the step's figures."""
        loss, statistics = self._contrast(outputs, batch.get("label"))
        penalties = [outputs["penalty"]] if "penalty" in outputs else []
        if self.linear_head is not None:
            logits = self.linear_head(tf.stop_gradient(outputs["features"]))
            linear_loss, linear = self._linear(logits, batch["label"])
            loss += tf.cast(linear_loss, loss.dtype)
            statistics.update(linear)
            penalties += self.linear_head.losses
        if penalties:
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            loss += tf.cast(tf.add_n(penalties), loss.dtype) / replicas
        return self._scale_loss(loss), statistics

    def _contrast(self, outputs, labels):
        z_a, z_b = tf.split(outputs["projections"], 2)
        settings = {"temperature": self.temperature, "normalize": self.normalize}
        if self._takes_labels:
            if labels is None:
                raise ValueError('the loss takes labels: every batch needs a "label"')
            settings["labels"] = labels
        loss, accuracy, entropy = self.contrastive_loss(z_a, z_b, **settings)
        statistics = {
            "loss": loss,
            "contrastive_accuracy": accuracy,
            "contrastive_entropy": entropy,
            **collapse_metrics(outputs["features"], z_a, z_b),
        }
        return loss, statistics

    def _linear(self, logits, labels):
        """The concurrent linear head on both views: (this replica's share of its loss, figures)."""
        loss, mean, accuracy = cross_entropy(logits, tf.concat([labels, labels], axis=0))
        figures = {"linear_loss": mean, "linear_accuracy": accuracy}
        return loss / tf.distribute.get_strategy().num_replicas_in_sync, figures


def _in_order(pieces):
    """[K, 2m, D], in each of K pieces both views of m images, → [2B, D], view 0 of all first."""
    count, views, *rest = pieces.shape
    pieces = tf.reshape(pieces, [count, 2, views // 2, *rest])
    return tf.reshape(tf.concat(tf.split(pieces, 2, axis=1), axis=0), [count * views, *rest])


def collapse_metrics(features: tf.Tensor, z_a: tf.Tensor, z_b: tf.Tensor) -> dict[str, tf.Tensor]:
    """Shows without labels whether the representation collapses.

    Args:
        features: [2B, D] of the encoder; z_a, z_b: [B, P], projections of the two views.

    Returns:
        alignment: mean squared distance of the normalised positives, 0 to 4, lower is closer;
        uniformity: log of the mean of exp(-2·squared distance) over this replica's pairs of images,
        0 when collapsed, lower is more spread (Wang and Isola, 2020); feature_std: standard
        deviation of the normalised features times √D, about 1 when spread over all directions, 0
        when collapsed.
    """
    features, z_a, z_b = (
        l2_normalize(tf.stop_gradient(tf.cast(tensor, tf.float32)))
        for tensor in (features, z_a, z_b)
    )
    pairs = tf.cast(tf.shape(z_a)[0], tf.float32)
    closeness = tf.exp(4.0 * (tf.matmul(z_a, z_a, transpose_b=True) - 1.0))
    others = tf.reduce_sum(closeness) - tf.linalg.trace(closeness)
    width = tf.cast(tf.shape(features)[1], tf.float32)
    spread = tf.reduce_mean(tf.math.reduce_variance(features, axis=0)) * width
    return {
        "alignment": tf.reduce_mean(tf.reduce_sum(tf.square(z_a - z_b), axis=1)),
        "uniformity": tf.where(pairs > 1.0, tf.math.log(others / (pairs * (pairs - 1.0))), 0.0),
        "feature_std": tf.sqrt(spread),
    }
