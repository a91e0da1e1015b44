"""What every model here does at a step, whatever its loss: views, update, watch, count."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.augment import view_seed
from simclr_tf.losses.collectives import all_reduce

Augment = Callable[..., tf.Tensor]  # called as (images, seed, offset, aspect)


class StepwiseModel(keras.Model):
    """A model whose views follow from (seed, step, position, view), and which counts its steps.

    Args:
        augment: makes a view: (images, seed, offset, aspect) → float32 [N, S, S, 3] in [0, 1]; or
            one such for each view.
        seed: the run's seed; all views follow from it, the step and the position in the batch.
        figures: names of the scalars that a step reports; their means are the metrics.
        views_per_image: how many views of each image a step makes.
        name: of the Keras model.

    Raises:
        ValueError: there are policies for another number of views.
    """

    def __init__(
        self,
        augment: Augment | Sequence[Augment],
        seed: int,
        figures: Sequence[str],
        views_per_image: int,
        name: str,
    ):
        super().__init__(name=name)
        policies = augment if isinstance(augment, Sequence) else [augment] * views_per_image
        if len(policies) != views_per_image:
            raise ValueError(f"{len(policies)} policies are not for {views_per_image} views")
        self.policies = tuple(policies)
        self.seed = seed
        self.views_per_image = views_per_image
        self.step = _counter("step", 0)
        # The step of the first loss that was not finite, or -1: seen without asking the device.
        self.first_bad_step = _counter("first_bad_step", -1)
        self._means = {name: keras.metrics.Mean(name=name) for name in figures}
        # What `fit` passes on of a step is the first replica's, not a sum over all of them.
        self.distribute_reduction_method = "first"

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._means.values())

    def make_views(
        self,
        batch: Any,
        step: int | tf.Tensor,
        first: int | tf.Tensor = 0,
        count: int | None = None,
    ) -> tf.Tensor:
        """Makes the views of a replica's batch, or of a slice of it, the same as in the whole.

        Args:
            batch: the replica's, "image" [B, H, W, 3] and perhaps "aspect" [B].
            step: that the views are for.
            first: the slice's first image in the replica's batch.
            count: n, images in the slice; None for all, from 0.

        Returns:
            float32 [V·n, S, S, 3], view 0 of all images first.

        Raises:
            ValueError: B is not known beforehand.
        """
        images, aspect, share = batch["image"], batch.get("aspect"), share_of(batch)
        if count is not None:
            images = _rows(images, first, count)
            aspect = None if aspect is None else _rows(aspect, first, count)
        context = tf.distribute.get_replica_context()
        offset = context.replica_id_in_sync_group * share if context else 0
        return self.views_of(images, step, offset + first, aspect)

    def views_of(
        self,
        images: tf.Tensor,
        step: int | tf.Tensor,
        offset: int | tf.Tensor,
        aspect: tf.Tensor | None,
    ) -> tf.Tensor:
        """Makes the views of images [N, H, W, 3] that stand from `offset` on in a global batch.

        Returns:
            float32 [V·N, S, S, 3], view 0 of all images first.
        """
        views = [
            policy(images, view_seed(self.seed, step, view), offset, aspect)
            for view, policy in enumerate(self.policies)
        ]
        return tf.concat(views, axis=0)

    def _scaled(self, loss):
        return self.optimizer.get_scaled_loss(loss) if self._scales_loss else loss

    @property
    def _scales_loss(self):
        return isinstance(self.optimizer, keras.mixed_precision.LossScaleOptimizer)

    def _update(self, gradients, statistics, own=()):
        """Ends a step: moves the weights, and counts.

        Args:
            gradients: of `trainable_variables`, of the scaled loss.
            statistics: this step's figures.
            own: names of the losses among them that each replica has for itself.
        """
        if self._scales_loss:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        finite = tf.constant(True)
        for name in dict.fromkeys(["loss", *own]):
            loss = all_reduce(statistics[name]) if name in own else statistics[name]
            finite &= tf.math.is_finite(loss)
        # The first step whose loss is not finite, the same step on every replica.
        bad = tf.logical_and(~finite, self.first_bad_step < 0)
        self.first_bad_step.assign(tf.where(bad, self.step, self.first_bad_step))
        self.step.assign_add(1)
        for name, mean in self._means.items():
            mean.update_state(statistics[name])


def share_of(batch: Any) -> int:
    """B, the images of a replica's batch.

    Raises:
        ValueError: it is not known beforehand.
    """
    share = batch["image"].shape[0]
    if share is None:
        raise ValueError("the batch must be of fixed size: use batch(…, drop_remainder=True)")
    return share


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Softmax cross-entropy in at least float32; images of label -1 are left out.

    Args:
        logits: [N, C].
        labels: int [N].

    Returns:
        (loss, mean, accuracy): `loss` is the sum over the labelled images divided by N, whose
        gradients add up over replicas, because N is the same at every step and replica and the
        number of labels is not; `mean` and `accuracy` are per labelled image.
    """
    logits = tf.cast(logits, tf.float64 if logits.dtype == tf.float64 else tf.float32)
    labelled = tf.cast(labels >= 0, logits.dtype)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
    loss = tf.reduce_mean(labelled * losses)
    found = tf.argmax(logits, axis=1, output_type=labels.dtype) == labels
    share = tf.maximum(tf.reduce_mean(labelled), 1 / labels.shape[0])
    accuracy = tf.reduce_mean(tf.cast(found, logits.dtype)) / share
    return loss, tf.stop_gradient(loss) / share, accuracy


def _counter(name, value):
    return tf.Variable(
        value,
        dtype=tf.int64,
        trainable=False,
        name=name,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _rows(tensor, first, count):
    """`count` rows of a tensor, `first` and on, their number static wherever they start."""
    rest = tensor.shape[1:]
    begin = [first] + [0] * rest.rank
    return tf.slice(tensor, begin, [count, *(-1 if n is None else n for n in rest)])
