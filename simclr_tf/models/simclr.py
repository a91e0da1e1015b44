"""The SimCLR model: encoder, projection head and their training step [v1 Algorithm 1]."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.losses import LossOutputs, l2_normalize, nt_xent
from simclr_tf.models.gradient_cache import cached_gradients
from simclr_tf.models.multi_view import (
    Augment,
    MultiViewModel,
    as_batch,
    cross_entropy,
    get_labels,
    static_batch_size,
)
from simclr_tf.models.projection_head import ProjectionHead
from simclr_tf.option_groups import MAX_VIEWS

_PER_VIEW = ("features", "projections")


class SimCLR(MultiViewModel):
    """Trains an encoder to recognize the views of an image among all views of the batch.

    `fit` runs the whole method [v1 Algorithm 1]: the views are made on the device, the encoder runs
    once on all V·B of them (so that batch norm uses them all; once per size if their sizes differ),
    then the projection head, and the loss over the global batch. It takes an array of images, or a
    dataset of batches of one size B: images, (images, labels), or {"image": uint8 [B, H, W, 3]}
    with optional "label" int [B] and "aspect" float [B] (width / height of the original). Called on
    images [N, S, S, 3] in [0, 1], the model returns projections.

    Args:
        encoder: keras.Model, images [N, S, S, 3] in [0, 1] → features [N, D].
        projection_head: a `ProjectionHead`, or another keras.Model, [N, D] → projections [N, P].
        augment: makes a view: (images, seed, offset, aspect) → float32 [N, S, S, 3] in [0, 1]; or
            one such function per view, whose views may differ in size, such as two large and
            several small crops (multi-crop, arXiv 2006.09882).
        temperature: τ of the loss, above 0.
        normalize: whether the loss normalizes the projections.
        linear_head: keras layer [N, D] → logits, trained concurrently on the labels behind a
            stop-gradient [v1 §B.6], or None. Images of label −1 are left out of its loss.
        seed: seed of the run; all views follow from it, the step and the position in the batch.
        microbatch_size: above 0, the views of this many images per replica are encoded at a time,
            which bounds the memory of a step (see `cached_gradients`); it must divide the batch of
            a replica. The gradient is exactly that of the whole batch for encoders whose features
            of an image depend on that image alone. Batch norm uses one microbatch at a time (with
            `global_bn` the same one of every replica), and its moving statistics are updated once
            per step, to the mean over the microbatches. Not for encoders with random operations
            (dropout, stochastic depth), which would differ in the second pass. 0: off.
        contrastive_loss: (z_a, z_b, temperature=…, normalize=…) → (loss, accuracy, entropy), with
            the guarantees of `nt_xent` under replicas. A loss with a parameter `labels` gets those
            of the batch, int [B]. With more than two views it needs a parameter `more_views`, as
            `nt_xent` has.
        name: of the Keras model.
        num_views: V, views per image and step, 2 to 32.

    Raises:
        ValueError: `microbatch_size` is negative, the encoder's output is not [N, D], or the loss
            does not take `num_views` views.

    Example:
    >>> import numpy as np, tf_keras as keras
    >>> import simclr_tf as st
    >>> encoder = keras.Sequential([
    ...     keras.layers.Conv2D(32, 3, strides=2, activation="relu", input_shape=(32, 32, 3)),
    ...     keras.layers.GlobalAveragePooling2D(),
    ... ])
    >>> model = st.models.SimCLR(
    ...     encoder, st.models.ProjectionHead(out_dim=64), st.augment.SimCLRAugment(image_size=32)
    ... )
    >>> model.compile(st.optimizers.LARS(learning_rate=0.3))
    >>> images = np.random.default_rng(0).integers(0, 256, (64, 48, 48, 3), np.uint8)
    >>> history = model.fit(images, batch_size=32, epochs=2, verbose=0)
    >>> features = encoder.predict(images[:8, 8:40, 8:40] / 255, verbose=0)  # [8, 32]
    """

    def __init__(
        self,
        encoder: keras.Model,
        projection_head: keras.Model | ProjectionHead,
        augment: Augment | Sequence[Augment],
        temperature: float = 0.1,
        normalize: bool = True,
        linear_head: keras.layers.Layer | None = None,
        seed: int = 0,
        microbatch_size: int = 0,
        contrastive_loss: Callable[..., LossOutputs] = nt_xent,
        name: str = "simclr",
        num_views: int = 2,
    ):
        if microbatch_size < 0:
            raise ValueError(f"microbatch_size must be at least 0, got {microbatch_size}")
        parameters = inspect.signature(contrastive_loss).parameters
        if not 2 <= num_views <= (MAX_VIEWS if "more_views" in parameters else 2):
            raise ValueError(
                f"num_views must be 2, or up to {MAX_VIEWS} if contrastive_loss has a parameter "
                f"more_views, got {num_views}"
            )
        metric_names = ["loss", "contrastive_accuracy", "contrastive_entropy"]
        metric_names += ["alignment", "uniformity", "feature_std"]
        if linear_head is not None:
            metric_names += ["linear_loss", "linear_accuracy"]
        super().__init__(augment, seed, metric_names, num_views, name=name)
        self.encoder = encoder
        self.projection_head = _build_for_features(projection_head, encoder, "projection_head")
        if isinstance(projection_head, ProjectionHead):
            self.projection_head = projection_head.network
        self.linear_head = _build_for_features(linear_head, encoder, "linear_head")
        self.temperature = temperature
        self.normalize = normalize
        self.microbatch_size = microbatch_size
        self.contrastive_loss = contrastive_loss
        self._takes_labels = "labels" in parameters

    def compile(self, optimizer: Any = "adam", **kwargs: Any) -> None:
        """Sets a tf_keras optimizer (or its name), which does not decay the linear head."""
        optimizer = keras.optimizers.get(optimizer)
        if self.linear_head is not None:
            inner = getattr(optimizer, "inner_optimizer", optimizer)
            inner.exclude_from_weight_decay(var_list=self.linear_head.trainable_variables)
        super().compile(optimizer=optimizer, **kwargs)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.projection_head(self.encoder(images, training=training), training=training)

    def encode_and_contrast(
        self, views: Any, training: bool, labels: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """Encodes the views of `make_views` and contrasts them, with labels [B] if they exist.

        Returns features [V·B, D], the loss, and the logs.
        """
        outputs = self._encode(views, training)
        return outputs["features"], *self._contrastive_loss(outputs, labels)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Trains on this replica's part of a global batch and returns the logs of this step.

        Exchanged between replicas, by all-reduces: the projections (`contrastive.all_gather`); the
        statistics of each batch norm of C channels, 3·C numbers forward and 2·C backward (with
        `microbatch_size` for each microbatch, and forward twice); one gradient per weight.
        """
        batch = as_batch(data)
        variables = self.trainable_variables
        if self.microbatch_size in (0, static_batch_size(batch)):
            views = self.make_views(batch, self.step)
            with tf.GradientTape() as tape:
                loss, logs = self._loss(self._encode(views, training=True), batch)
            gradients = tape.gradient(loss, variables)
        else:
            gradients, logs = self._cached_gradients(batch, variables)
        per_replica = [] if self.linear_head is None else ["linear_loss"]
        self._apply_gradients(gradients, logs, per_replica)
        # Not the metrics: their means would be summed over the replicas at every step.
        return logs

    def _cached_gradients(self, batch, variables):
        """Returns (gradients, logs) of the plain step, computed from microbatches."""
        local_batch_size, size = static_batch_size(batch), self.microbatch_size
        if local_batch_size % size:
            raise ValueError(
                f"microbatch_size={size} must divide the per-replica batch size {local_batch_size}"
            )
        parts = self.encoder, self.projection_head

        def encode(k):
            return self._encode(self.make_views(batch, self.step, k * size, size), training=True)

        def loss_fn(outputs):
            merged = {
                name: tf.reduce_mean(x) if name == "regularization" else self._merge(x)
                for name, x in outputs.items()
            }
            return self._loss(merged, batch)

        return cached_gradients(
            local_batch_size // size,
            encode,
            loss_fn,
            variables,
            [v for part in parts for v in part.non_trainable_variables if v.dtype.is_floating],
        )

    def _merge(self, microbatches):
        """Reorders [K, V·m, D], the views of m images in K microbatches, to [V·B, D]."""
        views = tf.split(microbatches, self.views_per_image, axis=1)  # each [K, m, D]
        return tf.concat([tf.reshape(view, [-1, *view.shape[2:]]) for view in views], axis=0)

    def _encode(self, views, training):
        """Returns features and projections of views, and the layers' regularization if any."""
        if isinstance(views, tuple):
            return _join([self._encode(group, training) for group in views])
        features = self.encoder(views, training=training)
        projections = self.projection_head(features, training=training)
        outputs = {"features": features, "projections": projections}
        penalties = self.encoder.losses + self.projection_head.losses
        return {**outputs, "regularization": tf.add_n(penalties)} if penalties else outputs

    def _loss(self, outputs, batch):
        """Returns the total loss on this replica, scaled for float16, and the logs of the step."""
        loss, logs = self._contrastive_loss(outputs, batch.get("label"))
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        penalties = [outputs["regularization"]] if "regularization" in outputs else []
        if self.linear_head is not None:
            logits = self.linear_head(tf.stop_gradient(outputs["features"]))
            labels = tf.tile(get_labels(batch), [self.views_per_image])
            linear_loss, logs["linear_loss"], logs["linear_accuracy"] = cross_entropy(
                logits, labels
            )
            loss += tf.cast(linear_loss / replicas, loss.dtype)
            penalties += self.linear_head.losses
        if penalties:
            loss += tf.cast(tf.add_n(penalties), loss.dtype) / replicas
        return self._scale_loss(loss), logs

    def _contrastive_loss(self, outputs, labels):
        z_a, z_b, *more_views = tf.split(outputs["projections"], self.views_per_image)
        settings = {"temperature": self.temperature, "normalize": self.normalize}
        if self._takes_labels:
            if labels is None:
                raise ValueError(
                    "the contrastive loss needs labels. Fix: fit(images, labels), or batches with "
                    'a "label"'
                )
            settings["labels"] = labels
        if more_views:
            settings["more_views"] = more_views
        loss, accuracy, entropy = self.contrastive_loss(z_a, z_b, **settings)
        logs = {
            "loss": loss,
            "contrastive_accuracy": accuracy,
            "contrastive_entropy": entropy,
            **collapse_metrics(outputs["features"], z_a, z_b),
        }
        return loss, logs


