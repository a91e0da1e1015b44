"""What ends a run early: a signal, at the same step for all workers, or a worker that is gone."""

import contextlib
import signal
from collections.abc import Callable, Iterator

import tensorflow as tf

from simclr_tf.errors import UserError
from simclr_tf.training.distribution import DistributionContext

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT instead of dying of them; a second one of a kind kills."""
    received: list[int] = []

    def note(number, frame):
        received.append(number)
        signal.signal(number, before[number])

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def synchronized_stop_signal(
    received: list[int], distribution: DistributionContext
) -> Callable[[], int | None]:
    """Returns a function to call after every step: the signal to stop for at once, or None.

    Several workers sum up who has received what, 8 bytes a step, and look at the sum of the step
    before: it is there without waiting for the device, and the same for all of them.

    Args:
        received: the signals that this process has received so far; it grows.
        replicas: who must agree.
    """
    if distribution.num_workers == 1:
        return lambda: received[0] if received else None

    strategy = distribution.strategy
    last: tf.Tensor | None = None

    @tf.function
    def total(counts):
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: counts), axis=None)

    def ask() -> int | None:
        nonlocal last
        before = [0.0, 0.0] if last is None else last.numpy()
        last = total(tf.constant([float(number in received) for number in _SIGNALS]))
        return next((n for n, count in zip(_SIGNALS, before, strict=True) if count), None)

    return ask


_ABORTED = "Collective ops is aborted by"


def is_peer_failure(error: tf.errors.OpError) -> bool:
    """Whether a replica's error is only the echo of what happened to another replica."""
    return _ABORTED in str(error.message)


@contextlib.contextmanager
def peer_failure_as_user_error(distribution: DistributionContext) -> Iterator[None]:
    """Turns the error of a worker whose peer is gone into words.

    Raises:
        UserError: in place of that error.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if distribution.num_workers == 1 or not is_peer_failure(error):
            raise
        cause = str(error.message).partition(_ABORTED)[2].partition("The error could be")[0]
        raise UserError(
            f"lost another worker ({' '.join(cause.split()).strip(': ')[:200]}); the run is safe "
            "up to its last checkpoint: start all workers again, with the same flags, to go on "
            "from it"
        ) from error
