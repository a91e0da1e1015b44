"""Callbacks of every run: metrics, evaluations, checkpoints and the profiler."""

import itertools
import json
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.errors import RunStopped, UserError
from simclr_tf.models.multi_view import MultiViewModel
from simclr_tf.runs.metrics_log import read_metrics
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext
from simclr_tf.training.gradient_norms import GradientNormMonitor
from simclr_tf.training.interruption import is_peer_failure
from simclr_tf.training.online_eval import Evaluator
from simclr_tf.training.schedule import steps_between
from simclr_tf.training.tensorboard import TensorBoardWriter
from simclr_tf.utils.progress import Progress

logger = logging.getLogger(__name__)


class _FastCallback(keras.callbacks.Callback):
    """Base class of callbacks that do not need each step's metrics on the host."""

    _supports_tf_logs = True  # asks Keras not to fetch them at every step


def untimed(
    callbacks: Sequence[keras.callbacks.Callback], model: keras.Model, steps: int
) -> keras.callbacks.CallbackList:
    """Returns callbacks for `fit` that Keras does not report as slow, as evaluations are."""
    untimed_callbacks = keras.callbacks.CallbackList(
        list(callbacks), add_history=True, model=model, verbose=0, epochs=1, steps=steps
    )
    untimed_callbacks._check_timing = False
    return untimed_callbacks


@dataclass(frozen=True)
class ScheduledEvaluator:
    """An evaluator and the number of steps between its runs; it also runs at the last step."""

    steps: int
    evaluator: Evaluator