def _join(groups):
    """Joins the outputs of groups of views; the regularization is a mean over the views.

    That of activities is a mean over the views in each group, that of weights is equal in all.
    """
    joined = {name: tf.concat([x[name] for x in groups], axis=0) for name in _PER_VIEW}
    if "regularization" in groups[0]:
        sizes = [tf.cast(tf.shape(x["features"])[0], x["regularization"].dtype) for x in groups]
        total = tf.add_n([n * x["regularization"] for n, x in zip(sizes, groups, strict=True)])
        joined["regularization"] = total / tf.add_n(sizes)
    return joined


def _build_for_features(layer: Any, encoder: keras.Model, argument: str) -> Any:
    """Builds a layer for the width of the encoder's features, if it is not built yet."""
    shape = getattr(encoder, "output_shape", None) if encoder.built else None
    if shape is not None and (len(shape) != 2 or shape[1] is None):
        raise ValueError(
            f"encoder: expected output of shape [N, D], got {shape}. Fix: add "
            'GlobalAveragePooling2D (in keras.applications: include_top=False, pooling="avg")'
        )
    if layer is not None and not layer.built:
        if shape is None:
            raise ValueError(
                f"{argument} is not built, and the encoder's output width is unknown. Fix: "
                f"{argument}.build((None, D)), or pass a functional encoder"
            )
        layer.build(shape)
    return layer


