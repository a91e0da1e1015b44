"""A linear head that learns in batches: linear evaluation, and logistic regression by Adam."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

from simclr_tf.optimizers import WarmupCosine, build_optimizer
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


def falling(name: str, rate: float, steps: int) -> keras.optimizers.Optimizer:
    """Return the optimizer `momentum` (Nesterov 0.9) or `adam`, its rate half a cosine to 0."""
    return build_optimizer(name, WarmupCosine(rate, 0, steps))


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
