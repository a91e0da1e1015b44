"""Base class of the trained models: view generation, gradient update, step counter, metrics."""

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from simclr_tf.augment import SimCLRAugmentation, view_seed
from simclr_tf.losses.contrastive import all_reduce_sum

Augment = Callable[..., tf.Tensor]  # called as (images, seed, offset, aspect)


class MultiViewModel(keras.Model):
    """A model whose views follow from (seed, step, position, view), with a step counter.

    `metric_names` are those of the scalars that a step returns; their means are the metrics.
    """

    train_function: Any  # of Keras

    def __init__(
        self,
        augment: Augment | Sequence[Augment],
        seed: int,
        metric_names: Sequence[str],
        views_per_image: int,
        name: str,
    ):
        super().__init__(name=name)
        self.views_per_image = views_per_image
        self.policies = self._policies_per_view(augment)
        self.stage_ends: tuple[int, ...] = ()
        self._stage_policies: tuple[tuple[Augment, ...], ...] = ()
        self.stage = -1  # index of the stage of a training step; outside of one the last
        self.seed = seed
        self.step = _step_counter("step", 0)
        # Step of the first loss that was not finite, or -1: recorded without a wait for the device.
        self.first_bad_step = _step_counter("first_bad_step", -1)
        # The context in which `fit` waits for a batch, if the wait is separate from the step.
        self.input_wait: Callable[[], AbstractContextManager[None]] | None = None
        self._means = {name: keras.metrics.Mean(name=name) for name in metric_names}
        # `fit` returns the logs of the first replica instead of a sum over replicas.
        self.distribute_reduction_method = "first"
        # Of the weights of all layers, in their order; None: no averages.
        self.averages: list[tf.Variable] | None = None
        self.ema_decay = 0.0

    def _policies_per_view(self, augment: Augment | Sequence[Augment]) -> tuple[Augment, ...]:
        count = self.views_per_image
        policies = augment if isinstance(augment, Sequence) else [augment] * count
        if len(policies) != count:
            raise ValueError(
                f"augment: expected one function per view ({count}), got {len(policies)}"
            )
        # Uses the function of a Keras layer: views follow from the step here, not from its calls.
        return tuple(p.policy if isinstance(p, SimCLRAugmentation) else p for p in policies)

    def schedule_views(self, stages: Iterable[tuple[int, Augment | Sequence[Augment]]]) -> None:
        """Lets `fit` make the views of its first steps by other functions, of other sizes.

        Of each (end, augment), in ascending order, `augment` makes the views of the steps before
        `end` and from the end before on; the model's own makes those of the other steps, and all
        views outside of `fit`. Each stage is compiled once, at its first step.
        """
        stages = list(stages)
        self.train_function = None
        self.stage_ends = tuple(end for end, _ in stages)
        self._stage_policies = tuple(self._policies_per_view(augment) for _, augment in stages)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._means.values())

    def fit(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Trains on images [N, H, W, 3] and labels `y`, or a dataset of batches as of `SimCLR`.

        Images are uint8 or float in [0, 1], labels int [N], -1 where there is none. Those of an
        incomplete last batch are left out; another order in every epoch leaves out others.
        """
        if isinstance(x, np.ndarray | tf.Tensor):
            x = _batches_from_arrays(x, y, batch_size or 32, kwargs.pop("shuffle", True), self.seed)
            y = batch_size = None
        return super().fit(x, y, batch_size, *args, **kwargs)

    def make_train_function(self, force: bool = False) -> Callable[[Any], Any]:
        """Returns Keras's function, or with stages of the views one that dispatches to them."""
        if not self.stage_ends:
            return self._make_stage_function(force)
        if force or not isinstance(self.train_function, _StagedFunction):
            count = len(self.stage_ends) + 1
            functions = [self._make_stage_function(force=True) for _ in range(count)]
            self.train_function = _StagedFunction(self, functions)
        self.train_function.step = int(self.step.numpy())
        return self.train_function

    def _make_stage_function(self, force: bool) -> Callable[[Any], Any]:
        """Separates the wait for a batch from the step, so that a canceled wait changes nothing.

        The updates of a step that need no batch, such as its counter, would not wait for one.
        """
        input_wait, keras_function = self.input_wait, super().make_train_function(force)
        step_of_iterator = getattr(keras_function, "python_function", None)  # None: eager, or ours
        if input_wait is None or step_of_iterator is None or self._steps_per_execution > 1:
            return keras_function

        @tf.function
        def fetch(iterator):
            return next(iterator)

        @tf.function(reduce_retracing=True)
        def step_of_batch(batch):
            return step_of_iterator(iter((batch,)))

        def train_function(iterator):
            with input_wait():
                batch = fetch(iterator)
            return step_of_batch(batch)

        self.train_function = train_function
        return train_function

    def average_weights(self, decay: float) -> None:
        """Maintains an exponential moving average of all layers' weights from the next step on.

        `average += (1 - d)·(weight - average)` after every step, also of the moving statistics of
        batch norm. `d = min(decay, t / (t + 9))` in [0, 1) after t earlier steps (the warm-up
        (1 + t) / (10 + t) of TensorFlow, one step later), so that the first step copies the weights
        and the initial ones have no influence. Call it after the layers are built, in the scope of
        the strategy.
        """
        self.ema_decay = decay
        self.averages = [
            tf.Variable(
                weight.numpy(),
                trainable=False,
                name="average",
                # Each replica updates its own without communication. Statistics may differ.
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=(
                    weight.aggregation
                    if weight.synchronization == tf.VariableSynchronization.ON_READ
                    else tf.VariableAggregation.ONLY_FIRST_REPLICA
                ),
            )
            for layer in self.layers
            for weight in layer.weights
        ]

    def evaluation_weights(self) -> list[list[np.ndarray]]:
        """Returns the weights with which each layer is evaluated: the averages, if there are any.

        All workers call it together.
        """
        if self.averages is None:
            return [layer.get_weights() for layer in self.layers]
        averages = iter(self.averages)
        return [[next(averages).numpy() for _ in layer.weights] for layer in self.layers]

    def set_layer_weights(self, weights: Sequence[Sequence[np.ndarray]]) -> None:
        """Sets the weights of each layer, such as `evaluation_weights` of an equal model."""
        for layer, values in zip(self.layers, weights, strict=True):
            layer.set_weights(values)

    def _update_averages(self):
        if self.averages is None:
            return
        step = tf.cast(self.step, tf.float32)
        decay = tf.minimum(self.ema_decay, step / (step + 9.0))
        weights = (weight for layer in self.layers for weight in layer.weights)
        for average, weight in zip(self.averages, weights, strict=True):
            value = tf.convert_to_tensor(weight)
            if value.dtype.is_floating:
                value += tf.cast(decay, value.dtype) * (average - value)
            average.assign(value)

    def make_views(
        self,
        batch: Any,
        step: int | tf.Tensor,
        first: int | tf.Tensor = 0,
        count: int | None = None,
        *,
        offset: int | tf.Tensor | None = None,
    ) -> tf.Tensor | tuple[tf.Tensor, ...]:
        """Makes the views [V·n, S, S, 3] of this replica's batch, view 0 of all images first.

        If the views have different sizes S, returns a tuple: one such tensor for each run of
        successive views of equal size.

        Of the n = `count` images from `first` on, or of all (None); they are equal to those in the
        whole batch. `offset`: index in the global batch of this batch's first image; None: derived
        from the replica, for which the batch size must be static.
        """
        images, aspect = batch["image"], batch.get("aspect")
        if offset is None:
            context = tf.distribute.get_replica_context()
            replica = context.replica_id_in_sync_group if context else 0
            offset = replica * static_batch_size(batch)
        if count is not None:
            images = _slice_rows(images, first, count)
            aspect = None if aspect is None else _slice_rows(aspect, first, count)
        policies = (*self._stage_policies, self.policies)[self.stage]
        views = [
            policy(images, view_seed(self.seed, step, view), offset + first, aspect)
            for view, policy in enumerate(policies)
        ]
        sizes = itertools.groupby(views, key=lambda view: view.shape[1:])
        groups = tuple(tf.concat(list(group), axis=0) for _, group in sizes)
        return groups if len(groups) > 1 else groups[0]

    def _scale_loss(self, loss):
        return self.optimizer.get_scaled_loss(loss) if self._uses_loss_scaling else loss

    @property
    def _uses_loss_scaling(self):
        return isinstance(self.optimizer, keras.mixed_precision.LossScaleOptimizer)

    def _apply_gradients(self, gradients, logs, per_replica_losses=()):
        """Ends a step: updates the weights, the step counter and the metrics.

        `gradients` are those of the scaled loss; `per_replica_losses` names the losses in `logs`
        that differ between replicas.
        """
        if self._uses_loss_scaling:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        self._update_averages()
        finite = tf.constant(True)
        for name in dict.fromkeys(["loss", *per_replica_losses]):
            loss = all_reduce_sum(logs[name]) if name in per_replica_losses else logs[name]
            finite &= tf.math.is_finite(loss)
        # The first step with a loss that is not finite, equal on every replica.
        bad = tf.logical_and(~finite, self.first_bad_step < 0)
        self.first_bad_step.assign(tf.where(bad, self.step, self.first_bad_step))
        self.step.assign_add(1)
        for name, mean in self._means.items():
            mean.update_state(logs[name])


class _StagedFunction:
    """Calls the training function of the stage to which the next steps belong.

    Several steps per execution are split where a stage ends. `step` is the model's, counted on the
    host, because reading the model's waits for the device.
    """

    def __init__(self, model: MultiViewModel, functions: Sequence[Callable[[Any], Any]]):
        self._model, self._functions = model, functions
        self.step = 0

    def __call__(self, iterator: Any) -> Any:
        model, ends = self._model, self._model.stage_ends
        steps_per_execution = model._steps_per_execution
        count = int(steps_per_execution.numpy())
        last, logs = self.step + count, None
        try:
            while self.step < last:
                model.stage = bisect.bisect_right(ends, self.step)
                end = min([last, *ends[model.stage : model.stage + 1]])
                if count > 1:
                    steps_per_execution.assign(end - self.step)
                logs = self._functions[model.stage](iterator)
                self.step = end
        finally:
            model.stage = -1
            if count > 1:
                steps_per_execution.assign(count)
        return logs


def as_batch(data: Any) -> Mapping[str, tf.Tensor]:
    """Returns a batch of `fit` as {"image": …} with "label" and "aspect" where they exist.

    It is such a dict, images [B, H, W, 3], or (images or dict, labels int [B] or [B, 1]).
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if sample_weight is not None:
        raise ValueError("sample weights are not supported. Fix: leave out sample_weight")
    batch = dict(x) if isinstance(x, Mapping) else {"image": x}
    if y is not None:
        batch["label"] = y
    if "image" not in batch or batch["image"].shape.rank != 4:
        got = batch["image"].shape if "image" in batch else f"the keys {', '.join(batch)}"
        raise ValueError(f'expected images [B, H, W, 3] (in a dict: "image"), got {got}')
    if "label" in batch:
        labels = batch["label"]
        if labels.shape.rank == 2 and labels.shape[1] == 1:  # as keras.datasets returns them
            labels = tf.squeeze(labels, axis=1)
        batch["label"] = labels
        if labels.dtype.is_integer and labels.shape.rank == 2:  # several labels per image
            del batch["label"]
        elif labels.shape.rank != 1 or not labels.dtype.is_integer:
            raise ValueError(
                f"expected class indices int [B] as labels, got {labels.dtype.name} {labels.shape}"
            )
    return batch


def get_labels(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Returns the labels [B] of a batch, or raises ValueError."""
    if "label" not in batch:
        raise ValueError(
            "expected labels, got images only. Fix: fit(images, labels), or a dataset of "
            '(images, labels) or {"image": …, "label": …}'
        )
    return batch["label"]


def _batches_from_arrays(images, labels, batch_size, shuffle, seed):
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"expected images [N, H, W, 3], got shape {tuple(images.shape)}")
    is_float = tf.as_dtype(images.dtype).is_floating
    if not is_float and images.dtype != np.uint8:
        raise ValueError(f"expected uint8 or float images, got {tf.as_dtype(images.dtype).name}")
    if is_float and len(images) and not 0 <= np.min(images) <= np.max(images) <= 1:
        raise ValueError(
            f"expected float images in [0, 1], got values from {np.min(images):.3g} to "
            f"{np.max(images):.3g}. Fix: pass uint8, or divide by 255"
        )
    if len(images) < batch_size:
        raise ValueError(
            f"expected at least one batch, got {len(images)} images and batch_size={batch_size}. "
            "Fix: lower batch_size"
        )
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"expected one label per image ({len(images)}), got {len(labels)}")
    rows = images if labels is None else (images, labels)
    dataset = tf.data.Dataset.from_tensor_slices(rows)
    if shuffle:
        dataset = dataset.shuffle(len(images), seed=seed)
    return dataset.batch(batch_size, drop_remainder=True).prefetch(2)


