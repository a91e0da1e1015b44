"""Checkpoints while training."""

import tempfile
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.errors import UserError
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext
from simclr_tf.training.interruption import is_peer_failure


class CheckpointWriteError(UserError):
    """A checkpoint cannot be written."""


class CheckpointCallback(keras.callbacks.Callback):
    """Saves every `every` steps, at the last step, and when a signal asks the run to end.

    A checkpoint is written in full before the directory's `checkpoint` file names it, so one that
    is cut short never replaces a good one.

    Args:
        run: the run directory.
        every: steps between checkpoints; with several steps per execution, at the end of the one
            that completes them.
        total_steps: of the run.
        keep: how many checkpoints stay.
        healthy: called before each save; it raises if the weights are not worth keeping.
        stop: called after each step; the signal to stop for, or None.
        replicas: whose weights they are. All workers take part in a save, for a variable may lie
            on all of them; the chief's file is the one that is kept.
    """

    _supports_tf_logs = True  # asks Keras not to fetch the metrics to the host at every step

    def __init__(
        self,
        run: RunDir,
        *,
        every: int,
        total_steps: int,
        keep: int,
        healthy: Callable[[], None],
        stop: Callable[[], int | None],
        distribution: DistributionContext,
    ):
        super().__init__()
        self._every, self._total, self._keep = every, total_steps, keep
        self._healthy, self._stop = healthy, stop
        self._directory = str(run.checkpoint_dir)
        if not distribution.is_chief:
            self._discarded = tempfile.TemporaryDirectory(prefix="simclr_tf-")
            self._directory = self._discarded.name

    def on_train_begin(self, logs: Any = None) -> None:
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=self.model),
            self._directory,
            max_to_keep=self._keep,
            checkpoint_name="step",
        )
        self._first = self._step = int(self.model.step.numpy())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        before, self._step = self._step, self._first + batch + 1
        due = self._step // self._every > before // self._every
        stop = self._stop()
        if due or self._step == self._total or stop:
            self.save()
        if stop:
            raise SystemExit(128 + stop)

    def save(self) -> None:
        """Saves what has been trained, at any moment between two steps.

        Raises:
            CheckpointWriteError: if the file system does not take it.
        """
        self._healthy()
        step = int(self.model.step.numpy())
        try:
            self._manager.save(checkpoint_number=step)
        except (OSError, tf.errors.OpError) as error:
            if isinstance(error, tf.errors.OpError) and is_peer_failure(error):
                raise
            reason = str(error).strip().splitlines()[0]
            raise CheckpointWriteError(
                f"the checkpoint of step {step} cannot be written to {self._directory}: {reason}; "
                "make room, and start the same command again: it goes on from the one before"
            ) from error
