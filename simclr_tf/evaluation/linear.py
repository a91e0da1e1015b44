"""Linear evaluation: a linear classifier on top of a frozen encoder [v1 §4.1, B.6]."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow as tf

from simclr_tf import optimizers
from simclr_tf.augment import SimCLRAugment, view_seed
from simclr_tf.data import decode_errors_name_image, train_batches
from simclr_tf.data.base import content_hash
from simclr_tf.errors import UserError
from simclr_tf.evaluation.protocols import AffineClassifier, Prediction, ProtocolInputs
from simclr_tf.optimizers import WarmupCosine
from simclr_tf.training.schedule import resolve_steps
from simclr_tf.utils.files import save_npz
from simclr_tf.utils.progress import Progress


@dataclass(frozen=True)
class Linear:
    """Protocol `linear`: SGD on features of random crops and flips of the training images.

    Nesterov momentum 0.9, a cosine schedule to 0 and no weight decay, as in the paper.

    >>> from simclr_tf.evaluation import Linear
    >>> Linear(epochs=2, cached=True).check(num_train=1000)

    Args:
        epochs: passes over the training images.
        batch_size: images per step B; all images if there are fewer.
        learning_rate: learning rate for a batch of 256, multiplied by B / 256.
        cached: train on the features of the unaugmented images. This is much faster but differs
            from the paper's protocol, which the result's `setting` states.
    """

    epochs: float = 90
    batch_size: int = 256
    learning_rate: float = 0.1
    cached: bool = False

    name: ClassVar[str] = "linear"

    def check(self, num_train: int) -> None:
        """Raises UserError if there would be no step."""
        batch = min(self.batch_size, num_train)
        if not resolve_steps(num_train, batch, epochs=self.epochs):
            raise UserError(
                f"--linear_epochs={self.epochs:g}: expected at least one step of {batch} images. "
                "Fix: raise it"
            )

    def predict(self, inputs: ProtocolInputs) -> list[Prediction]:
        """Trains the classifier and scores the test images."""
        train = inputs.train
        multi_label = train.labels.ndim == 2
        batch = min(self.batch_size, train.num_examples)
        steps = resolve_steps(train.num_examples, batch, epochs=self.epochs)
        dims, rate = train.features.shape[1], self.learning_rate * batch / 256
        head = LinearHead(dims, inputs.num_classes, "momentum", rate, steps, multi_label)
        if self.cached:
            batches = shuffled_batches(train.features, train.labels, batch, steps, inputs.seed)
            for features, labels in batches:
                head.train_step_fn(tf.constant(features), tf.constant(labels))
        else:
            self._train_on_views(head, inputs, batch, steps)
        classifier = AffineClassifier(head.kernel.numpy(), head.bias.numpy())
        scores = inputs.test.features @ classifier.kernel + classifier.bias
        return [Prediction(scores, self._setting(), classifier=None if multi_label else classifier)]

    def _setting(self) -> str:
        """Returns the differences from the paper's protocol."""
        parts = ["cached features"] if self.cached else []
        names = {"epochs": "epochs", "batch_size": "B", "learning_rate": "learning rate"}
        for name, label in names.items():
            if (value := getattr(self, name)) != getattr(Linear, name):
                parts.append(f"{label} {value:g}")
        return ", ".join(parts)

    def _train_on_views(
        self, head: "LinearHead", inputs: ProtocolInputs, batch: int, steps: int
    ) -> None:
        """Trains on crops and flips, with a checkpoint in `work_dir` after every epoch."""
        assert inputs.encoder is not None and inputs.source is not None
        encoder, source = inputs.encoder, inputs.source
        augment = SimCLRAugment(
            inputs.image_size, color_jitter_strength=0, use_blur=False, grayscale=False
        )

        @tf.function(autograph=False)
        def train_step(records, step):
            seed = view_seed(inputs.seed, step, 0)
            views = augment(records["image"], seed, 0, records.get("aspect"))
            features = tf.cast(encoder(views, training=False), tf.float32)
            return head.train_step(features, records["label"])

        checkpoint_path, start = None, 0
        if inputs.work_dir is not None:
            key = content_hash(self, inputs.num_classes, inputs.seed, batch, steps)[:16]
            checkpoint_path = inputs.work_dir / f"linear-{key}.npz"
            start = head.restore(checkpoint_path)
        per_epoch = inputs.train.num_examples / batch
        progress = Progress("linear evaluation", steps * batch)
        with decode_errors_name_image(source), progress:
            batches = train_batches(
                source,
                batch_size=batch,
                seed=inputs.seed,
                start_step=start,
                num_steps=steps - start,
            )
            for step, records in enumerate(batches, start):
                loss = train_step(records, tf.constant(step))
                done = step + 1
                if checkpoint_path and int(done / per_epoch) > int(step / per_epoch):
                    head.save(checkpoint_path)
                epoch = f"epoch {done / per_epoch:.1f} of {self.epochs:g}"
                progress.update(done * batch, f"{epoch}, loss {float(loss):.3f}")
        if checkpoint_path:
            checkpoint_path.unlink(missing_ok=True)


class LinearHead:
    """A linear classifier that is trained in batches from zero weights: the problem is convex.

    The optimizer is "momentum" (Nesterov 0.9) or "adam" with a cosine schedule to 0. Labels are
    int [N]; or, with `multi_label`, [N, C] of 1, 0 and -1 (treated as 0), and the loss is the
    sigmoid cross-entropy. The penalty is l2/2·‖W‖².
    """

    def __init__(
        self,
        dims: int,
        num_classes: int,
        optimizer: str,
        learning_rate: float,
        steps: int,
        multi_label: bool,
        l2: float = 0.0,
    ):
        self.kernel = tf.Variable(tf.zeros([dims, num_classes]), name="kernel")
        self.bias = tf.Variable(tf.zeros([num_classes]), name="bias")
        self._multi_label, self._l2 = multi_label, l2
        self._optimizer = optimizers.get(optimizer, WarmupCosine(learning_rate, 0, steps))
        self._optimizer.build([self.kernel, self.bias])
        self.train_step_fn = tf.function(self.train_step, autograph=False, reduce_retracing=True)

    def train_step(self, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Updates the weights with features float32 [B, D]; returns the loss before the update."""
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
        """Saves the weights and the optimizer's state."""
        arrays = {f"arr_{i}": variable.numpy() for i, variable in enumerate(self._state())}
        save_npz(path, **arrays)

    def restore(self, path: Path) -> int:
        """Restores a file of `save` if it exists; returns the number of finished steps."""
        if not path.exists():
            return 0
        with np.load(path, allow_pickle=False) as file:
            for variable, name in zip(self._state(), file.files, strict=True):
                variable.assign(file[name])
        return int(self._optimizer.iterations.numpy())

    def _state(self) -> list[tf.Variable]:
        return [self.kernel, self.bias, *self._optimizer.variables]


def shuffled_batches(
    features: np.ndarray, labels: np.ndarray, batch_size: int, steps: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches of rows in an order that depends on (seed, epoch); they may span epochs."""
    order, epoch = np.empty(0, np.int64), 0
    for _ in range(steps):
        while len(order) < batch_size:
            random = np.random.Generator(np.random.Philox([seed, epoch]))
            order, epoch = np.concatenate([order, random.permutation(len(features))]), epoch + 1
        rows, order = order[:batch_size], order[batch_size:]
        yield features[rows], labels[rows]
