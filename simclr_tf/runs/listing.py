"""Summaries of runs, as text for the terminal and as values for JSON."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.errors import UserError
from simclr_tf.runs.metrics_log import ENCODER_PROBES, Row, has_finite_value, read_metrics
from simclr_tf.runs.results_file import format_results, read_evaluations, with_defaults
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.runs.status import get_status
from simclr_tf.utils.files import format_bytes
from simclr_tf.utils.paths import shell_join
from simclr_tf.utils.tables import format_table

# Metrics of online evaluation with labeled images.
_PROBES = (*ENCODER_PROBES, "validation_accuracy", "validation_agreement")
# Protocols that evaluate the run's encoder on the classes of its dataset.
_PROTOCOLS = ("knn", "logistic", "linear", "finetune", "distill")


@dataclasses.dataclass(frozen=True)
class Probe:
    """An accuracy in [0, 1] and the step at which it was measured.

    `dataset` is that of a probe on other images than the run's.
    """

    name: str
    value: float
    step: int
    dataset: str = ""

    def __str__(self):
        where = f" on {self.dataset}" if self.dataset else ""
        return f"{self.name} {100 * self.value:.1f}{where}"


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """Summary of a run; `best_probe` is of online evaluation or else of the run's evaluations."""

    path: str
    state: str  # as in `RunStatus`, or "damaged" if the run cannot be read
    reason: str = ""
    task: str = ""
    dataset: str = ""
    encoder: str = ""
    step: int = 0  # last step that was logged or saved
    saved_step: int = 0  # of the newest checkpoint, 0 without one
    total_steps: int = 0  # 0 if the weights were imported
    epoch: float = 0.0
    best_probe: Probe | None = None
    size: int = 0  # total bytes of all files


def find_runs(directory: Path) -> list[Path]:
    """Returns the runs in a directory and below, sorted by path; it may itself be a run."""
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory. Fix: choose one that contains runs")
    return sorted(_walk_runs(directory))


def _walk_runs(directory: Path) -> Iterator[Path]:
    visited = set()
    for path, subdirs, files in os.walk(directory, followlinks=True):
        if (real := os.path.realpath(path)) in visited:  # links may form a cycle
            subdirs.clear()
            continue
        visited.add(real)
        subdirs[:] = [name for name in subdirs if not name.startswith(".")]
        if "config.json" in files and _is_run(Path(path)):
            yield Path(path)
            subdirs[:] = ["supervised"] if "supervised" in subdirs else []  # contains baselines


def _is_run(path: Path) -> bool:
    """Returns True if config.json belongs to a run, even to a damaged one."""
    if any((path / name).exists() for name in ("checkpoints", "metrics.jsonl", "state.json")):
        return True
    try:
        document = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and {"task", "config", "plan"} <= set(document)


def summarize_run(path: Path) -> RunSummary:
    """Returns the summary of a run, which may be damaged."""
    run = RunDir(path)
    try:
        return _summarize(run)
    except (UserError, OSError) as error:
        reason = str(error)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"its files are not those of a run ({type(error).__name__}: {error})"
    return RunSummary(str(path), "damaged", reason, size=_total_bytes(path))


def _summarize(run: RunDir) -> RunSummary:
    config, plan = run.read_config()
    saved, rows = run.latest_step(), read_metrics(run.metrics_file)
    status = get_status(run, plan.total_steps, saved)
    step = max(saved, rows[-1]["step"] if rows else 0)
    data = config.data
    return RunSummary(
        path=str(run.path),
        state=status.name,
        reason=status.reason,
        task=config.task,
        dataset=f"{data.dataset} {data.train_split}",
        encoder=config.encoder.describe(),
        step=step,
        saved_step=saved,
        total_steps=plan.total_steps,
        epoch=0.0 if plan.is_imported else step / plan.steps_per_epoch,
        best_probe=_best_probe(rows, run, config, plan),
        size=_total_bytes(run.path),
    )


def _best_probe(
    rows: list[Row], run: RunDir, config: PretrainConfig, plan: TrainingPlan
) -> Probe | None:
    def name_if_other(dataset: str) -> str:
        return "" if dataset == config.data.dataset else dataset

    probed = config.probe_data.dataset
    evaluated = config.labeled_data(plan.num_classes is not None).dataset
    probes = [
        Probe(name, row[name], row["step"], name_if_other(probed) if name in ENCODER_PROBES else "")
        for row in rows
        for name in _PROBES
        if has_finite_value(row, name)
    ] or [
        Probe(record["protocol"], record["value"], record["step"], name_if_other(evaluated))
        for record in map(with_defaults, read_evaluations(run.evaluations_file))
        if record["protocol"] in _PROTOCOLS and record["dataset"] == evaluated
    ]
    return max(probes, key=lambda probe: probe.value, default=None)


