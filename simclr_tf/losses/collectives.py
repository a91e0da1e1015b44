"""What the replicas of a strategy tell one another about their projections.

Indices: R replicas, B images on each, N = R·B in all, V views of each, D the projection's width.
"""

import tensorflow as tf


def gather(views: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | int]:
    """Collects the views of all replicas, with gradient.

    Each replica puts its [V, B, D] into its place among zeros [V, R, B, D] and these are summed
    over the replicas. A sum is the one collective that every strategy, XLA and TPU have, gradient
    included.

    Exchanged: an all-reduce of V·N·D numbers (4·V·N·D bytes in float32), and one of as many on the
    way back, where the gradients that all replicas have for these views are summed. A ring sends
    and receives 2·(R - 1)/R times that at every replica.

    Args:
        views: floating [V, B, D], this replica's V views of each image.

    Returns:
        ([V, N, D], position): all views in the order of the replicas, and the global position of
        this replica's first pair.
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync if context else 1
    if replicas == 1:
        return views, 0
    replica = context.replica_id_in_sync_group
    mine = tf.one_hot(replica, replicas, dtype=views.dtype)[:, tf.newaxis, tf.newaxis]  # [R, 1, 1]
    everyone = context.all_reduce(tf.distribute.ReduceOp.SUM, mine * views[:, tf.newaxis])
    count, batch, width = views.shape
    return tf.reshape(everyone, [count, replicas * batch, width]), replica * batch


def all_reduce(value: tf.Tensor) -> tf.Tensor:
    """Sums a value of a few numbers over the replicas, the same on each afterwards."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
