"""`--profile`: where a few steps spend their time, as a trace that TensorBoard shows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

_AFTER, _CALLS = 10, 10


class ProfileCallback(keras.callbacks.Callback):
    """Traces ten calls from the host (of a step each, by default), after ten that settle.

    Args:
        directory: TensorBoard's; the trace lies in its `plugins/profile`.
        say: takes the line that says so.
    """

    _supports_tf_logs = True  # asks Keras not to fetch the metrics to the host at every step

    def __init__(self, directory: Path, say: Callable[[str], None]):
        super().__init__()
        self._directory, self._say = str(directory), say
        self._calls = 0
        self.tracing = False

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._calls == _AFTER:
            tf.profiler.experimental.start(self._directory)
            self.tracing = True
        self._calls += 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.tracing and self._calls == _AFTER + _CALLS:
            self.close()

    def on_train_end(self, logs: Any = None) -> None:
        if self.tracing:
            self.close()
        elif self._calls <= _AFTER:
            self._say(
                f"note: --profile: nothing traced, for training took {self._calls} calls, and the "
                f"trace begins after {_AFTER}"
            )

    def close(self) -> None:
        """Writes the trace that is being taken."""
        self.tracing = False
        tf.profiler.experimental.stop()
        self._say(
            f"trace written to {self._directory}: pip install tensorboard-plugin-profile, and "
            "TensorBoard shows it"
        )
