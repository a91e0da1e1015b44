"""Gradient caching: the gradient of a large batch, computed from microbatches [arXiv 2101.06983].

A loss that contrasts the whole batch couples all activations of the encoder, but depends only on
its outputs, which are small. So the outputs are computed first, and no activations are stored; then
the gradient of the loss with respect to the outputs; then each microbatch is encoded again to
propagate its part of that gradient to the weights.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def cached_gradients(
    num_microbatches: int,
    encode: Callable[[tf.Tensor], Any],
    loss_fn: Callable[[Any], tuple[tf.Tensor, Any]],
    variables: Sequence[tf.Variable],
    moving_variables: Sequence[tf.Variable] = (),
) -> tuple[list[tf.Tensor | None], Any]:
    """Differentiates a loss of all outputs while the activations of one microbatch are in memory.

    `encode` makes and encodes microbatch k in [0, K): int32 k → a nest of floating tensors of equal
    static shapes, equal in both calls for each k. `loss_fn` maps all outputs, the same nest with
    tensors [K, …], to (loss, extra). Both may use the variables. `encode` may update the floating
    `moving_variables`: every call starts from their values before the step, and afterwards they
    hold the mean over the microbatches. Returns (gradients, extra). Under replicas, call it in the
    replica context, with the same number of microbatches on each.
    """
    before = [tf.identity(variable) for variable in moving_variables]

    def encode_with_reset(k):
        for variable, value in zip(moving_variables, before, strict=True):
            variable.assign(value)
        return encode(k)

    outputs = _for_each(num_microbatches, encode_with_reset)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss, extra = loss_fn(outputs)
    upstream, direct_gradients = tape.gradient(loss, (tf.nest.flatten(outputs), list(variables)))
    active = [i for i, gradient in enumerate(upstream) if gradient is not None]
    depends_on_encode: list[bool] = [False] * len(variables)

    def add_microbatch(k, sums):
        gradient_sums, deltas = list(sums[0]), sums[1]
        with tf.GradientTape() as tape:
            encoded = tf.nest.flatten(encode_with_reset(k))
        gradients = tape.gradient(
            [encoded[i] for i in active],
            list(variables),
            output_gradients=[upstream[i][k] for i in active],
        )
        for i, gradient in enumerate(gradients):
            if gradient is not None:
                depends_on_encode[i] = True
                gradient_sums[i] += gradient
        # Differences: a variable that nothing has updated stays equal to the last bit.
        deltas = [
            delta + (variable - value) / num_microbatches
            for delta, variable, value in zip(deltas, moving_variables, before, strict=True)
        ]
        return gradient_sums, deltas

    zeros = [tf.zeros(v.shape, v.dtype) for v in variables], [tf.zeros_like(v) for v in before]
    # Nothing else would prevent the second pass from starting while the first still runs.
    with tf.control_dependencies([upstream[i] for i in active]):
        cached, deltas = _for_each(num_microbatches, add_microbatch, zeros)
    for variable, value, delta in zip(moving_variables, before, deltas, strict=True):
        variable.assign(value + delta)
    gradients = zip(depends_on_encode, cached, direct_gradients, strict=True)
    return [_add(total if depends else None, rest) for depends, total, rest in gradients], extra


def _for_each(num_microbatches: int, body: Callable, sums: Any = None) -> Any:
    """Runs `body` for k = 0, 1, …, K − 1, each after the previous one has ended.

    Without `sums` it is k → a nest of outputs, which are returned stacked to [K, …]; with a nest of
    `sums` it is (k, sums) → sums, of which the last are returned.
    """
    merge_call_unsupported = tf.__internal__.distribute.strategy_supports_no_merge_call()
    if merge_call_unsupported or not tf.distribute.has_strategy():
        return _loop(num_microbatches, body, sums)

    # These strategies all-reduce by merge_call, as synchronized batch norm does, and refuse it
    # inside a loop of one replica. So one loop runs for all replicas, which run in its body.
    def loop_of_all_replicas(strategy, bodies, *sums):
        def run(*args):
            return strategy.run(lambda body, *args: body(*args), (bodies, *args))

        return _loop(num_microbatches, run, *sums)

    arguments = (body,) if sums is None else (body, sums)
    result = tf.distribute.get_replica_context().merge_call(loop_of_all_replicas, arguments)
    # Back to this replica's device: results of a loop have none, and without one the gradients
    # would be summed one by one instead of in groups.
    return tf.nest.map_structure(tf.identity, result)


def _loop(num_microbatches, body, sums=None):
    def not_done(k, _):
        return k < num_microbatches

    # A loop with one iteration at a time: microbatches unrolled into the graph could all be encoded
    # and held at once, and the graph would grow with their number.
    start = tf.constant(0)
    if sums is not None:
        return tf.while_loop(
            not_done, lambda k, sums: (k + 1, body(k, sums)), (start, sums), parallel_iterations=1
        )[1]
    # Traced for the types and shapes of the outputs, which the arrays need before the loop.
    trace = tf.function(body, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int32))
    arrays = [
        tf.TensorArray(x.dtype, num_microbatches, element_shape=x.shape) for x in trace.outputs
    ]

    def write(k, arrays):
        values = tf.nest.flatten(body(k), expand_composites=True)
        return k + 1, [array.write(k, x) for array, x in zip(arrays, values, strict=True)]

    _, arrays = tf.while_loop(not_done, write, (start, arrays), parallel_iterations=1)
    stacked = [array.stack() for array in arrays]
    return tf.nest.pack_sequence_as(trace.structured_outputs, stacked, expand_composites=True)


def _add(a: tf.Tensor | None, b: tf.Tensor | None) -> tf.Tensor | None:
    return b if a is None else a if b is None else a + b