class LoggingCallback(_FastCallback):
    """Writes metrics to metrics.jsonl, TensorBoard and the console, and runs the evaluators.

    A row is due every `log_every` steps; its metrics are means over the steps since the one before.
    There are also rows at the last step and where an evaluator returns metrics: so that few steps
    make no spike, their means include the `log_every` steps of the regular row before. Metrics are
    summed on the device and fetched only here, by all workers together. The chief writes them and
    runs the evaluators, with several replicas or averaged weights on `eval_model`, a copy of the
    model on one device.
    """

    def __init__(
        self,
        run: RunDir,
        config: PretrainConfig,
        plan: TrainingPlan,
        *,
        evaluators: Sequence[ScheduledEvaluator],
        make_view_grid: Callable[[MultiViewModel], np.ndarray],
        norms: GradientNormMonitor,
        distribution: DistributionContext,
        eval_model: MultiViewModel | None = None,
    ):
        super().__init__()
        self._run, self._plan, self._distribution = run, plan, distribution
        self._log_every = config.monitoring.log_every
        self._global_batch = config.optimization.train_batch_size
        self._evaluators, self._eval_model = evaluators, eval_model
        self._is_evaluated_as_copy = distribution.num_replicas > 1 or config.optimization.ema_decay
        self._make_view_grid, self._norms = make_view_grid, norms
        self._display: _ProgressDisplay | None = None
        self._regular_row: dict[str, float] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._first = self._step = int(self.model.step.numpy())
        self._view_grid_due = self._step == 0
        if self._distribution.is_chief:
            self._tensorboard = TensorBoardWriter(self._run, self._step)
            self._display = _ProgressDisplay(self._step, self._plan.total_steps)
            self._regular_row = self._last_regular_row()
        self._clock_start, self._clock_step = time.monotonic(), self._step
        self._is_timing = False
        self._sums = [metric.get_weights() for metric in self.model.metrics]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        # `fit` has just cleared the sums that came with the checkpoint of a resumed run.
        for metric, sums in zip(self.model.metrics, self._sums, strict=True):
            metric.set_weights(sums)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # A call from the host may be several steps: what is due in one of them runs at its end.
        before, self._step = self._step, self._first + batch + 1
        is_last = self._step == self._plan.total_steps

        def is_due(steps):
            return is_last or self._step // steps > before // steps

        due_evaluators = [x.evaluator for x in self._evaluators if is_due(x.steps)]
        if self._display:
            self._display.advance(self._step)
        is_regular = self._is_regular(before, self._step)
        if due_evaluators or is_due(self._log_every):
            self._log(due_evaluators, is_regular, is_regular or is_last)
        elif not self._is_timing:  # the first step was mostly compilation
            self._restart_clock()

    def _is_regular(self, before, step):
        return step // self._log_every > before // self._log_every

    def _last_regular_row(self):
        """Returns the row that a resumed run has written last at an interval of `log_every`."""
        rows = [{"step": 0}, *read_metrics(self._run.metrics_file)]
        pairs = [
            (a, b) for a, b in itertools.pairwise(rows) if self._is_regular(a["step"], b["step"])
        ]
        return pairs[-1][1] if pairs else None

    def _restart_clock(self):
        if not self._is_timing and self._display:
            self._display.restart(self._step)
        self._is_timing = True
        self._clock_start, self._clock_step = time.monotonic(), self._step

    def _log(self, due_evaluators, is_regular, row_due):
        # All workers come here together: reading a metric sums it over the replicas.
        row = {"step": self._step, "epoch": self._step / self._plan.steps_per_epoch}
        means = {metric.name: float(metric.result()) for metric in self.model.metrics}
        seconds = time.monotonic() - self._clock_start
        views = self.model.views_per_image * self._global_batch * (self._step - self._clock_step)
        means["views_per_second"] = views / seconds
        raise_if_diverged(self.model)
        if row_due:
            self.model.reset_metrics()
        if is_regular:
            self._regular_row = row | means
        elif self._regular_row:
            means = self._average_with(self._regular_row, means)
        row |= means
        row["learning_rate"] = float(self.model.optimizer.learning_rate.numpy())
        norms, trust_ratios = self._norms.latest() if row_due else ({}, np.empty(0))
        row |= norms
        if due_evaluators and self._is_evaluated_as_copy:
            weights = self.model.evaluation_weights()
            if self._eval_model:
                self._eval_model.set_layer_weights(weights)
        if self._display:
            self._write(row, due_evaluators, trust_ratios, row_due)
        if is_regular or not self._is_timing:
            self._restart_clock()
        else:  # without the evaluators' time
            self._clock_start = time.monotonic() - seconds

    def _average_with(self, before, means):
        weight = self._log_every / (self._log_every + self._step - before["step"])
        return {
            name: weight * before[name] + (1 - weight) * value if name in before else value
            for name, value in means.items()
        }

    def _write(self, row, due_evaluators, trust_ratios, row_due):
        failure, num_metrics = None, len(row)
        images: dict[str, np.ndarray] = {}
        for evaluate in due_evaluators:
            try:
                results = evaluate(
                    self._eval_model or self.model, self._step == self._plan.total_steps
                )
            except UserError as error:
                failure = error  # raised once the training's own metrics are written
                continue
            for name, value in results.items():
                (images if isinstance(value, np.ndarray) else row)[name] = value
        row_due = row_due or failure or len(row) > num_metrics  # not for images alone
        if row_due:
            with self._run.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        if self._view_grid_due:
            name = "view_pairs" if self.model.views_per_image == 2 else "views"
            images[name] = self._make_view_grid(self.model)
            self._view_grid_due = False
        scalars = {name: value for name, value in row.items() if name not in ("step", "epoch")}
        self._tensorboard.write(self._step, scalars if row_due else {}, images, trust_ratios)
        if self._display and row_due:
            self._display.show(row)
        if failure:
            raise failure

    def close(self) -> None:
        """Removes the progress bar, however the training ended."""
        if self._display:
            self._display.close()


_DISPLAYED = (
    *("contrastive_accuracy", "accuracy", "agreement", "linear_accuracy", "knn_top1"),
    *("linear_probe_top1", "validation_loss", "validation_accuracy", "validation_agreement"),
)


class _ProgressDisplay:
    """A progress bar on a terminal, else a line per row."""

    def __init__(self, step: int, total: int):
        self._total, self._last_line = total, ""
        self._progress = Progress("training", total, "steps")
        self.restart(step)

    def restart(self, step: int) -> None:
        """Estimates the remaining time from here on."""
        self._progress.restart(step)

    def advance(self, step: int) -> None:
        if self._progress.has_bar:
            self._progress.update(step)

    def show(self, row: dict[str, float]) -> None:
        step, details = int(row["step"]), f"loss {row['loss']:.4f}"
        for name in _DISPLAYED:
            if name in row:
                label = "acc" if name in ("contrastive_accuracy", "accuracy") else name
                details += f"  {label} {row[name]:.3f}"
        details += f"  {row['views_per_second']:.0f} views/s"
        self._last_line = f"step {step}/{self._total}  epoch {row['epoch']:.2f}  {details}"
        if self._progress.has_bar:
            self._progress.update(step, details)
        else:
            logger.info(f"{self._last_line}  {self._progress.time_left(step)} left")

    def close(self) -> None:
        self._progress.close()
        if self._progress.has_bar and self._last_line:
            logger.info(self._last_line)


