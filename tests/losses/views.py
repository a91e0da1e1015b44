"""Views to take losses of, their gradients, and losses on replicas."""

import numpy as np
import tensorflow as tf

from simclr_tf.losses import nt_xent


def projections(n, d, seed=0, dtype=np.float64, spread=1.0):
    """Two views whose rows agree in part, so that accuracy lies strictly between 0 and 1."""
    random = np.random.default_rng(seed)
    common = random.normal(size=(n, d))
    a, b = (common + spread * random.normal(size=(n, d)) for _ in range(2))
    return a.astype(dtype), b.astype(dtype)


def results_and_gradients(z_a, z_b, scale=1.0, loss=nt_xent, **arguments):
    """Returns a loss function's results and the gradients of `scale` times the loss."""
    z_a, z_b = tf.convert_to_tensor(z_a), tf.convert_to_tensor(z_b)
    with tf.GradientTape() as tape:
        tape.watch([z_a, z_b])
        results = loss(z_a, z_b, **arguments)
        value = scale * results[0]
    return results, tape.gradient(value, [z_a, z_b])


def gradients(*views, **arguments):
    return [gradient.numpy() for gradient in results_and_gradients(*views, **arguments)[1]]


def on_replicas(strategy, step, *tensors):
    """Each replica's results of `step`, given its share of the rows of `tensors`."""
    replicas = strategy.num_replicas_in_sync

    def share(tensor):
        rows = len(tensor) // replicas
        return strategy.experimental_distribute_values_from_function(
            lambda replica: tensor[replica.replica_id_in_sync_group * rows :][:rows]
        )

    results = tf.function(strategy.run)(step, [share(tf.constant(t)) for t in tensors])
    return tf.nest.map_structure(strategy.experimental_local_results, results)
