"""metrics.jsonl, TensorBoard and the terminal: one row of figures, three readers."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tf_keras as keras
from tqdm import tqdm

from simclr_tf.errors import UserError
from simclr_tf.models.multi_view import MultiViewModel
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext
from simclr_tf.training.gradient_norms import GradientNormMonitor
from simclr_tf.training.online_eval import Evaluator
from simclr_tf.training.tensorboard import TensorBoardWriter


@dataclass(frozen=True)
class ScheduledEvaluator:
    """An evaluator and how often it runs; it runs at the last step, too."""

    steps: int
    evaluator: Evaluator


class LoggingCallback(keras.callbacks.Callback):
    """Writes a row of metrics every `log_every` steps, and where an evaluator is due.

    A row's metrics are means over the steps since the row before it; they are summed on the device
    and fetched only here.

    Args:
        run: the run directory.
        total_steps: of the run.
        steps_per_epoch: images / batch.
        global_batch: images per step.
        log_every: steps between rows.
        evaluators: what else is measured, by the chief.
        picture: makes the grid of views, shown once.
        norms: of the steps that `log_every` makes due.
        replicas: that train. All workers fetch a row together, the chief writes it.
        copy: of the model, on one device, for the chief's evaluators of several replicas.
    """

    _supports_tf_logs = True  # asks Keras not to fetch the metrics to the host at every step

    def __init__(
        self,
        run: RunDir,
        *,
        total_steps: int,
        steps_per_epoch: float,
        global_batch: int,
        log_every: int,
        evaluators: Sequence[ScheduledEvaluator],
        picture: Callable,
        norms: GradientNormMonitor,
        distribution: DistributionContext,
        copy: keras.Model | None = None,
    ):
        super().__init__()
        self._distribution, self._copy = distribution, copy
        self._run, self._log_every, self._evaluators = run, log_every, evaluators
        self._total, self._steps_per_epoch = total_steps, steps_per_epoch
        self._global_batch, self._picture, self._norms = global_batch, picture, norms

    def on_train_begin(self, logs: Any = None) -> None:
        self._first = self._step = int(self.model.step.numpy())
        self._picture_due = self._step == 0
        if self._distribution.is_chief:
            self._board = TensorBoardWriter(self._run, self._step)
            self._terminal = _Terminal(self._step, self._total)
        self._started, self._from = time.monotonic(), self._step
        self._timing = False
        self._sums = [metric.get_weights() for metric in self.model.metrics]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        # `fit` has just cleared the sums that came with the checkpoint of a resumed run.
        for metric, sums in zip(self.model.metrics, self._sums, strict=True):
            metric.set_weights(sums)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # A call from the host may be several steps: what falls due in it is done at its end.
        before, self._step = self._step, self._first + batch + 1
        last = self._step == self._total

        def falls_due(steps):
            return last or self._step // steps > before // steps

        due = [every for every in self._evaluators if falls_due(every.steps)]
        if self._distribution.is_chief:
            self._terminal.advance(self._step)
        measured = falls_due(self._log_every)
        if due or measured:
            self._log(due, measured)
        elif not self._timing:  # the first step was mostly compilation
            self._restart_clock()

    def _restart_clock(self):
        if not self._timing and self._distribution.is_chief:
            self._terminal.restart(self._step)
        self._timing = True
        self._started, self._from = time.monotonic(), self._step

    def _log(self, due, measured):
        # All workers come here together: reading a metric sums it over the replicas.
        row = {"step": self._step, "epoch": self._step / self._steps_per_epoch}
        row |= {metric.name: float(metric.result()) for metric in self.model.metrics}
        seconds = time.monotonic() - self._started
        row["learning_rate"] = float(self.model.optimizer.learning_rate.numpy())
        views = self.model.views_per_image * self._global_batch * (self._step - self._from)
        row["views_per_second"] = views / seconds
        raise_if_diverged(self.model)
        self.model.reset_metrics()
        norms, ratios = self._norms.read() if measured else ({}, np.empty(0))
        row |= norms
        if due and self._distribution.num_replicas > 1:
            for i, part in enumerate(self.model.layers):
                weights = part.get_weights()
                if self._copy:
                    self._copy.layers[i].set_weights(weights)
        if self._distribution.is_chief:
            self._write(row, due, ratios)
        self._restart_clock()  # the evaluators' time is not the training's

    def _write(self, row, due, ratios):
        failure = None
        pictures: dict[str, np.ndarray] = {}
        for every in due:
            try:
                found = every.evaluator(self._copy or self.model)
            except UserError as error:
                failure = error  # raised once the training's own figures are written
                continue
            for name, value in found.items():
                (pictures if isinstance(value, np.ndarray) else row)[name] = value
        with self._run.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._picture_due:
            name = "view_pairs" if self.model.views_per_image == 2 else "views"
            pictures[name] = self._picture(self.model)
            self._picture_due = False
        figures = {name: value for name, value in row.items() if name not in ("step", "epoch")}
        self._board.show(self._step, figures, pictures, ratios)
        self._terminal.show(row)
        if failure:
            raise failure

    def close(self) -> None:
        """Leaves the terminal in order, however the training ended."""
        if hasattr(self, "_terminal"):
            self._terminal.close()


# Of a row's figures, by the names that the terminal has room for.
_SHOWN = {
    "contrastive_accuracy": "acc",
    "accuracy": "acc",
    "agreement": "agreement",
    "linear_accuracy": "linear_accuracy",
    "knn_top1": "knn_top1",
    "linear_probe_top1": "linear_probe_top1",
    "validation_loss": "validation_loss",
    "validation_accuracy": "validation_accuracy",
    "validation_agreement": "validation_agreement",
}


class _Terminal:
    """A progress bar on a terminal, else a plain line per row."""

    def __init__(self, step: int, total: int):
        self._total = total
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True)
        self.restart(step)

    def restart(self, step: int) -> None:
        """Reckons the time left from here on."""
        self._began, self._first = time.monotonic(), step

    def advance(self, step: int) -> None:
        if self._bar:
            self._bar.update(step - self._bar.n)

    def show(self, row: dict[str, float]) -> None:
        figures = f"loss {row['loss']:.4f}"
        for name, short in _SHOWN.items():
            if name in row:
                figures += f"  {short} {row[name]:.3f}"
        figures += f"  {row['views_per_second']:.0f} views/s"
        if self._bar:
            self._bar.set_postfix_str(figures)
            return
        step = int(row["step"])
        left = (time.monotonic() - self._began) / (step - self._first) * (self._total - step)
        print(
            f"step {step}/{self._total}  epoch {row['epoch']:.2f}  {figures}  "
            f"{tqdm.format_interval(left)} left",
            flush=True,
        )

    def close(self) -> None:
        if self._bar:
            self._bar.close()


def raise_if_diverged(model: MultiViewModel) -> None:
    """Raises UserError with the step if any loss since the last look was not finite."""
    step = int(model.first_bad_step.numpy())
    if step >= 0:
        raise UserError(
            f"the loss was not finite at step {step + 1}: try a lower --learning_rate, a longer "
            "--warmup_epochs, a higher --temperature or --precision=float32"
        )
