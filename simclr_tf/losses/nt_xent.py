"""NT-Xent, the normalised temperature-scaled cross entropy loss [v1 eq. 1].

Indices: N the global batch, B = N / R the batch of one of R replicas, D the projection's width.
"""

import tensorflow as tf

from simclr_tf.losses.contrastive import contrast, contrast_in_blocks
from simclr_tf.losses.pairs import Results, means, pair_up

# Of float32 that are held at once: 64 MiB, a quarter of it in blocks.
_MOST_LOGITS = 2**24


def nt_xent(
    z_a: tf.Tensor,
    z_b: tf.Tensor,
    temperature: float = 0.1,
    normalize: bool = True,
    block_size: int | None = None,
) -> Results:
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
        (loss, accuracy, entropy), scalars in the computing precision. The accuracy is the share of
        anchors whose positive alone has the largest of all 2N - 1 logits; the entropy that of the
        softmax over those logits, in nats, its mean over the anchors.

    Raises:
        ValueError: if `temperature` is not above 0, `block_size` is negative or the shapes differ.
    """
    if block_size is not None and block_size < 0:
        raise ValueError(f"block_size must be None, 0 or positive, not {block_size}")
    pairs = pair_up(z_a, z_b, temperature, normalize)
    if block_size is None:
        block_size = choose_block_size(pairs.anchors.shape[0], pairs.others.shape[0])
    if block_size:
        return means(contrast_in_blocks(*pairs, block_size), pairs)
    return means(tf.reduce_sum(tf.stack(contrast(*pairs)[0]), axis=1), pairs)


def choose_block_size(rows: int | None, columns: int | None) -> int:
    """0 where the dense logits take up to 64 MiB in float32 (or sizes are unknown), else blocks."""
    if rows is None or columns is None or rows * columns <= _MOST_LOGITS:
        return 0
    return max(1, _MOST_LOGITS // 4 // columns)
