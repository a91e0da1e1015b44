"""Anchors against all other views: whole, or in blocks of rows with the gradient on the way.

Indices: M anchors, K others, D the projection's width.
"""

from collections.abc import Callable

import tensorflow as tf

# Another loss of an anchor: (logits [M, K], those of the positives [M], and bool [M, K] each where
# the positives and the negatives are) → losses [M].
Rule = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def contrast(
    anchors: tf.Tensor,
    others: tf.Tensor,
    itself: tf.Tensor,
    positive: tf.Tensor,
    rule: Rule | None = None,
) -> tuple[tuple[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Tells each anchor's positive from all others but itself.

    Args:
        anchors: [M, D], divided by the temperature; others: [K, D].
        itself: int32 [M], which of the others the anchor is; positive: likewise its positive.
        rule: what the losses are; None: NT-Xent's.

    Returns:
        ((losses, found, entropies), p): [M] each, of which the losses alone have a gradient:
        `log Σ_{k≠itself} exp(a·o_k) − a·o_positive` or the rule's; 1 where the positive alone has
        the largest logit, else 0; the entropy of the softmax p in nats. p is [M, K], 0 at itself.
    """
    dtype = anchors.dtype
    every = tf.matmul(anchors, others, transpose_b=True)  # [M, K]
    columns = tf.range(tf.shape(others)[0])[tf.newaxis, :]
    excluded = columns == itself[:, tf.newaxis]
    logits = tf.where(excluded, tf.constant(-float("inf"), dtype), every)
    attraction = tf.gather(logits, positive, batch_dims=1)  # [M]
    log_sum = tf.reduce_logsumexp(logits, axis=1)  # [M]
    if rule is None:
        losses = log_sum - attraction
    else:
        is_positive = columns == positive[:, tf.newaxis]
        losses = rule(every, attraction, is_positive, ~(excluded | is_positive))

    logits, log_sum = tf.stop_gradient(logits), tf.stop_gradient(log_sum)
    # An exact tie is not a find: a collapsed encoder must not read as a perfect one.
    rivals = tf.reduce_sum(tf.cast(logits >= attraction[:, tf.newaxis], dtype), axis=1) - 1.0
    log_p = logits - log_sum[:, tf.newaxis]
    p = tf.exp(log_p)
    entropies = -tf.reduce_sum(tf.math.multiply_no_nan(log_p, p), axis=1)
    return (losses, tf.cast(rivals == 0, dtype), entropies), p


def contrast_in_blocks(
    anchors: tf.Tensor,
    others: tf.Tensor,
    itself: tf.Tensor,
    positive: tf.Tensor,
    block_size: int,
) -> tf.Tensor:
    """The sums of `contrast` over all anchors, [3], with [block_size, K] logits at a time.

    The gradient of the summed losses, p − (1 at the positive), times the others and times the
    anchors, is taken while p is there; a pass backward over the blocks would compute p again.
    """
    rows, width = tf.shape(anchors)[0], anchors.shape[-1]
    blocks = -(-rows // block_size)
    missing = blocks * block_size - rows

    def in_blocks(values, fill=0):
        padding = [[0, missing]] + [[0, 0]] * (values.shape.rank - 1)
        padded = tf.pad(values, padding, constant_values=fill)
        return tf.reshape(padded, [blocks, block_size, *values.shape[1:]])

    itself, positive = in_blocks(itself, -1), in_blocks(positive)
    real = in_blocks(tf.ones([rows], anchors.dtype))

    @tf.custom_gradient
    def summed(anchors, others):
        parts = in_blocks(anchors)

        def block(i, sums, d_anchors, d_others):
            rows_sums, p = contrast(parts[i], others, itself[i], positive[i])
            sums += tf.linalg.matvec(tf.stack(rows_sums), real[i])
            d = p - tf.one_hot(positive[i], tf.shape(others)[0], dtype=p.dtype)
            # Padding adds nothing: its anchors are zeros, and its own rows are cut off below.
            d_others += tf.matmul(d, parts[i], transpose_a=True)
            return i + 1, sums, d_anchors.write(i, tf.matmul(d, others)), d_others

        start = [
            tf.constant(0),
            tf.zeros([3], anchors.dtype),
            tf.TensorArray(anchors.dtype, blocks, element_shape=[block_size, width]),
            tf.zeros_like(others),
        ]
        _, sums, d_anchors, d_others = tf.while_loop(
            lambda i, *_: i < blocks, block, start, parallel_iterations=1
        )
        d_anchors = tf.reshape(d_anchors.stack(), [-1, width])[:rows]

        def gradient(upstream):
            # Of the losses' sum; the other two have none.
            return upstream[0] * d_anchors, upstream[0] * d_others

        return sums, gradient

    return summed(anchors, others)