def raise_if_diverged(model: MultiViewModel) -> None:
    """Raises UserError with the first step whose loss was not finite."""
    step = int(model.first_bad_step.numpy())
    if step >= 0:
        raise UserError(
            f"the loss was not finite at step {step + 1}. Fix: use a lower --learning_rate, a "
            "longer --warmup_epochs, a higher --temperature or --precision=float32"
        )


class CheckpointWriteError(UserError):
    """A checkpoint cannot be written."""


class CheckpointCallback(_FastCallback):
    """Saves at a fixed interval, at the last step, and when a signal stops the run.

    With several steps per execution, it saves at the end of the execution that completes an
    interval. A checkpoint is written in full before the directory's `checkpoint` file names it, so
    an incomplete one never replaces a good one. `stop_signal` is called after each step; it
    returns the signal to stop for, or None. All workers take part in a save, because a variable
    may lie on all of them; only the chief's file remains.
    """

    def __init__(
        self,
        run: RunDir,
        config: PretrainConfig,
        plan: TrainingPlan,
        stop_signal: Callable[[], int | None],
        distribution: DistributionContext,
    ):
        super().__init__()
        settings = config.checkpoints
        self._max_to_keep = settings.keep_checkpoint_max
        self._save_interval = steps_between(
            config, plan, settings.checkpoint_epochs, settings.checkpoint_steps
        )
        self._total, self._stop_signal = plan.total_steps, stop_signal
        self._directory = str(run.checkpoint_dir)
        self._scratch_dir = None
        if not distribution.is_chief:
            self._scratch_dir = tempfile.TemporaryDirectory(prefix="simclr_tf-")
            self._directory = self._scratch_dir.name

    def on_train_begin(self, logs: Any = None) -> None:
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=self.model),
            self._directory,
            max_to_keep=self._max_to_keep,
            checkpoint_name="step",
        )
        self._first = self._step = int(self.model.step.numpy())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        before, self._step = self._step, self._first + batch + 1
        is_due = self._step // self._save_interval > before // self._save_interval
        signal = self._stop_signal()
        if is_due or self._step == self._total or signal:
            self.save()
        if signal:
            raise RunStopped(128 + signal)

    def close(self) -> None:
        """Removes the directory of a worker that keeps no checkpoint."""
        if self._scratch_dir:
            self._scratch_dir.cleanup()

    def save(self) -> None:
        """Saves the model between any two steps; CheckpointWriteError if the file system fails."""
        raise_if_diverged(self.model)
        step = int(self.model.step.numpy())
        try:
            self._manager.save(checkpoint_number=step)
        except (OSError, tf.errors.OpError) as error:
            if isinstance(error, tf.errors.OpError) and is_peer_failure(error):
                raise
            reason = str(error).strip().splitlines()[0]
            raise CheckpointWriteError(
                f"the checkpoint of step {step} cannot be written to {self._directory}: {reason}. "
                "Fix: free disk space and run the same command again; it resumes from the "
                "checkpoint before"
            ) from error


class ProfileCallback(_FastCallback):
    """Traces calls from the host (of one step each, by default) for TensorBoard's profiler.

    The trace is written to `plugins/profile` in TensorBoard's directory.
    """

    def __init__(self, directory: Path, warmup_calls: int = 10, traced_calls: int = 10):
        super().__init__()
        self._directory = str(directory)
        self._warmup_calls, self._traced_calls = warmup_calls, traced_calls
        self._calls = 0
        self._is_tracing = False

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._calls == self._warmup_calls:
            tf.profiler.experimental.start(self._directory)
            self._is_tracing = True
        self._calls += 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._calls == self._warmup_calls + self._traced_calls:
            self.close()

    def on_train_end(self, logs: Any = None) -> None:
        self.close()
        if self._calls <= self._warmup_calls:
            logger.warning(
                f"note: --profile: no trace, because training took {self._calls} calls, and the "
                f"trace starts after {self._warmup_calls}"
            )

    def close(self) -> None:
        """Writes the trace, if one has started."""
        if not self._is_tracing:
            return
        self._is_tracing = False
        tf.profiler.experimental.stop()
        logger.info(
            f"trace written to {self._directory}; TensorBoard shows it after pip install "
            "tensorboard-plugin-profile"
        )
