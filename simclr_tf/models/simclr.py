"""The SimCLR model: encoder, projection head, and their training step [v1 Algorithm 1]."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.augment import make_seed
from simclr_tf.losses import l2_normalize, nt_xent


class SimCLR(keras.Model):
    """Trains an encoder by telling two views of an image from all other views of the batch.

    `fit` on a dataset of {"image": uint8 [B, H, W, 3]}, with "label" int [B] and "aspect" float [B]
    where there are any, runs the whole method: the views are made on the device, the encoder runs
    once on all 2B of them (so that batch norm sees them all), then the projection head and NT-Xent
    over the global batch. B must be known beforehand: `batch(B, drop_remainder=True)`. Called on
    images it returns their projections.

    Args:
        encoder: any keras.Model, images [N, S, S, 3] in [0, 1] → features [N, D].
        projection_head: keras.Model, [N, D] → projections [N, P].
        augment: makes a view: (images, seed, offset, aspect) → float32 [N, S, S, 3] in [0, 1].
        temperature: τ of NT-Xent, above 0.
        normalize: whether NT-Xent normalises the projections.
        linear_head: a built keras layer [N, D] → logits, trained concurrently on the labels behind
            a stop-gradient [v1 §B.6], or None. Images of label −1 are left out of its loss.
        seed: the run's seed; all views follow from it, the step and the position in the batch.
    """

    def __init__(
        self,
        encoder,
        projection_head,
        augment,
        temperature=0.1,
        normalize=True,
        linear_head=None,
        seed=0,
        name="simclr",
    ):
        super().__init__(name=name)
        self.encoder = encoder
        self.projection_head = projection_head
        self.linear_head = linear_head
        self.augment = augment
        self.temperature = temperature
        self.normalize = normalize
        self.seed = seed
        self.step = tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            name="step",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        # The step of the first loss that was not finite, or -1: seen without asking the device.
        self.first_bad_step = tf.Variable(
            -1,
            dtype=tf.int64,
            trainable=False,
            name="first_bad_step",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        names = ["loss", "contrastive_accuracy", "contrastive_entropy"]
        names += ["alignment", "uniformity", "feature_std"]
        if linear_head is not None:
            names += ["linear_loss", "linear_accuracy"]
        self._means = {name: keras.metrics.Mean(name=name) for name in names}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._means.values())

    def compile(self, optimizer: keras.optimizers.Optimizer, **kwargs: Any) -> None:
        if self.linear_head is not None:
            if not self.linear_head.built:
                raise ValueError("build the linear_head first: head.build((None, features))")
            inner = getattr(optimizer, "inner_optimizer", optimizer)
            inner.exclude_from_weight_decay(var_list=self.linear_head.trainable_variables)
        super().compile(optimizer=optimizer, **kwargs)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.projection_head(self.encoder(images, training=training), training=training)

    def make_views(self, batch: Any, step: int | tf.Tensor) -> tf.Tensor:
        """Returns both views of a replica's batch, view 0 first: float32 [2B, S, S, 3]."""
        images, aspect = batch["image"], batch.get("aspect")
        if images.shape[0] is None:
            raise ValueError("the batch must be of fixed size: use batch(…, drop_remainder=True)")
        context = tf.distribute.get_replica_context()
        offset = context.replica_id_in_sync_group * images.shape[0] if context else 0
        seeds = [make_seed(self.seed, step, view) for view in (0, 1)]
        return tf.concat([self.augment(images, s, offset, aspect) for s in seeds], axis=0)

    def contrast(
        self, views: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """Encodes 2B views and contrasts them.

        Returns:
            (features [2B, D], loss, statistics): the loss as `nt_xent` defines it under replicas,
            the statistics a dict of scalars that includes it.
        """
        features = self.encoder(views, training=training)
        projections = self.projection_head(features, training=training)
        z_a, z_b = tf.split(projections, 2)
        loss, accuracy, entropy = nt_xent(z_a, z_b, self.temperature, self.normalize)
        statistics = {
            "loss": loss,
            "contrastive_accuracy": accuracy,
            "contrastive_entropy": entropy,
            **collapse_statistics(features, z_a, z_b),
        }
        return features, loss, statistics

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        views = self.make_views(batch, self.step)
        with tf.GradientTape() as tape:
            features, loss, statistics = self.contrast(views, training=True)
            if self.linear_head is not None:
                linear_loss, linear = self._linear(tf.stop_gradient(features), batch["label"])
                loss += tf.cast(linear_loss, loss.dtype)
                statistics.update(linear)
            if self.losses:  # regularisation that came with the encoder
                replicas = tf.distribute.get_strategy().num_replicas_in_sync
                loss += tf.cast(tf.add_n(self.losses), loss.dtype) / replicas
            scaled = self._scaled(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        if self._scales_loss:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        finite = [tf.math.is_finite(v) for name, v in statistics.items() if name.endswith("loss")]
        bad = tf.logical_and(~tf.reduce_all(finite), self.first_bad_step < 0)
        self.first_bad_step.assign(tf.where(bad, self.step, self.first_bad_step))
        self.step.assign_add(1)
        for name, mean in self._means.items():
            mean.update_state(statistics[name])
        return {name: mean.result() for name, mean in self._means.items()}

    @property
    def _scales_loss(self):
        return isinstance(self.optimizer, keras.mixed_precision.LossScaleOptimizer)

    def _scaled(self, loss):
        return self.optimizer.get_scaled_loss(loss) if self._scales_loss else loss

    def _linear(self, features, labels):
        """The concurrent linear head on both views: (this replica's share of its loss, figures)."""
        labels = tf.concat([labels, labels], axis=0)
        logits = self.linear_head(features)
        logits = tf.cast(logits, tf.float64 if logits.dtype == tf.float64 else tf.float32)
        labelled = tf.cast(labels >= 0, logits.dtype)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
        # The batch's size is the same at every step and replica, the number of labels is not.
        loss = tf.reduce_mean(labelled * losses)
        found = tf.argmax(logits, axis=1, output_type=labels.dtype) == labels
        share = tf.maximum(tf.reduce_mean(labelled), 1 / labels.shape[0])
        figures = {
            "linear_loss": tf.stop_gradient(loss) / share,
            "linear_accuracy": tf.reduce_mean(tf.cast(found, logits.dtype)) / share,
        }
        return loss / tf.distribute.get_strategy().num_replicas_in_sync, figures


def collapse_statistics(
    features: tf.Tensor, z_a: tf.Tensor, z_b: tf.Tensor
) -> dict[str, tf.Tensor]:
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
