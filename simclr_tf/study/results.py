"""What came of a study: per run and per cell, as JSON, CSV and a Markdown table."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simclr_tf import __version__
from simclr_tf.config import PretrainConfig, to_json
from simclr_tf.runs.results_file import markdown_row
from simclr_tf.study.grid import Cell, Study
from simclr_tf.study.trial import OWN_HEAD, Trial
from simclr_tf.utils.files import atomic_write, write_csv

_LEAST_GAIN = 0.05  # of k-NN over the untrained encoder's, for a run to count
_TITLES = {
    "knn": "k-NN",
    "knn/random": "k-NN, untrained",
    "knn/projection": "k-NN of g(h)",
    "logistic": "logistic",
    "logistic/projection": "logistic of g(h)",
    "contrastive_accuracy": "contrastive accuracy",
    "contrastive_entropy": "entropy",
    OWN_HEAD: "own head",
}


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one trial.

    Attributes:
        trial: which one it is.
        figures: accuracies in [0, 1] and others, by name; None where it is not finished.
        failure: why, where it failed.
    """

    trial: Trial
    figures: Mapping[str, float] | None = None
    failure: str = ""

    @property
    def counts(self) -> bool:
        """Whether it has learnt enough to say something, 5 points of k-NN more than untrained."""
        found = self.figures
        return found is not None and round(found["knn"] - found["knn/random"], 9) >= _LEAST_GAIN


@dataclasses.dataclass(frozen=True)
class Summary:
    """A cell over its seeds.

    Attributes:
        cell: which one it is.
        results: of its trials.
    """

    cell: Cell
    results: Sequence[Result]

    def values(self, name: str) -> list[float]:
        """Returns a figure of the finished trials that have it."""
        return [r.figures[name] for r in self.results if r.figures and name in r.figures]

    def mean(self, name: str) -> float | None:
        """Returns its mean over the seeds."""
        values = self.values(name)
        return statistics.mean(values) if values else None

    def deviation(self, name: str) -> float | None:
        """Returns its standard deviation over the seeds, None of less than two."""
        values = self.values(name)
        return statistics.stdev(values) if len(values) > 1 else None

    def text(self, name: str) -> str:
        """Returns mean ± standard deviation: accuracies in percent."""
        mean, deviation = self.mean(name), self.deviation(name)
        if mean is None:
            return "–"
        scale, digits = (1, 2) if name == "contrastive_entropy" else (100, 1)
        text = f"{scale * mean:.{digits}f}"
        return text if deviation is None else f"{text} ± {scale * deviation:.{digits}f}"


@dataclasses.dataclass(frozen=True)
class Report:
    """A study as far as it has come.

    Attributes:
        study: which one it is.
        base: what its cells are laid over.
        command: that makes it.
        results: of all trials asked for, finished or not.
    """

    study: Study
    base: PretrainConfig
    command: str
    results: Sequence[Result]

    @property
    def summaries(self) -> list[Summary]:
        """One for each cell, in their order."""
        cells: dict[str, list[Result]] = {}
        for result in self.results:
            cells.setdefault(result.trial.cell.name, []).append(result)
        return [Summary(results[0].trial.cell, results) for results in cells.values()]

    @property
    def columns(self) -> list[str]:
        """What the table shows, of what was measured."""
        supervised = any(result.trial.cell.supervised for result in self.results)
        return ["knn", "knn/random", *self.study.columns, *([OWN_HEAD] if supervised else [])]

    def write(self, output: Path) -> None:
        """Writes results.json, results.csv and table.md into a directory."""
        text = json.dumps(self._document(), indent=1, ensure_ascii=False, allow_nan=False)
        atomic_write(output / "results.json", text + "\n")
        names = list(dict.fromkeys(n for r in self.results for n in r.figures or ()))
        head = ["run", *self.study.axes, "seed", *names, "counts", "failure"]
        write_csv(output / "results.csv", [head, *(_row(r, names) for r in self.results)])
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
                    "at": dict(zip(self.study.axes, summary.cell.at, strict=True)),
                    "paper": summary.cell.paper,
                    "mean": {name: summary.mean(name) for name in self.columns},
                    "standard_deviation": {name: summary.deviation(name) for name in self.columns},
                    "num_finished": len(summary.values("knn")),
                    "num_that_count": sum(result.counts for result in summary.results),
                }
                for summary in self.summaries
            ],
            "runs": [
                {
                    "run": result.trial.name,
                    "cell": result.trial.cell.name,
                    "seed": result.trial.seed,
                    "figures": result.figures,
                    "counts": result.counts,
                    "failure": result.failure,
                }
                for result in self.results
            ],
        }

    def table(self) -> str:
        """Returns the Markdown table with what a reader must know of it."""
        study, summaries = self.study, self.summaries
        with_paper = any(summary.cell.paper is not None for summary in summaries)
        head = [*study.axes, *(_TITLES[name] for name in self.columns), "seeds"]
        head += ["paper"] if with_paper else []
        aligned = ["---"] * len(study.axes) + ["---:"] * (len(head) - len(study.axes))
        lines = [f"# {study.name}: {study.title}", "", f"    {self.command}", "", _about(self.base)]
        lines += ["", markdown_row(head), markdown_row(aligned)]
        lines += [markdown_row(self._cells(summary, with_paper)) for summary in summaries]
        lines += ["", *self._notes(with_paper)]
        return "\n".join(lines)

    def _cells(self, summary: Summary, with_paper: bool) -> list[str]:
        finished = [result for result in summary.results if result.figures]
        mark = "" if all(result.counts for result in finished) else " †"
        figures = [summary.text(name) for name in self.columns]
        row = [*summary.cell.at, figures[0] + mark, *figures[1:], str(len(finished))]
        if with_paper:
            paper = summary.cell.paper
            row.append("–" if paper is None else f"{paper:.1f}")
        return row

    def _notes(self, with_paper: bool) -> list[str]:
        study = self.study
        notes = ["Mean ± standard deviation over the seeds; accuracies in percent."]
        idle = [r.trial.name for r in self.results if r.figures and not r.counts]
        if idle:
            notes.append(
                "† Not to be counted, though the means include them: of "
                f"{', '.join(idle)} the k-NN is less than 5 points above the untrained encoder's."
            )
        notes += [f"Failed: {r.trial.name}: {r.failure}." for r in self.results if r.failure]
        unfinished = [r.trial.name for r in self.results if not r.figures and not r.failure]
        if unfinished:
            notes.append(f"Not finished: {', '.join(unfinished)}.")
        about = ", linear evaluation of a ResNet-50 on ImageNet" if with_paper else ""
        notes.append(f"The paper (arXiv 2002.05709, {study.source}{about}): {study.finding}")
        return [line for note in notes for line in (note, "")][:-1]


def _row(result: Result, names: Sequence[str]) -> list[object]:
    trial, figures = result.trial, result.figures or {}
    values = [figures.get(name, "") for name in names]
    return [trial.name, *trial.cell.at, trial.seed, *values, result.counts, result.failure]


def _about(base: PretrainConfig) -> str:
    """The base, in a line."""
    data, encoder, settings = base.data, base.resolve().encoder, base.optimization
    length = (
        f"{settings.train_steps} steps"
        if settings.train_steps
        else f"{settings.train_epochs:g} epochs"
    )
    return (
        f"Base: {data.dataset}, learnt from {data.train_split}, judged on {data.eval_split}, at "
        f"{base.augmentation.image_size} px; {encoder.describe()}, {settings.precision}; {length} "
        f"of {settings.train_batch_size} images."
    )