def _total_bytes(path: Path) -> int:
    total = 0
    for directory, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(FileNotFoundError):  # removed by the training
                total += os.lstat(os.path.join(directory, name)).st_size
    return total


def format_runs(summaries: Sequence[RunSummary]) -> str:
    """Returns a table with a row per run, followed by the reasons of failed and stopped runs."""
    table = format_table(
        [_table_row(summary) for summary in summaries],
        ("run", "state", "step", "of", "%", "best probe", "at step", "size"),
        align="llrrrlrr",
    )
    reasons = [f"{s.path}: {s.state}: {s.reason}" for s in summaries if _has_reason(s)]
    return "\n".join([table, *([""] if reasons else []), *reasons])


def _has_reason(summary: RunSummary) -> bool:
    return bool(summary.reason) and summary.state != "running"


def _table_row(summary: RunSummary) -> tuple[object, ...]:
    steps: tuple[object, ...] = ("–", "–", "–")
    if total := summary.total_steps:
        steps = (summary.step, total, 100 * summary.step // total)
    probe = summary.best_probe
    best = (probe or "–", probe.step if probe else "")
    return (summary.path, summary.state, *steps, *best, format_bytes(summary.size))


@dataclasses.dataclass(frozen=True)
class RunDetails:
    """Summary, finite values of one metric, last row of metrics and evaluations of a run."""

    summary: RunSummary
    metric: str
    steps: list[int]
    values: list[float]
    last: Row | None  # numbers that are not finite are None
    evaluations: Sequence[Any]

    def to_json(self) -> dict[str, Any]:
        """Returns the summary's fields and the others as one flat dictionary."""
        document = dataclasses.asdict(self)
        return {**document.pop("summary"), **document, "evaluations": list(self.evaluations)}


def read_run_details(path: Path, metric: str = "loss") -> RunDetails:
    """Reads the details of a run; raises UserError if it is damaged or has no such metric."""
    run = RunDir(path)
    run.read_config()  # gives the more precise error
    summary = summarize_run(path)
    if summary.state == "damaged":
        raise UserError(summary.reason)
    rows = read_metrics(run.metrics_file)
    points = [(row["step"], row[metric]) for row in rows if has_finite_value(row, metric)]
    if rows and not points:
        names = dict.fromkeys(name for row in rows for name in row)
        available = ", ".join(name for name in names if name not in ("step", "epoch"))
        raise UserError(f"--metric={metric}: expected one of {available}, got {metric!r}")
    last = None
    if rows:  # JSON has no other numbers
        last = {k: v if has_finite_value(rows[-1], k) else None for k, v in rows[-1].items()}
    return RunDetails(
        summary,
        metric,
        [step for step, _ in points],
        [value for _, value in points],
        last,
        read_evaluations(run.evaluations_file),
    )


def format_run_details(details: RunDetails) -> str:
    """Returns the header, the latest metrics, the range of the metric and the evaluations."""
    summary = details.summary
    parts = ["\n".join(_header_lines(summary))]
    if details.last:
        latest = "  ".join(
            f"{name} {'not finite' if value is None else format(value, '.4g')}"
            for name, value in details.last.items()
            if name not in ("step", "epoch")
        )
        points = list(zip(details.values, details.steps, strict=True))
        selected = {"first": points[0], "last": points[-1], "min": min(points), "max": max(points)}
        rows = [(name, f"{value:.4g}", step) for name, (value, step) in selected.items()]
        parts += [
            f"step {details.last['step']}: {latest}",
            format_table(rows, (details.metric, "value", "at step")),
        ]
    else:
        parts.append("no metrics yet: the first row is logged after --log_every steps")
    evaluate = shell_join(["simclr-tf", "evaluate", f"--model_dir={summary.path}"])
    parts.append(format_results(details.evaluations) or f"no evaluations yet: {evaluate}")
    return "\n\n".join(parts)


def _header_lines(summary: RunSummary) -> list[str]:
    progress = "imported weights"
    if summary.total_steps:
        progress = f"step {summary.step} of {summary.total_steps}, epoch {summary.epoch:.2f}"
        if summary.state != "done":
            progress += f"; saved at step {summary.saved_step}"
    lines = [f"{summary.path}: {summary.state}, {progress}"]
    if _has_reason(summary):
        lines.append(f"{summary.state}: {summary.reason}")
    lines.append(
        f"{summary.task} on {summary.dataset}, {summary.encoder}, {format_bytes(summary.size)}"
    )
    if summary.best_probe:
        lines.append(f"best probe: {summary.best_probe} at step {summary.best_probe.step}")
    return lines
