"""A linear head that learns in batches: linear evaluation, and logistic regression by Adam."""

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow as tf
import tf_keras as keras

from simclr_tf import optimizers
from simclr_tf.augment import SimCLRAugment, view_seed
from simclr_tf.data import decode_errors_name_image, train_batches
from simclr_tf.data.base import content_hash
from simclr_tf.errors import UserError
from simclr_tf.evaluation.protocols import AffineClassifier, Prediction, ProtocolInputs
from simclr_tf.training.schedule import resolve_steps
from simclr_tf.utils.files import atomic_write


class LinearHead:
    """Logits of features by a kernel and a bias, which start at zero: the problem is convex.

    Args:
        dims: D.
        num_classes: C.
        multi_label: labels are [N, C] of 1, 0 and -1 (which is taken for 0), and the loss a
            sigmoid's; else int [N].
        optimizer: whose rate falls to 0 as `falling` says.
        l2: penalty l2/2·‖W‖² in the loss.
    """

    def __init__(
        self,
        dims: int,
        num_classes: int,
        optimizer: keras.optimizers.Optimizer,
        multi_label: bool = False,
        l2: float = 0.0,
    ):
        self.kernel = tf.Variable(tf.zeros([dims, num_classes]), name="kernel")
        self.bias = tf.Variable(tf.zeros([num_classes]), name="bias")
        self._optimizer, self._multi_label, self._l2 = optimizer, multi_label, l2
        optimizer.build([self.kernel, self.bias])
        self.step = tf.function(self.learn, autograph=False, reduce_retracing=True)

    def learn(self, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Take one step on features float32 [B, D] and their labels; return the loss before it."""
        with tf.GradientTape() as tape:
            logits = tf.matmul(features, self.kernel) + self.bias
            if self._multi_label:
                losses = tf.nn.sigmoid_cross_entropy_with_logits(
                    tf.cast(labels > 0, tf.float32), logits
                )
                losses = tf.reduce_sum(losses, axis=1)
            else:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses) + self._l2 * tf.nn.l2_loss(self.kernel)
        variables = [self.kernel, self.bias]
        gradients = tape.gradient(loss, variables)
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    def save(self, path: Path) -> None:
        """Keep everything that learning on depends on."""
        file = io.BytesIO()
        np.savez(file, *(variable.numpy() for variable in self._state()))
        atomic_write(path, file.getvalue())

    def restore(self, path: Path) -> int:
        """Take over what was kept, if anything was; return the steps that it had taken."""
        if not path.exists():
            return 0
        with np.load(path, allow_pickle=False) as kept:
            for variable, name in zip(self._state(), kept.files, strict=True):
                variable.assign(kept[name])
        return int(self._optimizer.iterations.numpy())

    def _state(self) -> list[tf.Variable]:
        return [self.kernel, self.bias, *self._optimizer.variables]


def cosine_optimizer(name: str, rate: float, steps: int) -> keras.optimizers.Optimizer:
    """Return the optimizer `momentum` (Nesterov 0.9) or `adam`, its rate half a cosine to 0."""
    return optimizers.get(name, optimizers.WarmupCosine(rate, 0, steps))


def shuffled_batches(
    features: np.ndarray, labels: np.ndarray, batch_size: int, steps: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches of rows in the order of (seed, epoch), which may straddle two epochs."""
    order, epoch = np.empty(0, np.int64), 0
    for _ in range(steps):
        while len(order) < batch_size:
            random = np.random.Generator(np.random.Philox([seed, epoch]))
            order, epoch = np.concatenate([order, random.permutation(len(features))]), epoch + 1
        rows, order = order[:batch_size], order[batch_size:]
        yield features[rows], labels[rows]


_MINUTE = 60.0


@dataclass(frozen=True)
class Linear:
    """The protocol `linear`: crop and flip, encoder in inference mode, Nesterov, cosine, no decay.

    Args:
        epochs: passes over the training images.
        batch_size: B, or all of them where there are fewer.
        learning_rate: times B / 256.
        cached: learn from the features of the images as they are, seen once: much faster, and not
            quite the paper's protocol. The answer's setting says so.
    """

    epochs: float = 90
    batch_size: int = 256
    learning_rate: float = 0.1
    cached: bool = False

    name: ClassVar[str] = "linear"

    def check(self, num_train: int) -> None:
        """Raise UserError where there would be no step."""
        batch = min(self.batch_size, num_train)
        if not resolve_steps(num_train, batch, epochs=self.epochs):
            raise UserError(f"--linear_epochs={self.epochs:g} is less than one step; raise it")

    def predict(self, task: ProtocolInputs) -> list[Prediction]:
        """Train the head on train, and score test."""
        train = task.train
        batch = min(self.batch_size, train.num_examples)
        steps = resolve_steps(train.num_examples, batch, epochs=self.epochs)
        head = LinearHead(
            train.features.shape[1],
            task.num_classes,
            cosine_optimizer("momentum", self.learning_rate * batch / 256, steps),
            multi_label=train.labels.ndim == 2,
        )
        if self.cached:
            for features, labels in shuffled_batches(
                train.features, train.labels, batch, steps, task.seed
            ):
                head.step(tf.constant(features), tf.constant(labels))
        else:
            self._train_on_views(head, task, batch, steps)
        fitted = AffineClassifier(head.kernel.numpy(), head.bias.numpy())
        scores = task.test.features @ fitted.kernel + fitted.bias
        several = train.labels.ndim == 2
        return [
            Prediction(
                scores,
                self._setting(),
                classifier=None if several else fitted,
            )
        ]

    def _setting(self) -> str:
        """What tells it from the paper's protocol."""
        words = ["cached features"] if self.cached else []
        names = {"epochs": "epochs", "batch_size": "B", "learning_rate": "learning rate"}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in names and value != field.default:
                words.append(f"{names[field.name]} {value:g}")
        return ", ".join(words)

    def _train_on_views(
        self, head: LinearHead, task: ProtocolInputs, batch: int, steps: int
    ) -> None:
        """Trains on crops and flips; after every epoch it keeps what a next call goes on from."""
        assert task.encoder is not None and task.source is not None
        encoder, source = task.encoder, task.source
        augment = SimCLRAugment(
            task.image_size, color_jitter_strength=0, use_blur=False, grayscale=False
        )

        @tf.function(autograph=False)
        def step(records, number):
            seed = view_seed(task.seed, number, 0)
            views = augment(records["image"], seed, 0, records.get("aspect"))
            features = tf.cast(encoder(views, training=False), tf.float32)
            return head.learn(features, records["label"])

        kept = None
        if task.scratch is not None:
            key = content_hash(self, task.num_classes, task.seed, batch, steps)[:16]
            kept = task.scratch / f"linear-{key}.npz"
        start = head.restore(kept) if kept else 0
        per_epoch = task.train.num_examples / batch
        began = said = time.monotonic()
        with decode_errors_name_image(source):
            batches = train_batches(
                source,
                batch_size=batch,
                seed=task.seed,
                start_step=start,
                num_steps=steps - start,
            )
            for number, records in enumerate(batches, start):
                loss = step(records, tf.constant(number))
                done = number + 1
                if kept and int(done / per_epoch) > int(number / per_epoch):
                    head.save(kept)
                now = time.monotonic()
                if now - said > _MINUTE or (said == began and now - began > _MINUTE / 6):
                    said = now
                    rate = (done - start) * batch / (now - began)
                    print(
                        f"linear: epoch {done / per_epoch:.1f} of {self.epochs:g}, "
                        f"loss {float(loss):.3f}, {rate:,.0f} images/s, "
                        f"{(steps - done) * batch / rate / _MINUTE:.0f} minutes left",
                        flush=True,
                    )
        if kept:
            kept.unlink(missing_ok=True)
