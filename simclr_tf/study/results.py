"""Results of a study: per run and per cell, as JSON, CSV and a Markdown table."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simclr_tf import __version__
from simclr_tf.config import PretrainConfig, to_json
from simclr_tf.study.grid import Cell, Study
from simclr_tf.study.trial import SUPERVISED_HEAD, Trial
from simclr_tf.utils.files import atomic_write, write_csv
from simclr_tf.utils.tables import format_table

_MIN_KNN_GAIN = 0.05  # over the untrained encoder
_TITLES = {
    "knn": "k-NN",
    "knn/random": "k-NN, untrained",
    "knn/projection": "k-NN of g(h)",
    "logistic": "logistic",
    "logistic/projection": "logistic of g(h)",
    "contrastive_accuracy": "contrastive accuracy",
    "contrastive_entropy": "entropy",
    SUPERVISED_HEAD: "own head",
}


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """Results of a trial.

    >>> from pathlib import Path
    >>> from simclr_tf.config import PretrainConfig
    >>> from simclr_tf.option_groups import Data
    >>> from simclr_tf.study.grid import Cell
    >>> from simclr_tf.study.results import TrialResult
    >>> from simclr_tf.study.trial import Trial
    >>> trial = Trial(Cell(("adam",), {}), 0, PretrainConfig(Data("shapes")), Path("adam-0"))
    >>> TrialResult(trial, {"knn": 0.41, "knn/random": 0.4}).has_learned
    False

    Attributes:
        trial: the trial.
        values: accuracies in [0, 1] and others, by name; None if the trial is not finished.
        failure: the reason why it failed, or "".
    """

    trial: Trial
    values: Mapping[str, float] | None = None
    failure: str = ""

    @property
    def has_learned(self) -> bool:
        """True if k-NN is at least 5 points above the untrained encoder's."""
        if self.values is None:
            return False
        return round(self.values["knn"] - self.values["knn/random"], 9) >= _MIN_KNN_GAIN


@dataclasses.dataclass(frozen=True)
class CellSummary:
    """Results of a cell over its seeds.

    >>> from pathlib import Path
    >>> from simclr_tf.config import PretrainConfig
    >>> from simclr_tf.option_groups import Data
    >>> from simclr_tf.study.grid import Cell
    >>> from simclr_tf.study.results import CellSummary, TrialResult
    >>> from simclr_tf.study.trial import Trial
    >>> cell, config = Cell(("adam",), {}), PretrainConfig(Data("shapes"))
    >>> results = [
    ...     TrialResult(Trial(cell, seed, config, Path(f"adam-{seed}")), {"knn": knn})
    ...     for seed, knn in enumerate((0.5, 0.6))
    ... ]
    >>> CellSummary(cell, results).format("knn")
    '55.0 ± 7.1'
    """

    cell: Cell
    results: Sequence[TrialResult]

    def values(self, name: str) -> list[float]:
        """Returns a result of the finished trials that have it."""
        return [r.values[name] for r in self.results if r.values and name in r.values]

    def mean(self, name: str) -> float | None:
        """Returns the mean over the seeds; None without values."""
        values = self.values(name)
        return statistics.mean(values) if values else None

    def std(self, name: str) -> float | None:
        """Returns the sample standard deviation over the seeds; None for fewer than two."""
        values = self.values(name)
        return statistics.stdev(values) if len(values) > 1 else None

    def format(self, name: str) -> str:
        """Returns mean ± standard deviation, accuracies in percent."""
        mean, std = self.mean(name), self.std(name)
        if mean is None:
            return "–"
        scale, digits = (1, 2) if name == "contrastive_entropy" else (100, 1)
        text = f"{scale * mean:.{digits}f}"
        return text if std is None else f"{text} ± {scale * std:.{digits}f}"


