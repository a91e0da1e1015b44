"""DCL, the decoupled contrastive loss (Yeh et al., 2021; arXiv 2110.06848)."""

import tensorflow as tf

from simclr_tf.losses.pairs import Results, dense_loss


def dcl(
    z_a: tf.Tensor, z_b: tf.Tensor, temperature: float = 0.1, normalize: bool = True
) -> Results:
    """Computes NT-Xent without the positive in the denominator.

    `loss = mean_i(-z_i·z_p(i)/τ + log Σ_{k≠i,p(i)} exp(z_i·z_k/τ))` over all 2N anchors: a positive
    that is found already no longer weakens the gradient, which it does most in small batches. Has
    no lower bound of 0.

    Args:
        z_a, z_b, temperature, normalize: as in `nt_xent`; at least two images in the global batch.

    Returns:
        (loss, accuracy, entropy) as `nt_xent`, and as there under replicas; the last two do not
        depend on the loss. All [2B, 2N] logits are held at once.

    Raises:
        ValueError: as `nt_xent`, or the global batch is known to be one image.
    """
    return dense_loss(z_a, z_b, temperature, normalize, _decoupled)


def _decoupled(logits, attraction, positive, negative):
    del positive
    if logits.shape[1] == 2:
        raise ValueError("dcl needs two images at least: one alone has no negatives")
    negatives = tf.where(negative, logits, tf.constant(-float("inf"), logits.dtype))
    return tf.reduce_logsumexp(negatives, axis=1) - attraction
