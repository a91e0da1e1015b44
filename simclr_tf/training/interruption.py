"""Early ends of a run: signals, synchronized over workers, and lost workers."""

import contextlib
import signal
from collections.abc import Callable, Iterator

import tensorflow as tf

from simclr_tf.errors import UserError
from simclr_tf.training.distribution import DistributionContext

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Records SIGTERM and SIGINT in a list; repeating a signal invokes the previous handler."""
    received: list[int] = []

    def handler(number, frame):
        received.append(number)
        signal.signal(number, previous[number])

    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in previous:
        signal.signal(number, handler)
    try:
        yield received
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)


def synchronized_stop_signal(
    received: list[int], distribution: DistributionContext
) -> Callable[[], int | None]:
    """Returns a function to call after every step, which returns the signal to stop for, or None.

    Several workers sum their received signals, 8 bytes per step, and read the sum of the step
    before: it is available without waiting for the device, and equal on all workers, which must
    stop at the same step. `received` grows while this process receives signals.
    """
    if distribution.num_workers == 1:
        return lambda: received[0] if received else None

    strategy = distribution.strategy
    last: tf.Tensor | None = None

    @tf.function
    def sum_over_workers(counts):
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: counts), axis=None)

    def poll() -> int | None:
        nonlocal last
        previous = [0.0, 0.0] if last is None else last.numpy()
        last = sum_over_workers(tf.constant([float(number in received) for number in _SIGNALS]))
        return next((n for n, count in zip(_SIGNALS, previous, strict=True) if count), None)

    return poll


_ABORTED = "Collective ops is aborted by"


def is_peer_failure(error: tf.errors.OpError) -> bool:
    """Returns True if a replica's error only follows from the failure of another replica."""
    return _ABORTED in str(error.message)


@contextlib.contextmanager
def peer_failure_as_user_error(distribution: DistributionContext) -> Iterator[None]:
    """Raises UserError in place of the error of a worker that has lost another one."""
    try:
        yield
    except tf.errors.OpError as error:
        if distribution.num_workers == 1 or not is_peer_failure(error):
            raise
        cause = str(error.message).partition(_ABORTED)[2].partition("The error could be")[0]
        raise UserError(
            f"lost another worker ({' '.join(cause.split()).strip(': ')[:200]}). Fix: start all "
            "workers again with the same flags; the run resumes from its last checkpoint"
        ) from error
