"""An anchor, its positive and one negative at a time, and which negatives count [v1 §5.1]."""

from collections.abc import Callable

import tensorflow as tf

from simclr_tf.losses.contrastive import Rule


def over_triplets(
    term: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    temperature: float,
    within: float | None = None,
) -> Rule:
    """Makes the rule of an anchor's loss: the mean of `term` over its negatives, each as heavy.

    Semi-hard mining (Schroff et al., 2015) leaves of the negatives those that are less similar to
    the anchor than its positive, by less than `within`; which they are has no gradient. An anchor
    without any has the loss 0, and still counts in the mean over the anchors.

    Args:
        term: (logit of the positive [M, 1], logits of the candidates [M, K]) → [M, K].
        temperature: that the logits were divided by.
        within: above 0, of the products u·v before that; None: no mining.
    """

    def rule(logits, attraction, positive, negative):
        del positive
        attraction = attraction[:, tf.newaxis]
        if within is not None:
            lead = temperature * (attraction - logits)
            negative &= (lead > 0) & (lead < within)
        terms = tf.where(negative, term(attraction, logits), tf.zeros_like(logits))
        count = tf.reduce_sum(tf.cast(negative, logits.dtype), axis=1)
        return tf.math.divide_no_nan(tf.reduce_sum(terms, axis=1), count)

    return rule