@contextmanager
def eager_functions() -> Iterator[None]:
    """Runs functions eagerly in its body: the views of few images take less time than compiling."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def static_batch_size(batch: Any) -> int:
    """Returns B, the static number of images in a replica's batch, or raises ValueError."""
    size = batch["image"].shape[0]
    if size is None:
        raise ValueError(
            "expected batches of a fixed size, got an unknown size. Fix: "
            "dataset.batch(…, drop_remainder=True)"
        )
    return size


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes softmax cross-entropy in at least float32, without the images of label -1.

    Returns (loss, mean_loss, accuracy). `loss` is the sum over the labeled images divided by N: its
    gradients add up over replicas, because N is equal on every replica and step; the number of
    labels is not. `mean_loss` and `accuracy` are per labeled image.
    """
    logits = tf.cast(logits, tf.float64 if logits.dtype == tf.float64 else tf.float32)
    has_label = tf.cast(labels >= 0, logits.dtype)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
    loss = tf.reduce_mean(has_label * losses)
    is_correct = tf.argmax(logits, axis=1, output_type=labels.dtype) == labels
    labeled_fraction = tf.maximum(tf.reduce_mean(has_label), 1 / labels.shape[0])
    accuracy = tf.reduce_mean(tf.cast(is_correct, logits.dtype)) / labeled_fraction
    return loss, tf.stop_gradient(loss) / labeled_fraction, accuracy


def _step_counter(name, value):
    return tf.Variable(
        value,
        dtype=tf.int64,
        trainable=False,
        name=name,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _slice_rows(tensor, first, count):
    """Returns rows `first` to `first + count` of a tensor; the number of rows is static."""
    rest = tensor.shape[1:]
    begin = [first] + [0] * rest.rank
    return tf.slice(tensor, begin, [count, *(-1 if n is None else n for n in rest)])