@dataclasses.dataclass(frozen=True)
class StudyResults:
    """Results of a study so far.

    >>> from simclr_tf.config import PretrainConfig
    >>> from simclr_tf.option_groups import Data
    >>> from simclr_tf.study.experiments import STUDIES
    >>> from simclr_tf.study.results import StudyResults
    >>> study = STUDIES["losses"]
    >>> StudyResults(study, PretrainConfig(Data("shapes")), "", []).columns
    ['knn', 'knn/random', 'logistic']

    Attributes:
        study: the study.
        base: settings that its cells override.
        command: the command line.
        results: of all selected trials, finished or not.
    """

    study: Study
    base: PretrainConfig
    command: str
    results: Sequence[TrialResult]

    @property
    def summaries(self) -> list[CellSummary]:
        """A summary for each cell, in the order of the results."""
        cells: dict[str, list[TrialResult]] = {}
        for result in self.results:
            cells.setdefault(result.trial.cell.name, []).append(result)
        return [CellSummary(results[0].trial.cell, results) for results in cells.values()]

    @property
    def columns(self) -> list[str]:
        """Names of the results in the table."""
        supervised = any(result.trial.cell.supervised for result in self.results)
        head = [SUPERVISED_HEAD] if supervised else []
        return ["knn", "knn/random", *self.study.columns, *head]

    def write(self, output: Path) -> None:
        """Writes results.json, results.csv and table.md into a directory."""
        text = json.dumps(self._document(), indent=1, ensure_ascii=False, allow_nan=False)
        atomic_write(output / "results.json", text + "\n")
        names = list(dict.fromkeys(name for r in self.results for name in r.values or ()))
        header = ["run", *self.study.axes, "seed", *names, "counts", "failure"]
        write_csv(output / "results.csv", [header, *(_csv_row(r, names) for r in self.results)])
        atomic_write(output / "table.md", self.table() + "\n")

    def _document(self) -> dict[str, Any]:
        return {
            "study": self.study.name,
            "simclr_tf": __version__,
            "command": self.command,
            "base": to_json(self.base),
            "cells": [
                {
                    "cell": summary.cell.name,
                    "at": self.study.at(summary.cell),
                    "paper": summary.cell.paper_value,
                    "mean": {name: summary.mean(name) for name in self.columns},
                    "standard_deviation": {name: summary.std(name) for name in self.columns},
                    "num_finished": len(summary.values("knn")),
                    "num_that_count": sum(result.has_learned for result in summary.results),
                }
                for summary in self.summaries
            ],
            "runs": [
                {
                    "run": result.trial.name,
                    "cell": result.trial.cell.name,
                    "seed": result.trial.seed,
                    "figures": result.values,
                    "counts": result.has_learned,
                    "failure": result.failure,
                }
                for result in self.results
            ],
        }

    def table(self) -> str:
        """Returns the Markdown table with its command and notes."""
        study, summaries = self.study, self.summaries
        has_paper = any(summary.cell.paper_value is not None for summary in summaries)
        headers = [*study.axes, *(_TITLES[name] for name in self.columns), "seeds"]
        headers += ["paper"] if has_paper else []
        align = "l" * len(study.axes) + "r" * (len(headers) - len(study.axes))
        rows = [self._row(summary)[: len(headers)] for summary in summaries]
        table = format_table(rows, headers, markdown=True, align=align)
        head = f"# {study.name}: {study.title}", f"    {self.command}", _describe_base(self.base)
        return "\n\n".join([*head, table, *self._notes(has_paper)])

    def _row(self, summary: CellSummary) -> list[str]:
        finished = [result for result in summary.results if result.values]
        mark = "" if all(result.has_learned for result in finished) else " †"
        knn, *others = (summary.format(name) for name in self.columns)
        paper = summary.cell.paper_value
        shown = "–" if paper is None else f"{paper:.1f}"
        return [*summary.cell.coordinates, knn + mark, *others, str(len(finished)), shown]

    def _notes(self, has_paper: bool) -> list[str]:
        notes = ["Mean ± standard deviation over the seeds; accuracies in percent."]
        if not_learned := [r.trial.name for r in self.results if r.values and not r.has_learned]:
            notes.append(
                "† These runs do not count, although the means include them, because their k-NN "
                "is less than 5 points above the untrained encoder's: "
                f"{', '.join(not_learned)}."
            )
        notes += [f"Failed: {r.trial.name}: {r.failure}." for r in self.results if r.failure]
        if unfinished := [r.trial.name for r in self.results if not r.values and not r.failure]:
            notes.append(f"Not finished: {', '.join(unfinished)}.")
        values = ", linear evaluation of a ResNet-50 on ImageNet" if has_paper else ""
        paper = f"arXiv 2002.05709, {self.study.source}{values}"
        return [*notes, f"The paper ({paper}): {self.study.paper_finding}"]


def _csv_row(result: TrialResult, names: Sequence[str]) -> list[object]:
    trial, values = result.trial, result.values or {}
    figures = [values.get(name, "") for name in names]
    head = trial.name, *trial.cell.coordinates, trial.seed
    return [*head, *figures, result.has_learned, result.failure]


def _describe_base(base: PretrainConfig) -> str:
    data, encoder, settings = base.data, base.resolve().encoder, base.optimization
    steps = settings.train_steps
    length = f"{steps} steps" if steps else f"{settings.train_epochs:g} epochs"
    return (
        f"Base: {data.dataset}, trained on {data.train_split}, tested on {data.eval_split}, at "
        f"{base.augmentation.image_size} px; {encoder.describe()}, {settings.precision}; {length} "
        f"of {settings.train_batch_size} images."
    )
