"""Linear evaluation: a linear classifier on top of a frozen encoder [v1 §4.1, B.6]."""

import time
from dataclasses import dataclass, fields
from typing import ClassVar

import tensorflow as tf

from simclr_tf.augment import SimCLRAugment, view_seed
from simclr_tf.data import decode_errors_name_image, train_batches
from simclr_tf.data.base import content_hash
from simclr_tf.errors import UserError
from simclr_tf.evaluation.linear_head import LinearHead, falling, shuffled_batches
from simclr_tf.evaluation.protocols import AffineClassifier, Prediction, Task
from simclr_tf.training.durations import resolve_steps

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

    def predict(self, task: Task) -> list[Prediction]:
        """Train the head on train, and score test."""
        train = task.train
        batch = min(self.batch_size, train.num_examples)
        steps = resolve_steps(train.num_examples, batch, epochs=self.epochs)
        head = LinearHead(
            train.features.shape[1],
            task.num_classes,
            falling("momentum", self.learning_rate * batch / 256, steps),
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

    def _train_on_views(self, head: LinearHead, task: Task, batch: int, steps: int) -> None:
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
