"""`--profile`: where a few steps spend their time, as a trace that TensorBoard shows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

_AFTER, _STEPS = 10, 10


class ProfileCallback(keras.callbacks.Callback):
    """Traces ten calls from the host, after ten that are left to settle.

    Args:
        directory: TensorBoard's; the trace lies in its `plugins/profile`.
        say: takes the line that says so.
    """

    _supports_tf_logs = True  # asks Keras not to fetch the metrics to the host at every step

    def __init__(self, directory: Path, say: Callable[[str], None]):
        super().__init__()
        self._directory, self._say = str(directory), say
        self._tracing = self._done = False

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch >= _AFTER and not self._tracing and not self._done:
            tf.profiler.experimental.start(self._directory)
            self._tracing = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._tracing and batch + 1 >= _AFTER + _STEPS:
            self.close()

    def close(self) -> None:
        """Writes the trace, if that is not done."""
        if self._done:
            return
        self._done = True
        if not self._tracing:
            self._say(f"note: --profile: nothing traced, for there was no step {_AFTER + 1}")
            return
        tf.profiler.experimental.stop()
        self._tracing = False
        self._say(
            f"trace written to {self._directory}: pip install tensorboard-plugin-profile, and "
            "TensorBoard shows it"
        )
