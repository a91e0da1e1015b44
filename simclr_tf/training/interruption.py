"""Early ends of a run: signals, synchronized over workers, missing images, and lost workers."""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator

import tensorflow as tf
from tensorflow.python.eager import cancellation  # there is no public interface

from simclr_tf.errors import UserError
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext
from simclr_tf.utils.paths import shell_join
from simclr_tf.utils.signals import STOP_SIGNALS, catch_signals, signal_name

logger = logging.getLogger(__name__)

_PATIENCE, _POLL_INTERVAL = 5.0, 0.5  # seconds


class InputWait:
    """Marks where a run waits for the next batch, and can end this wait alone."""

    def __init__(self):
        self._cancellation = cancellation.CancellationManager()
        self._lock = threading.Lock()
        self._is_waiting = False
        self.was_ended = False

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """The block waits for a batch."""
        with self._lock:
            self._is_waiting = True
        try:
            with cancellation.CancellationManagerContext(self._cancellation):
                yield
        finally:
            with self._lock:
                self._is_waiting = False

    def cancel(self) -> bool:
        """Ends the wait with an error; False if the run does not wait."""
        with self._lock:
            if self._is_waiting:
                self.was_ended = True
                self._cancellation.start_cancel()
            return self._is_waiting


def input_options() -> tf.data.Options:
    """Returns options for training data that keep blocked reads from blocking TensorFlow."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = os.cpu_count() or 1
    return options


@contextlib.contextmanager
def stop_on_signals(input_wait: InputWait) -> Iterator[list[int]]:
    """Catches signals for a training, says what happens, and ends a wait for images."""
    ended = threading.Event()

    def watch():
        delay = _PATIENCE  # the images may still come
        while not ended.wait(delay) and not input_wait.cancel():
            delay = _POLL_INTERVAL

    def on_signal(number, is_repeated):
        name = signal_name(number)
        if is_repeated:
            logger.warning(f"{name} again: stopping at once, without saving")
            input_wait.cancel()
            return
        logger.info(
            f"{name}: the run stops after this step and saves it; {name} again stops it at once, "
            "without saving"
        )
        threading.Thread(target=watch, daemon=True).start()

    with catch_signals(on_signal) as received:
        try:
            yield received
        finally:
            ended.set()


def log_resumption(run: RunDir, total_steps: int) -> None:
    """Logs which step of a stopped run is saved, and the command that resumes it."""
    step = run.latest_step()
    saved = f"step {step} of {total_steps} is saved in {run.path}" if step else "no step is saved"
    command = run.read_command()
    is_shell_command = command and not any(part.startswith("--dataset=array:") for part in command)
    resume = f": {shell_join(command)}" if is_shell_command else ""
    logger.info(f"stopped: {saved}. To resume, run the same command again{resume}")


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
        last = sum_over_workers(tf.constant([float(number in received) for number in STOP_SIGNALS]))
        return next((n for n, count in zip(STOP_SIGNALS, previous, strict=True) if count), None)

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