def collapse_metrics(features: tf.Tensor, z_a: tf.Tensor, z_b: tf.Tensor) -> dict[str, tf.Tensor]:
    """Computes metrics of features and projections that show whether they collapse.

    The features are those of all views, [V·B, D], the projections those of the first two, [B, P].
    `alignment` is the mean squared distance of the two normalized projections of an image, 0 to 4;
    `uniformity` the log of the mean of exp(-2·squared distance) over this replica's pairs of
    images, 0 when collapsed (Wang and Isola, 2020); `feature_std` the standard deviation of the
    normalized features times √D, about 1 when spread over all directions, 0 when collapsed.
    """
    features, z_a, z_b = (
        l2_normalize(tf.stop_gradient(tf.cast(tensor, tf.float32)))
        for tensor in (features, z_a, z_b)
    )
    num_images = tf.cast(tf.shape(z_a)[0], tf.float32)
    gaussian_potential = tf.exp(4.0 * (tf.matmul(z_a, z_a, transpose_b=True) - 1.0))
    others = tf.reduce_sum(gaussian_potential) - tf.linalg.trace(gaussian_potential)
    width = tf.cast(tf.shape(features)[1], tf.float32)
    spread = tf.reduce_mean(tf.math.reduce_variance(features, axis=0)) * width
    num_pairs = num_images * (num_images - 1.0)
    return {
        "alignment": tf.reduce_mean(tf.reduce_sum(tf.square(z_a - z_b), axis=1)),
        "uniformity": tf.where(num_images > 1.0, tf.math.log(others / num_pairs), 0.0),
        "feature_std": tf.sqrt(spread),
    }
