"""SupCon, the supervised contrastive loss L_out (Khosla et al., 2020; arXiv 2004.11362, eq. 2)."""

from collections.abc import Sequence

import tensorflow as tf

from simclr_tf.losses.contrastive import LossOutputs, all_gather, contrastive_loss, stack_views


def supcon(
    z_a: tf.Tensor,
    z_b: tf.Tensor,
    labels: tf.Tensor,
    temperature: float = 0.1,
    normalize: bool = True,
    more_views: Sequence[tf.Tensor] = (),
) -> LossOutputs:
    """Computes NT-Xent with all views of the same class as positives.

    `loss_i = mean_{p∈P(i)}(-z_i·z_p/τ) + log Σ_{k≠i} exp(z_i·z_k/τ)`. P(i) is the other views of
    the image of anchor i and, where i has a label, all views of every other image of that label in
    the global batch. The loss is the mean over all anchors. Without any label it is NT-Xent.

    Args:
        z_a, z_b, temperature, normalize, more_views: as in `nt_xent`.
        labels: int [B], below 2²⁴; -1: no label.

    Returns:
        (loss, accuracy, entropy) as `nt_xent`; the last two do not depend on the labels: the
        accuracy counts the other views of the same image only.

    Raises:
        ValueError: as in `nt_xent`, or `labels` is not of shape [B].

    Example:
    >>> import tensorflow as tf
    >>> import simclr_tf as st
    >>> z = tf.reshape(tf.sin(1.3 * tf.range(32.0) + 0.5), (8, 4))
    >>> loss, accuracy, entropy = st.losses.supcon(z[:4], z[4:], labels=[0, 1, 0, -1])
    """
    labels = tf.convert_to_tensor(labels)
    views = stack_views(z_a, z_b, more_views, normalize)
    labels.shape.assert_is_compatible_with(views.shape[1:2])
    # As floats, which every collective supports.
    local_labels = tf.cast(labels, tf.float32)[tf.newaxis, :, tf.newaxis]
    all_labels, _ = all_gather(local_labels)
    rows, columns = (
        tf.tile(tf.reshape(x, [-1]), [views.shape[0]]) for x in (local_labels, all_labels)
    )
    same_class = (rows[:, tf.newaxis] == columns) & (rows[:, tf.newaxis] >= 0)  # [V·B, V·N]

    def loss_fn(similarities, _, is_positive, is_negative):
        minus_infinity = tf.constant(-float("inf"), similarities.dtype)
        not_self = tf.where(is_positive | is_negative, similarities, minus_infinity)
        is_positive |= same_class & is_negative
        positive_logits = tf.where(is_positive, similarities, tf.zeros_like(similarities))
        count = tf.reduce_sum(tf.cast(is_positive, similarities.dtype), axis=1)
        mean_positive_logit = tf.reduce_sum(positive_logits, axis=1) / count
        return tf.reduce_logsumexp(not_self, axis=1) - mean_positive_logit

    return contrastive_loss(views, temperature, loss_fn)
