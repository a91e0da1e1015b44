"""What a run directory holds, in a few figures."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.errors import UserError
from simclr_tf.runs.metrics_log import Row, has_finite_value, read_metrics
from simclr_tf.runs.results_file import read_evaluations, with_defaults
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.runs.status import get_status

# What is measured now and then on labelled images, among a row's figures.
_PROBES = ("knn_top1", "linear_probe_top1", "validation_accuracy", "validation_agreement")
# Of evaluations, those of the run's own encoder on its classes.
_PROTOCOLS = ("knn", "logistic", "linear", "finetune", "distill")


@dataclasses.dataclass(frozen=True)
class Probe:
    """An accuracy, a fraction, and the step at which it was measured."""

    name: str
    value: float
    step: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """A run at a glance.

    Attributes:
        path: the run directory.
        state, reason, certain: as of `RunStatus`; of a run that cannot be read "damaged", and why.
        task: "pretrain", "finetune" or "distill".
        dataset, encoder: in words.
        step: the last that is logged or saved.
        saved_step: of the newest checkpoint, 0 without one.
        total_steps: of the run, 0 if its weights were imported.
        epoch: at `step`.
        best_probe: the highest; where it was not probed, of its evaluations on its own dataset.
        size: bytes of all its files.
    """

    path: str
    state: str
    reason: str = ""
    certain: bool = True
    task: str = ""
    dataset: str = ""
    encoder: str = ""
    step: int = 0
    saved_step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    best_probe: Probe | None = None
    size: int = 0


def find_runs(directory: Path) -> list[Path]:
    """Returns the runs in a directory and below, sorted by path; it may be a run itself.

    Raises:
        UserError: there is no such directory.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; name one that holds runs")
    return sorted(_runs_below(directory))


def _runs_below(directory: Path) -> Iterator[Path]:
    visited = set()
    for place, inner, files in os.walk(directory, followlinks=True):
        if (real := os.path.realpath(place)) in visited:  # links may go in a circle
            inner.clear()
            continue
        visited.add(real)
        inner[:] = [name for name in inner if not name.startswith(".")]
        if "config.json" in files and _is_run(Path(place)):
            yield Path(place)
            inner[:] = ["supervised"] if "supervised" in inner else []  # which holds baselines


def _is_run(path: Path) -> bool:
    """Whether a config.json is a run's, be it damaged."""
    if any((path / name).exists() for name in ("checkpoints", "metrics.jsonl", "state.json")):
        return True
    try:
        document = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and {"task", "config", "plan"} <= set(document)


def summarize(path: Path) -> Summary:
    """Returns the summary of a run, damaged ones included."""
    run = RunDir(path)
    try:
        config, plan = run.read_config()
        return _summary(run, config, plan)
    except (UserError, OSError) as error:
        reason = str(error)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"its files are not what a run writes ({type(error).__name__}: {error})"
    return Summary(str(path), "damaged", reason, size=_size(path))


def _summary(run: RunDir, config: PretrainConfig, plan: TrainingPlan) -> Summary:
    saved, rows = run.latest_step(), read_metrics(run.metrics_file)
    state = get_status(run, plan.total_steps, saved)
    step = max(saved, rows[-1]["step"] if rows else 0)
    data = config.data
    return Summary(
        path=str(run.path),
        state=state.name,
        reason=state.reason,
        certain=state.certain,
        task=config.task,
        dataset=f"{data.dataset} {data.train_split}",
        encoder=config.encoder.describe(),
        step=step,
        saved_step=saved,
        total_steps=plan.total_steps,
        epoch=0.0 if plan.is_imported else step / plan.steps_per_epoch,
        best_probe=_best(rows, run, data.dataset),
        size=_size(run.path),
    )


def _best(rows: list[Row], run: RunDir, dataset: str) -> Probe | None:
    found = [
        Probe(name, row[name], row["step"])
        for row in rows
        for name in _PROBES
        if has_finite_value(row, name)
    ]
    if not found:
        found = [
            Probe(record["protocol"], record["value"], record["step"])
            for record in map(with_defaults, read_evaluations(run.evaluations_file))
            if record["protocol"] in _PROTOCOLS and record["dataset"] == dataset
        ]
    return max(found, key=lambda probe: probe.value, default=None)


def _size(path: Path) -> int:
    """Bytes of the files that are there; one that a running training takes away counts nothing."""
    total = 0
    for place, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except FileNotFoundError:
                continue
    return total
