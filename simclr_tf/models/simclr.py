"""The SimCLR model: encoder, projection head, and their training step [v1 Algorithm 1]."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.augment import make_seed
from simclr_tf.losses import l2_normalize, nt_xent
from simclr_tf.losses.replicas import all_reduce
from simclr_tf.models.gradient_cache import cached_gradients


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
        microbatch_size: above 0, both views of so many images of a replica's share are encoded at a
            time, which bounds the memory that training takes (see `cached_gradients`); it must
            divide the share. The step is that of the whole batch, exactly, for an encoder whose
            features of an image depend on that image alone. Batch norm sees one piece at a time
            (under `global_bn` the same piece of every replica), and its moving statistics move
            once per step, to the mean over the pieces. Encoders that draw at random (dropout,
            stochastic depth) would draw anew in the second pass: not for those. 0: off.

    Raises:
        ValueError: `microbatch_size` is negative.
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
        microbatch_size=0,
        name="simclr",
    ):
        super().__init__(name=name)
        if microbatch_size < 0:
            raise ValueError(f"microbatch_size must be at least 0, got {microbatch_size}")
        self.encoder = encoder
        self.projection_head = projection_head
        self.linear_head = linear_head
        self.augment = augment
        self.temperature = temperature
        self.normalize = normalize
        self.seed = seed
        self.microbatch_size = microbatch_size
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
        # What `fit` passes on of a step is the first replica's, not a sum over all of them.
        self.distribute_reduction_method = "first"

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

    def make_views(
        self,
        batch: Any,
        step: int | tf.Tensor,
        first: int | tf.Tensor = 0,
        count: int | None = None,
    ) -> tf.Tensor:
        """Makes both views of a replica's batch, or of a slice of it, the same as in the whole.

        Args:
            batch: the replica's, "image" [B, H, W, 3] and perhaps "aspect" [B].
            step: that the views are for.
            first: the slice's first image in the replica's batch.
            count: n, images in the slice; None for all, from 0.

        Returns:
            float32 [2n, S, S, 3], view 0 of all images first.

        Raises:
            ValueError: B is not known beforehand.
        """
        images, aspect, share = batch["image"], batch.get("aspect"), _share(batch)
        if count is not None:
            images = _rows(images, first, count)
            aspect = None if aspect is None else _rows(aspect, first, count)
        context = tf.distribute.get_replica_context()
        offset = context.replica_id_in_sync_group * share if context else 0
        seeds = [make_seed(self.seed, step, view) for view in (0, 1)]
        return tf.concat([self.augment(images, s, offset + first, aspect) for s in seeds], axis=0)

    def contrast(
        self, views: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """Encodes 2B views and contrasts them.

        Returns:
            (features [2B, D], loss, statistics): the loss as `nt_xent` defines it under replicas,
            the statistics a dict of scalars that includes it.
        """
        outputs = self._encode(views, training)
        return outputs["features"], *self._contrast(outputs["features"], outputs["projections"])

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Trains on a replica's share of a global batch.

        Exchanged between R replicas: the projections, as `losses.replicas.gather` says; the
        statistics of each batch norm of C channels, 3·C numbers forward and 2·C back (of each
        piece, and forward twice, where there is a `microbatch_size`); and the gradients, summed by
        the optimizer: one number per weight, 4 bytes in float32. All are all-reduces.

        Returns:
            This step's figures; those of more than one step are in `metrics`.

        Raises:
            ValueError: the batch's size is not known beforehand, or no multiple of
                `microbatch_size`.
        """
        variables = self.trainable_variables
        if self.microbatch_size in (0, _share(batch)):
            views = self.make_views(batch, self.step)
            with tf.GradientTape() as tape:
                loss, statistics = self._loss(self._encode(views, training=True), batch)
            gradients = tape.gradient(loss, variables)
        else:
            gradients, statistics = self._cached_gradients(batch, variables)
        if self._scales_loss:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._watch(statistics)
        self.step.assign_add(1)
        for name, mean in self._means.items():
            mean.update_state(statistics[name])
        # Not the means: each would be summed over the replicas, at every step.
        return statistics

    def _cached_gradients(self, batch, variables):
        """What the plain step has, `microbatch_size` images at a time: (gradients, statistics)."""
        share, size = _share(batch), self.microbatch_size
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
        loss, statistics = self._contrast(outputs["features"], outputs["projections"])
        penalties = [outputs["penalty"]] if "penalty" in outputs else []
        if self.linear_head is not None:
            features = tf.stop_gradient(outputs["features"])
            linear_loss, linear = self._linear(features, batch["label"])
            loss += tf.cast(linear_loss, loss.dtype)
            statistics.update(linear)
            penalties += self.linear_head.losses
        if penalties:
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            loss += tf.cast(tf.add_n(penalties), loss.dtype) / replicas
        return self._scaled(loss), statistics

    def _contrast(self, features, projections):
        z_a, z_b = tf.split(projections, 2)
        loss, accuracy, entropy = nt_xent(z_a, z_b, self.temperature, self.normalize)
        statistics = {
            "loss": loss,
            "contrastive_accuracy": accuracy,
            "contrastive_entropy": entropy,
            **collapse_statistics(features, z_a, z_b),
        }
        return loss, statistics

    def _watch(self, statistics):
        """Notes the first step whose loss is not finite, the same step on every replica."""
        finite = tf.math.is_finite(statistics["loss"])
        if self.linear_head is not None:  # the one loss that each replica has for itself
            finite &= tf.math.is_finite(all_reduce(statistics["linear_loss"]))
        bad = tf.logical_and(~finite, self.first_bad_step < 0)
        self.first_bad_step.assign(tf.where(bad, self.step, self.first_bad_step))

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


def _share(batch):
    """B, the images of a replica's batch."""
    share = batch["image"].shape[0]
    if share is None:
        raise ValueError("the batch must be of fixed size: use batch(…, drop_remainder=True)")
    return share


def _rows(tensor, first, count):
    """`count` rows of a tensor, `first` and on, their number static wherever they start."""
    rest = tensor.shape[1:]
    begin = [first] + [0] * rest.rank
    return tf.slice(tensor, begin, [count, *(-1 if n is None else n for n in rest)])


def _in_order(pieces):
    """[K, 2m, D], in each of K pieces both views of m images, → [2B, D], view 0 of all first."""
    count, views, *rest = pieces.shape
    pieces = tf.reshape(pieces, [count, 2, views // 2, *rest])
    return tf.reshape(tf.concat(tf.split(pieces, 2, axis=1), axis=0), [count * views, *rest])


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
