"""Losses of (anchor, positive, negative) triplets: NT-Logistic, margin triplet [v1 Table 2]."""

from collections.abc import Callable

import tensorflow as tf

from simclr_tf.losses.contrastive import AnchorLossFn, LossOutputs, contrastive_loss, stack_views


def nt_logistic(
    z_a: tf.Tensor,
    z_b: tf.Tensor,
    temperature: float = 0.1,
    normalize: bool = True,
    margin: float = 0.8,
    semi_hard: bool = False,
) -> LossOutputs:
    """Computes the logistic loss over positive and negative pairs [v1 Table 2].

    For anchor u with positive v⁺ and negatives v⁻, the 2N - 2 other views of the global batch:
    `-log σ(u·v⁺/τ) - mean log σ(-u·v⁻/τ)`, the mean over the negatives; then the mean over all 2N
    anchors. With `semi_hard` the mean is over the negatives with `u·v⁺ - margin < u·v⁻ < u·v⁺`, and
    an anchor without any has the loss 0, including the term of its positive.

    The paper's experiments use negatives of one view only [v1 §B.10]. It does not define the margin
    for a loss without one; here it has the same meaning as in `margin_triplet`.

    Args:
        z_a, z_b, temperature, normalize: as in `nt_xent`.
        margin: above 0; used with `semi_hard` only.
        semi_hard: whether to select semi-hard negatives.

    Returns:
        (loss, accuracy, entropy) as `nt_xent`; the last two do not depend on the loss.

    Raises:
        ValueError: as in `nt_xent`, or `margin` is not above 0 with `semi_hard`.

    Example:
    >>> import tensorflow as tf
    >>> import simclr_tf as st
    >>> z = tf.reshape(tf.sin(1.3 * tf.range(32.0) + 0.5), (8, 4))
    >>> loss, accuracy, entropy = st.losses.nt_logistic(z[:4], z[4:], temperature=0.5)
    """
    if semi_hard and not margin > 0:
        raise ValueError(f"margin must be above 0 with semi_hard, got {margin}")

    def triplet_loss(positive, negative):
        return tf.nn.softplus(-positive) + tf.nn.softplus(negative)

    loss_fn = _triplet_mean(triplet_loss, temperature, margin if semi_hard else None)
    return contrastive_loss(stack_views(z_a, z_b, (), normalize), temperature, loss_fn)


def margin_triplet(
    z_a: tf.Tensor,
    z_b: tf.Tensor,
    temperature: float = 0.1,
    normalize: bool = True,
    margin: float = 0.8,
    semi_hard: bool = False,
) -> LossOutputs:
    """Computes the mean over negatives of `max(u·v⁻ - u·v⁺ + margin, 0)` [v1 Table 2].

    u is the anchor, v⁺ its positive and v⁻ its negatives, the 2N - 2 other views of the global
    batch; terms of 0 count in the mean over the negatives. The loss is the mean over all 2N
    anchors. With `semi_hard` the inner mean is over the negatives with
    `u·v⁺ - margin < u·v⁻ < u·v⁺`, and an anchor without any has the loss 0.

    The paper tried margins of 0, 0.4, 0.8 and 1.6, on negatives of one view only [v1 §B.10].

    Args:
        z_a, z_b, normalize, semi_hard: as in `nt_logistic`.
        temperature: τ > 0 of accuracy and entropy; the loss does not depend on it.
        margin: at least 0, above 0 with `semi_hard`; with normalized projections at most 2 is
            meaningful.

    Returns:
        (loss, accuracy, entropy) as `nt_xent`; the last two do not depend on the loss.

    Raises:
        ValueError: as in `nt_xent`, or `margin` is too low.

    Example:
    >>> import tensorflow as tf
    >>> import simclr_tf as st
    >>> z = tf.eye(4)
    >>> loss, accuracy, entropy = st.losses.margin_triplet(z, z, margin=0.8)
    >>> float(loss)  # every negative is further away than the margin
    0.0
    """
    if margin < 0 or (semi_hard and margin == 0):
        limit = "above 0 with semi_hard" if semi_hard else "at least 0"
        raise ValueError(f"margin must be {limit}, got {margin}")

    def triplet_loss(positive, negative):
        return tf.nn.relu(temperature * (negative - positive) + margin)

    loss_fn = _triplet_mean(triplet_loss, temperature, margin if semi_hard else None)
    return contrastive_loss(stack_views(z_a, z_b, (), normalize), temperature, loss_fn)


def _triplet_mean(
    triplet_loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    temperature: float,
    semi_hard_margin: float | None,
) -> AnchorLossFn:
    """Returns a per-anchor loss: the mean of `triplet_loss` over the anchor's negatives.

    `triplet_loss` is (positive logits [A, 1], logits of the candidates [A, K]) → [A, K]. Semi-hard
    mining (Schroff et al., 2015) selects negatives by a margin of undivided products u·v.
    """

    def loss_fn(similarities, positive_logit, _, is_negative):  # the only positive's, [A, 1]
        if semi_hard_margin is not None:
            similarity_gap = temperature * (positive_logit - similarities)
            is_negative &= (similarity_gap > 0) & (similarity_gap < semi_hard_margin)
        losses = triplet_loss(positive_logit, similarities)
        losses = tf.where(is_negative, losses, tf.zeros_like(similarities))
        count = tf.reduce_sum(tf.cast(is_negative, similarities.dtype), axis=1)
        return tf.math.divide_no_nan(tf.reduce_sum(losses, axis=1), count)

    return loss_fn
