"""The pairs of a batch as anchors among all views, and means over all anchors: what losses share.

Indices: N the global batch, B = N / R the batch of one of R replicas, D the projection's width,
M = 2B the anchors of this replica, K = 2N the views of all.
"""

from typing import NamedTuple

import tensorflow as tf

from simclr_tf.losses import collectives as replicas
from simclr_tf.losses.contrastive import Rule, contrast

# Loss, accuracy and entropy.
Results = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


class Pairs(NamedTuple):
    """A replica's views among everyone's, in at least float32.

    Attributes:
        anchors: [M, D], divided by the temperature.
        others: [K, D].
        itself: int32 [M], which of the others an anchor is.
        positive: int32 [M], which is the other view of its image.
    """

    anchors: tf.Tensor
    others: tf.Tensor
    itself: tf.Tensor
    positive: tf.Tensor


def pair_up(z_a: tf.Tensor, z_b: tf.Tensor, temperature: float, normalize: bool) -> Pairs:
    """Gathers the views of all replicas, and tells each anchor's place among them.

    Arguments are those of `nt_xent`.

    Raises:
        ValueError: if `temperature` is not above 0 or the shapes differ.
    """
    if not tf.is_tensor(temperature) and not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    z_a, z_b = tf.convert_to_tensor(z_a), tf.convert_to_tensor(z_b)
    z_a.shape.assert_is_compatible_with(z_b.shape)
    dtype = tf.float64 if z_a.dtype == tf.float64 else tf.float32
    z_a, z_b = tf.cast(z_a, dtype), tf.cast(z_b, dtype)
    if normalize:
        z_a, z_b = l2_normalize(z_a), l2_normalize(z_b)

    views = tf.stack([z_a, z_b])  # [2, B, D], this replica's
    gathered, position = replicas.gather(views)  # [2, N, D], everyone's
    width = views.shape[-1]
    local_batch, global_batch = tf.shape(views)[1], tf.shape(gathered)[1]
    #                columns:  views a of replicas 0, 1, …   views b of replicas 0, 1, …
    #   row i      (view a):   itself at position + i         positive at N + position + i
    #   row B + i  (view b):   positive at position + i       itself at N + position + i
    same = position + tf.range(local_batch)
    return Pairs(
        anchors=tf.reshape(views, [-1, width]) / temperature,
        others=tf.reshape(gathered, [-1, width]),
        itself=tf.concat([same, global_batch + same], axis=0),
        positive=tf.concat([global_batch + same, same], axis=0),
    )


def means(sums: tf.Tensor, pairs: Pairs) -> Results:
    """Turns sums over this replica's anchors, [3], into what a loss returns: means over all 2N.

    The values are the same on every replica; the gradient is that of this replica's share.
    """
    # The shares of all replicas add up to the means.
    shares = sums / tf.cast(tf.shape(pairs.others)[0], sums.dtype)
    value, accuracy, entropy = tf.unstack(replicas.all_reduce(tf.stop_gradient(shares)))
    return shares[0] + tf.stop_gradient(value - shares[0]), accuracy, entropy


def dense_loss(
    z_a: tf.Tensor, z_b: tf.Tensor, temperature: float, normalize: bool, rule: Rule | None = None
) -> Results:
    """The mean over all anchors of a loss that `contrast` takes of each, all [M, K] logits at once.

    Arguments and errors are those of `pair_up`, results those of `nt_xent`.
    """
    pairs = pair_up(z_a, z_b, temperature, normalize)
    of_anchors, _ = contrast(*pairs, rule)
    return means(tf.reduce_sum(tf.stack(of_anchors), axis=1), pairs)


def l2_normalize(z: tf.Tensor) -> tf.Tensor:
    """Scales each row of z [N, D] to length 1; a zero row stays zero, with a finite gradient."""
    return z * tf.math.rsqrt(tf.maximum(tf.reduce_sum(z * z, axis=-1, keepdims=True), 1e-24))
