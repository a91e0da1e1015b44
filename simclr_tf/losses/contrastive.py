"""Shared parts of the contrastive losses: gathering, per-anchor losses, reduction.

Indices: V views per image, R replicas, B images on each, N = R·B images in all, D the width of the
projections, A = V·B anchors (the views of this replica's images), K = V·N candidates (the views of
all images). The positives of an anchor are the V - 1 other views of its image.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

# (loss, accuracy, entropy), scalars.
LossOutputs = tuple[tf.Tensor, tf.Tensor, tf.Tensor]

# (similarities [A, K], positive logits [A, V - 1], is_positive [A, K], is_negative [A, K], both
# bool) → losses [A].
AnchorLossFn = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


class ContrastiveBatch(NamedTuple):
    """Anchors of one replica and candidates of all replicas, in at least float32."""

    anchors: tf.Tensor  # [A, D], divided by the temperature
    candidates: tf.Tensor  # [K, D]
    self_index: tf.Tensor  # int32 [A], the candidate that is the anchor itself
    positive_index: tf.Tensor  # int32 [A, V - 1], the candidates that are its positives


def contrastive_loss(views: tf.Tensor, temperature: float, loss_fn: AnchorLossFn) -> LossOutputs:
    """Computes the mean over all V·N anchors of a per-anchor loss, with dense [A, K] logits."""
    batch = gather_views(views, temperature)
    per_anchor, _ = anchor_losses(*batch, loss_fn)
    return reduce_mean_across_replicas(tf.reduce_sum(tf.stack(per_anchor), axis=1), batch)


def stack_views(
    z_a: tf.Tensor, z_b: tf.Tensor, more_views: Sequence[tf.Tensor] = (), normalize: bool = False
) -> tf.Tensor:
    """Stacks the projections [B, D] of each view to [V, B, D], in at least float32."""
    views = [tf.convert_to_tensor(z) for z in (z_a, z_b, *more_views)]
    for view in views[1:]:
        views[0].shape.assert_is_compatible_with(view.shape)
    dtype = tf.float64 if views[0].dtype == tf.float64 else tf.float32
    views = [tf.cast(view, dtype) for view in views]
    return tf.stack([l2_normalize(view) for view in views] if normalize else views)


def gather_views(views: tf.Tensor, temperature: float) -> ContrastiveBatch:
    """Gathers views [V, B, D] of all replicas and computes the index of each anchor among them."""
    if not tf.is_tensor(temperature) and not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    gathered, position = all_gather(views)  # [V, N, D]
    num_views, _, width = views.shape
    local_batch, global_batch = tf.shape(views)[1], tf.shape(gathered)[1]
    # Columns: view 0 of the images of replicas 0, 1, …, then view 1 of them, …
    # Row v·B + i, view v of image i: itself at v·N + position + i, view u of it at u·N + position
    # + i.
    index = position + tf.range(local_batch)
    columns = [view * global_batch + index for view in range(num_views)]
    others = [columns[view + 1 :] + columns[:view] for view in range(num_views)]
    return ContrastiveBatch(
        anchors=tf.reshape(views, [-1, width]) / temperature,
        candidates=tf.reshape(gathered, [-1, width]),
        self_index=tf.concat(columns, axis=0),
        positive_index=tf.concat([tf.stack(indices, axis=1) for indices in others], axis=0),
    )


def anchor_losses(
    anchors: tf.Tensor,
    candidates: tf.Tensor,
    self_index: tf.Tensor,
    positive_index: tf.Tensor,
    loss_fn: AnchorLossFn | None = None,
) -> tuple[tuple[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Computes `loss_fn`, or NT-Xent, of each anchor against all candidates but itself.

    Returns ((losses, accuracies, entropies), d): [A] each, of which only the losses have a
    gradient, and the gradient d [A, K] of the summed NT-Xent with respect to the similarities: the
    softmax of which the entropies are, 0 at the anchor itself, minus 1 / (V - 1) at its positives.
    """
    dtype = anchors.dtype
    similarities = tf.matmul(anchors, candidates, transpose_b=True)  # [A, K]
    num_candidates, num_positives = tf.shape(candidates)[0], positive_index.shape[1]
    columns = tf.range(num_candidates)[tf.newaxis, :]
    is_self = columns == self_index[:, tf.newaxis]
    num_images = num_candidates // (num_positives + 1)
    is_negative = columns % num_images != self_index[:, tf.newaxis] % num_images
    is_positive = ~(is_self | is_negative)
    minus_infinity = tf.constant(-float("inf"), dtype)
    logits = tf.where(is_self, minus_infinity, similarities)
    positive_logits = tf.gather(logits, positive_index, batch_dims=1)  # [A, V - 1]
    log_sum = tf.reduce_logsumexp(logits, axis=1)  # [A]
    if loss_fn is None:
        losses = log_sum - tf.reduce_mean(positive_logits, axis=1)
    else:
        losses = loss_fn(similarities, positive_logits, is_positive, is_negative)

    logits, log_sum = tf.stop_gradient(logits), tf.stop_gradient(log_sum)
    # A tie counts as an error, because a collapsed encoder would otherwise score 100 %.
    largest_negative = tf.reduce_max(tf.where(is_negative, logits, minus_infinity), axis=1)
    is_correct = positive_logits > largest_negative[:, tf.newaxis]
    accuracies = tf.reduce_mean(tf.cast(is_correct, dtype), axis=1)
    log_p = logits - log_sum[:, tf.newaxis]
    p = tf.exp(log_p)
    entropies = -tf.reduce_sum(tf.math.multiply_no_nan(log_p, p), axis=1)
    return (losses, accuracies, entropies), p - tf.cast(is_positive, dtype) / num_positives


