"""Run directories from Python."""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simclr_tf.api.results import embed, evaluate, export, report
from simclr_tf.api.signature import as_method
from simclr_tf.config import PretrainConfig
from simclr_tf.runs.metrics_log import read_metrics
from simclr_tf.runs.results_file import read_evaluations
from simclr_tf.runs.run_dir import RunDir

if TYPE_CHECKING:
    import tf_keras as keras


class Run:
    """A run directory: its model, metrics and evaluations.

    `pretrain`, `finetune` and `distill` return one. `Run(path)` opens an existing run. Every
    function that takes a run directory also takes a `Run`.

    Example:
        >>> import simclr_tf as st
        >>> run = st.Run("runs/photos")  # doctest: +SKIP
        >>> features = run.encoder(images, training=False)  # doctest: +SKIP

    Args:
        path: the run directory.

    Raises:
        UserError: if it contains no run.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        model: "keras.Model | None" = None,
        is_chief: bool = True,
    ):
        self.is_chief = is_chief
        self.sources: tuple[Any, ...] = ()  # images from Python, for later calls
        self._dir = RunDir(path)
        self.path: Path = self._dir.path
        self.config: PretrainConfig = self._dir.read_config()[0]
        if model is not None:
            self.model = model

    @functools.cached_property
    def model(self) -> "keras.Model":
        """The trained model, with the weights of the newest checkpoint."""
        from simclr_tf.runs.load import load_model

        return load_model(self.path)

    @property
    def encoder(self) -> "keras.Model":
        """The encoder, which maps images `[N, S, S, 3]` in [0, 1] to features `[N, D]`."""
        return self.model.encoder

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl (step, epoch, loss and so on), oldest first."""
        return read_metrics(self._dir.metrics_file)

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The records of evaluations.json, newest last."""
        return [dict(record) for record in read_evaluations(self._dir.evaluations_file)]

    evaluate = as_method(evaluate)
    embed = as_method(embed)
    export = as_method(export)
    report = as_method(report)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"
