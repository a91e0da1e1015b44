"""SupCon, the supervised contrastive loss L_out (Khosla et al., 2020; arXiv 2004.11362, eq. 2)."""

import tensorflow as tf

from simclr_tf.losses import collectives as replicas
from simclr_tf.losses.pairs import Results, dense_loss


def supcon(
    z_a: tf.Tensor,
    z_b: tf.Tensor,
    labels: tf.Tensor,
    temperature: float = 0.1,
    normalize: bool = True,
) -> Results:
    """Computes NT-Xent with all views of the same class as positives.

    `loss_i = mean_{p∈P(i)}(-z_i·z_p/τ) + log Σ_{k≠i} exp(z_i·z_k/τ)`; P(i) is i's other view and,
    where i has a label, both views of every other image of that label in the global batch. The loss
    is the mean over all 2N anchors. Without any label it is NT-Xent.

    Args:
        z_a, z_b, temperature, normalize: as in `nt_xent`.
        labels: int [B], below 2²⁴; -1: an image without one.

    Returns:
        (loss, accuracy, entropy) as `nt_xent`, and as there under replicas; the last two do not
        depend on the loss: to be found, here too, is the image's other view. All [2B, 2N] logits
        are held at once.

    Raises:
        ValueError: as `nt_xent`, or `labels` is not of shape [B].
    """
    labels = tf.convert_to_tensor(labels)
    labels.shape.assert_is_compatible_with(tf.convert_to_tensor(z_a).shape[:1])
    # As floats, which every collective takes.
    mine = tf.cast(labels, tf.float32)[tf.newaxis, :, tf.newaxis]
    everyones, _ = replicas.gather(mine)
    rows, columns = (tf.tile(tf.reshape(part, [-1]), [2]) for part in (mine, everyones))
    same = (rows[:, tf.newaxis] == columns) & (rows[:, tf.newaxis] >= 0)  # [2B, 2N]

    def rule(logits, attraction, positive, negative):
        del attraction
        others = tf.where(positive | negative, logits, tf.constant(-float("inf"), logits.dtype))
        positive |= same & negative
        attractions = tf.reduce_sum(tf.where(positive, logits, tf.zeros_like(logits)), axis=1)
        count = tf.reduce_sum(tf.cast(positive, logits.dtype), axis=1)
        return tf.reduce_logsumexp(others, axis=1) - attractions / count

    return dense_loss(z_a, z_b, temperature, normalize, rule)