def blockwise_nt_xent(
    anchors: tf.Tensor,
    candidates: tf.Tensor,
    self_index: tf.Tensor,
    positive_index: tf.Tensor,
    block_size: int,
) -> tf.Tensor:
    """Computes the sums [3] of NT-Xent's `anchor_losses` with [block_size, K] logits at a time.

    The gradient d of the summed losses, times the candidates and times the anchors, is computed
    while d exists; a backward pass over the blocks would compute it again.
    """
    rows, width = tf.shape(anchors)[0], anchors.shape[-1]
    num_blocks = -(-rows // block_size)
    num_missing = num_blocks * block_size - rows

    def split_into_blocks(values, fill=0):
        padding = [[0, num_missing]] + [[0, 0]] * (values.shape.rank - 1)
        padded = tf.pad(values, padding, constant_values=fill)
        return tf.reshape(padded, [num_blocks, block_size, *values.shape[1:]])

    self_index = split_into_blocks(self_index, -1)
    positive_index = split_into_blocks(positive_index)
    valid_mask = split_into_blocks(tf.ones([rows], anchors.dtype))

    @tf.custom_gradient
    def summed(anchors, candidates):
        blocks = split_into_blocks(anchors)

        def add_block(i, sums, d_anchors, d_candidates):
            per_anchor, d = anchor_losses(blocks[i], candidates, self_index[i], positive_index[i])
            sums += tf.linalg.matvec(tf.stack(per_anchor), valid_mask[i])
            # Padding adds nothing: its anchors are zeros, and its own rows are cut off below.
            d_candidates += tf.matmul(d, blocks[i], transpose_a=True)
            return i + 1, sums, d_anchors.write(i, tf.matmul(d, candidates)), d_candidates

        start = [
            tf.constant(0),
            tf.zeros([3], anchors.dtype),
            tf.TensorArray(anchors.dtype, num_blocks, element_shape=[block_size, width]),
            tf.zeros_like(candidates),
        ]
        _, sums, d_anchors, d_candidates = tf.while_loop(
            lambda i, *_: i < num_blocks, add_block, start, parallel_iterations=1
        )
        d_anchors = tf.reshape(d_anchors.stack(), [-1, width])[:rows]

        def gradient(upstream):
            # Only the sum of the losses has a gradient; accuracy and entropy have none.
            return upstream[0] * d_anchors, upstream[0] * d_candidates

        return sums, gradient

    return summed(anchors, candidates)


def reduce_mean_across_replicas(sums: tf.Tensor, batch: ContrastiveBatch) -> LossOutputs:
    """Converts sums [3] over this replica's anchors into means over all V·N anchors.

    The values are equal on every replica; the gradient is this replica's part, so that the sum over
    replicas is the gradient of the global mean.
    """
    local_means = sums / tf.cast(tf.shape(batch.candidates)[0], sums.dtype)
    value, accuracy, entropy = tf.unstack(all_reduce_sum(tf.stop_gradient(local_means)))
    return local_means[0] + tf.stop_gradient(value - local_means[0]), accuracy, entropy


def all_gather(views: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | int]:
    """Gathers views [V, B, D] to ([V, N, D], global index of this replica's first image).

    The result has a gradient and the order of the replicas. Exchanged: an all-reduce of V·N·D
    numbers (4·V·N·D bytes in float32), and one of equal size in the backward pass.
    """
    context = tf.distribute.get_replica_context()
    num_replicas = context.num_replicas_in_sync if context else 1
    if num_replicas == 1:
        return views, 0
    replica = context.replica_id_in_sync_group
    # A sum is the one collective that every strategy, XLA and TPUs support, with gradient.
    one_hot_replica = tf.one_hot(replica, num_replicas, dtype=views.dtype)
    slots = one_hot_replica[:, tf.newaxis, tf.newaxis] * views[:, tf.newaxis]  # [V, R, B, D]
    gathered = context.all_reduce(tf.distribute.ReduceOp.SUM, slots)
    num_views, batch, width = views.shape
    return tf.reshape(gathered, [num_views, num_replicas * batch, width]), replica * batch


def all_reduce_sum(value: tf.Tensor) -> tf.Tensor:
    """Sums a small tensor over the replicas; the result is equal on each."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def l2_normalize(z: tf.Tensor) -> tf.Tensor:
    """Scales each row of z [N, D] to length 1; a zero row stays zero, with a finite gradient.

    Example:
    >>> import tensorflow as tf
    >>> from simclr_tf.losses import l2_normalize
    >>> l2_normalize(tf.constant([[3.0, 4.0]])).numpy()
    array([[0.6, 0.8]], dtype=float32)
    """
    return z * tf.math.rsqrt(tf.maximum(tf.reduce_sum(z * z, axis=-1, keepdims=True), 1e-24))
