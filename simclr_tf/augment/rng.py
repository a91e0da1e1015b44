"""Random numbers that depend only on (seed, stream, global example position)."""

import tensorflow as tf

from simclr_tf.option_groups import MAX_VIEWS

_WORDS_PER_COUNTER = 4  # one increment of Philox's counter yields four 32-bit words


def stateless_uniform(
    seed: tf.Tensor, stream: int, offset: int | tf.Tensor, n: int | tf.Tensor, k: int
) -> tf.Tensor:
    """Draws `k` uniform numbers in [0, 1) for each of `n` examples: float32 [n, k].

    Row i is a function of (seed, stream, offset + i) alone: a replica that holds a slice of the
    global batch draws what one device would draw for it. Philox is counter-based, so the position
    goes into the low word of its counter and the stream into the next one. The words are drawn
    as uint32 because those, unlike float32 draws, are the same numbers with and without XLA.
    """
    words = -(-k // _WORDS_PER_COUNTER)
    # Widened without the sign, which XLA and the other kernels would extend differently.
    seed = tf.cast(tf.bitcast(tf.convert_to_tensor(seed, tf.int32), tf.uint32), tf.int64)
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    position = tf.cast(offset, tf.uint64) * words + (stream << 32)
    bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[n, words * _WORDS_PER_COUNTER],
        key=key,
        counter=counter + tf.stack([position, tf.zeros((), tf.uint64)]),
        alg=1,  # Philox
        dtype=tf.uint32,
    )
    mantissa = tf.cast(tf.bitwise.right_shift(bits[:, :k], tf.constant(8, tf.uint32)), tf.int32)
    return tf.cast(mantissa, tf.float32) * 2.0**-24


def rescale(draw: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Maps draws in [0, 1) to [low, high)."""
    return low + draw * (high - low)


def view_seed(run_seed: int, step: int | tf.Tensor, view: int) -> tf.Tensor:
    """Returns the seed, int32 [2], of one view (0 to 31) of the batch of one training step.

    It does not depend on the number of views. The seeds of 2²⁶ steps differ.

    Example:
        >>> import simclr_tf as st
        >>> st.augment.view_seed(7, step=100, view=1).numpy().tolist()
        [7, 201]
    """
    if not 0 <= view < MAX_VIEWS:
        raise ValueError(f"view must be 0 to {MAX_VIEWS - 1}, got {view}")
    step = tf.cast(step, tf.int32)
    pair = 2**27 * (view // 2)
    return tf.stack([tf.cast(run_seed, tf.int32), pair + 2 * step + view % 2])


def shared_view_seed(seed: tf.Tensor) -> tf.Tensor:
    """Returns the seed of draws that views 2k and 2k + 1 share, for the seed of one of them."""
    return tf.stack([seed[0], -1 - seed[1] // 2])  # negative: no view has this seed


def view_of_seed(seed: tf.Tensor) -> tf.Tensor:
    """Returns the parity, 0 or 1, of the view that a seed of `view_seed` belongs to."""
    return seed[1] % 2
