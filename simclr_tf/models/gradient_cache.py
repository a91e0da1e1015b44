"""The gradient of one large batch from pieces of it, one after another [arXiv 2101.06983].

A loss that contrasts the whole batch ties all activations of the encoder together, but sees no more
of them than the outputs, which are small. So the outputs are computed first and nothing else is
kept; the loss gives its gradient with respect to them; and each piece is encoded once more to carry
its part of that gradient on to the weights.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def cached_gradients(
    pieces: int,
    encode: Callable[[tf.Tensor], Any],
    loss_of: Callable[[Any], tuple[tf.Tensor, Any]],
    variables: Sequence[tf.Variable],
    moving: Sequence[tf.Variable] = (),
) -> tuple[list[tf.Tensor | None], Any]:
    """Differentiates a loss of all pieces' outputs while one piece at a time is in memory.

    Under replicas, call it in the replica context, with as many pieces on each.

    Args:
        pieces: K, at least 1.
        encode: makes and encodes a piece: int32 k in [0, K) → a nest of floating tensors, of the
            same static shapes for every piece. Run twice for each piece, to the same result.
        loss_of: all pieces' outputs, the same nest with every tensor [K, …] → (loss, extra).
        variables: what to differentiate by; `encode` and `loss_of` may both depend on them.
        moving: floating variables that `encode` updates, as batch norm does its moving statistics.
            Every run of it starts from their values of before; afterwards they hold the mean over
            the pieces of what each would have made of them.

    Returns:
        (gradients, extra): a gradient is None where the loss does not depend on the variable.
    """
    before = [tf.identity(variable) for variable in moving]

    def encode_from_before(k):
        for variable, value in zip(moving, before, strict=True):
            variable.assign(value)
        return encode(k)

    outputs = _for_each(pieces, encode_from_before)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss, extra = loss_of(outputs)
    upstream, direct = tape.gradient(loss, (tf.nest.flatten(outputs), list(variables)))
    used = [i for i, gradient in enumerate(upstream) if gradient is not None]
    through: list[bool] = [False] * len(variables)  # whether `encode` depends on the variable

    def add(k, sums):
        gradients, moves = list(sums[0]), sums[1]
        with tf.GradientTape() as tape:
            found = tf.nest.flatten(encode_from_before(k))
        parts = tape.gradient(
            [found[i] for i in used],
            list(variables),
            output_gradients=[upstream[i][k] for i in used],
        )
        for i, part in enumerate(parts):
            if part is not None:
                through[i] = True
                gradients[i] += part
        # Differences: what nothing has moved stays as it was to the last bit.
        moves = [
            move + (variable - value) / pieces
            for move, variable, value in zip(moves, moving, before, strict=True)
        ]
        return gradients, moves

    zeros = [tf.zeros(v.shape, v.dtype) for v in variables], [tf.zeros_like(v) for v in before]
    # Nothing else would keep the second pass from starting while the first still runs.
    with tf.control_dependencies([upstream[i] for i in used]):
        cached, moves = _for_each(pieces, add, zeros)
    for variable, value, move in zip(moving, before, moves, strict=True):
        variable.assign(value + move)
    parts = zip(through, cached, direct, strict=True)
    return [_add(total if reached else None, rest) for reached, total, rest in parts], extra


def _for_each(pieces: int, body: Callable, sums: Any = None) -> Any:
    """Runs `body` for the pieces 0, 1, …, each after the one before has ended.

    Args:
        pieces: K.
        body: without `sums` k → a nest of outputs; with them (k, sums) → sums.
        sums: a nest of tensors.

    Returns:
        The nest of outputs, each stacked to [K, …]; or the last sums.
    """
    no_merges = tf.__internal__.distribute.strategy_supports_no_merge_call()
    if no_merges or not tf.distribute.has_strategy():
        return _loop(pieces, body, sums)

    # These strategies all-reduce by merge_call, as synchronised batch norm does, and refuse to in
    # the body of a replica's own loop. So it is one loop of all replicas, which run in its body.
    def loop_of_all(strategy, bodies, *sums):
        def run(*args):
            return strategy.run(lambda body, *args: body(*args), (bodies, *args))

        return _loop(pieces, run, *sums)

    arguments = (body,) if sums is None else (body, sums)
    mine = tf.distribute.get_replica_context().merge_call(loop_of_all, arguments)
    # Back to this replica's device: what leaves a loop has none, and without one the gradients
    # would be summed one by one instead of in batches.
    return tf.nest.map_structure(tf.identity, mine)


def _loop(pieces, body, sums=None):
    def more(k, _):
        return k < pieces

    # A loop, of one turn at a time: of pieces written one after another into the graph nothing
    # would keep all from being encoded, and held, at once, and the graph would grow with them.
    start = tf.constant(0)
    if sums is not None:
        return tf.while_loop(
            more, lambda k, sums: (k + 1, body(k, sums)), (start, sums), parallel_iterations=1
        )[1]
    # Traced for the outputs' types and shapes, which the arrays have before the loop; never run.
    trace = tf.function(body, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int32))
    arrays = [tf.TensorArray(x.dtype, pieces, element_shape=x.shape) for x in trace.outputs]

    def write(k, arrays):
        values = tf.nest.flatten(body(k), expand_composites=True)
        return k + 1, [array.write(k, x) for array, x in zip(arrays, values, strict=True)]

    _, arrays = tf.while_loop(more, write, (start, arrays), parallel_iterations=1)
    stacked = [array.stack() for array in arrays]
    return tf.nest.pack_sequence_as(trace.structured_outputs, stacked, expand_composites=True)


def _add(a: tf.Tensor | None, b: tf.Tensor | None) -> tf.Tensor | None:
    return b if a is None else a if b is None else a + b
