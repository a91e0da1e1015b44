"""DCL, the decoupled contrastive loss (Yeh et al., 2021; arXiv 2110.06848)."""

from collections.abc import Sequence

import tensorflow as tf

from simclr_tf.losses.contrastive import LossOutputs, contrastive_loss, stack_views


def dcl(
    z_a: tf.Tensor,
    z_b: tf.Tensor,
    temperature: float = 0.1,
    normalize: bool = True,
    more_views: Sequence[tf.Tensor] = (),
) -> LossOutputs:
    """Computes NT-Xent without the positive in the denominator.

    `loss = mean_i(-z_i·z_p(i)/τ + log Σ_{k≠i,p(i)} exp(z_i·z_k/τ))` over all 2N anchors: a positive
    that is already recognized no longer weakens the gradient, an effect that is largest in small
    batches. The loss has no lower bound of 0. With more than two views per image the first term is
    the mean over the positives, and none of them is in the denominator.

    Args:
        z_a, z_b, more_views: as in `nt_xent`, with at least two images in the global batch.
        temperature, normalize: as in `nt_xent`.

    Returns:
        (loss, accuracy, entropy) as `nt_xent`; the last two do not depend on the loss.

    Raises:
        ValueError: as in `nt_xent`, or the global batch is known to be one image.

    Example:
    >>> import tensorflow as tf
    >>> import simclr_tf as st
    >>> z = tf.reshape(tf.sin(1.3 * tf.range(32.0) + 0.5), (8, 4))
    >>> loss, accuracy, entropy = st.losses.dcl(z[:4], z[4:], temperature=0.5)
    """
    views = stack_views(z_a, z_b, more_views, normalize)
    return contrastive_loss(views, temperature, _decoupled)


def _decoupled(similarities, positive_logits, _, is_negative):
    if similarities.shape[1] == positive_logits.shape[1] + 1:
        raise ValueError("dcl needs a batch of at least 2 images: a single one has no negatives")
    minus_infinity = tf.constant(-float("inf"), similarities.dtype)
    negatives = tf.where(is_negative, similarities, minus_infinity)
    return tf.reduce_logsumexp(negatives, axis=1) - tf.reduce_mean(positive_logits, axis=1)
