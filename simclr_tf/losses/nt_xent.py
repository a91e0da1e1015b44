"""NT-Xent, the normalised temperature-scaled cross entropy loss [v1 eq. 1].

Indices: N the global batch, B = N / R the batch of one of R replicas, D the projection's width,
r the replica.
"""

import tensorflow as tf

from simclr_tf.losses import replicas
from simclr_tf.losses.contrast import contrast, contrast_in_blocks

# Of float32 that are held at once: 64 MiB, a quarter of it in blocks.
_MOST_LOGITS = 2**24


def nt_xent(
    z_a: tf.Tensor,
    z_b: tf.Tensor,
    temperature: float = 0.1,
    normalize: bool = True,
    block_size: int | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes the loss of one batch of pairs, and how well the pairs are told apart.

    For each of the 2N anchors the positive is the other view of the same image and the 2N - 2
    others are negatives: `loss = mean_i(-z_i·z_p(i)/τ + log Σ_{k≠i} exp(z_i·z_k/τ))` [v1 eq. 1].

    In a replica context the negatives are those of the global batch. The value returned is the mean
    over the global 2N anchors, the same on every replica. The gradient on a replica is that
    replica's share: what the *sum* over replicas completes to the gradient of the global mean.

    The dense form holds all [2B, 2N] logits and what their gradient needs. In blocks only
    [block_size, 2N] exist at a time, and the gradient is computed on the way: the same value and
    gradient, in as many multiplications.

    Args:
        z_a, z_b: [B, D] projections of the two views, row i of both from the same image. Floating;
            computed in float32, or in float64 where the input is.
        temperature: τ > 0.
        normalize: whether the projections are L2-normalised first.
        block_size: anchors per block, which need not divide 2B; 0 for the dense form; None takes
            blocks where the dense logits would exceed 64 MiB.

    Returns:
        (loss, accuracy, entropy), scalars in the computing precision: the loss; the share of
        anchors whose positive alone has the largest of all 2N - 1 logits; the mean over anchors
        of the entropy, in nats, of the softmax over those logits.

    Raises:
        ValueError: if `temperature` is not above 0, `block_size` is negative or the shapes differ.
    """
    if block_size is not None and block_size < 0:
        raise ValueError(f"block_size must be None, 0 or positive, not {block_size}")
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
    anchors = tf.reshape(views, [-1, width]) / temperature
    others = tf.reshape(gathered, [-1, width])
    local_batch, global_batch = tf.shape(views)[1], tf.shape(gathered)[1]
    #                columns:  views a of replicas 0, 1, …   views b of replicas 0, 1, …
    #   row i      (view a):   itself at position + i         positive at N + position + i
    #   row B + i  (view b):   positive at position + i       itself at N + position + i
    same = position + tf.range(local_batch)
    itself = tf.concat([same, global_batch + same], axis=0)  # [2B]
    positive = tf.concat([global_batch + same, same], axis=0)  # [2B]

    if block_size is None:
        block_size = choose_block_size(anchors.shape[0], others.shape[0])
    if block_size:
        sums = contrast_in_blocks(anchors, others, itself, positive, block_size)
    else:
        sums = tf.reduce_sum(tf.stack(contrast(anchors, others, itself, positive)[0]), axis=1)

    # A share of the global means: the shares of all replicas add up to them.
    shares = sums / tf.cast(2 * global_batch, dtype)
    value, accuracy, entropy = tf.unstack(replicas.all_reduce(tf.stop_gradient(shares)))
    return shares[0] + tf.stop_gradient(value - shares[0]), accuracy, entropy


def choose_block_size(rows: int | None, columns: int | None) -> int:
    """0 where the dense logits take up to 64 MiB in float32 (or sizes are unknown), else blocks."""
    if rows is None or columns is None or rows * columns <= _MOST_LOGITS:
        return 0
    return max(1, _MOST_LOGITS // 4 // columns)


def l2_normalize(z: tf.Tensor) -> tf.Tensor:
    """Scales each row of z [N, D] to length 1; a zero row stays zero, with a finite gradient."""
    return z * tf.math.rsqrt(tf.maximum(tf.reduce_sum(z * z, axis=-1, keepdims=True), 1e-24))
