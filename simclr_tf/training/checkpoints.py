"""Checkpoints while training, and what a signal does."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.run import Run


class CheckpointCallback(keras.callbacks.Callback):
    """Saves every `every` steps, at the last step, and when a signal asks the run to end.

    A checkpoint is written in full before the directory's `checkpoint` file names it, so one that
    is cut short never replaces a good one.

    Args:
        run: the run directory.
        every: steps between checkpoints.
        total_steps: of the run.
        keep: how many checkpoints stay.
        healthy: called before each save; it raises if the weights are not worth keeping.
        stop: the signals received so far.
    """

    _supports_tf_logs = True  # asks Keras not to fetch the metrics to the host at every step

    def __init__(
        self,
        run: Run,
        every: int,
        total_steps: int,
        keep: int,
        healthy: Callable[[], None],
        stop: list[int],
    ):
        super().__init__()
        self._run, self._every, self._total, self._keep = run, every, total_steps, keep
        self._healthy, self._stop = healthy, stop

    def on_train_begin(self, logs: Any = None) -> None:
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=self.model),
            str(self._run.checkpoint_dir),
            max_to_keep=self._keep,
            checkpoint_name="step",
        )
        self._step = int(self.model.step)

    def on_train_batch_end(self, batch: Any, logs: Any = None) -> None:
        self._step += 1
        if self._step % self._every == 0 or self._step == self._total or self._stop:
            self.save()
        if self._stop:
            raise SystemExit(128 + self._stop[0])

    def save(self) -> None:
        """Saves what has been trained, at any moment between two steps."""
        self._healthy()
        self._manager.save(checkpoint_number=int(self.model.step))


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT instead of dying of them; a second one of a kind kills."""
    received: list[int] = []

    def note(number, frame):
        received.append(number)
        signal.signal(number, before[number])

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
