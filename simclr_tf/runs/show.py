"""One run in the terminal: what it is, one of its curves, its evaluations."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simclr_tf.errors import UserError
from simclr_tf.runs.curve import curve
from simclr_tf.runs.listing import is_told, shown
from simclr_tf.runs.metrics_log import Row, has_finite_value, read_metrics
from simclr_tf.runs.results_file import Record, format_results, read_evaluations
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.runs.summary import Summary, summarize
from simclr_tf.utils.files import format_bytes


def show(path: Path, metric: str, width: int) -> str:
    """Returns the lines for the user.

    Args:
        path: of the run.
        metric: whose curve is drawn.
        width: of the curve, in characters.

    Raises:
        UserError: there is no run, it is damaged, or it has no such metric.
    """
    summary, rows, records = _read(path)
    parts = ["\n".join(_head(summary))]
    if rows:
        parts.append("\n".join(_curve(rows, metric, width)))
    else:
        parts.append("no metrics yet: its first line comes after --log_every steps")
    parts.append(
        format_results(records)
        if records
        else f"no evaluations yet: simclr-tf evaluate --model_dir={path}"
    )
    return "\n\n".join(parts)


def as_json(path: Path, metric: str) -> dict[str, Any]:
    """Returns the same for programs: the summary, the curve as steps and values, evaluations.

    Raises:
        UserError: as `show`.
    """
    summary, rows, records = _read(path)
    steps, values = _points(rows, metric) if rows else ([], [])
    # JSON knows no other numbers.
    last = (
        {k: v if has_finite_value(rows[-1], k) else None for k, v in rows[-1].items()}
        if rows
        else None
    )
    return {
        **dataclasses.asdict(summary),
        "metric": metric,
        "steps": steps,
        "values": values,
        "last": last,
        "evaluations": list(records),
    }


def _read(path: Path) -> tuple[Summary, list[Row], Sequence[Record]]:
    run = RunDir(path)
    run.read_config()  # a run that is none, or damaged, is an error here
    summary = summarize(path)
    if summary.state == "damaged":
        raise UserError(summary.reason)
    return summary, read_metrics(run.metrics_file), read_evaluations(run.evaluations_file)


def _head(summary: Summary) -> list[str]:
    state = summary.state + ("" if summary.certain else "?")
    if summary.total_steps:
        progress = f"step {summary.step} of {summary.total_steps}, epoch {summary.epoch:.2f}"
        if summary.state != "done":
            progress += f"; saved at step {summary.saved_step}"
    else:
        progress = "imported weights"
    lines = [f"{summary.path}: {state}, {progress}"]
    if is_told(summary):
        lines.append(f"{summary.state}: {summary.reason}")
    lines.append(
        f"{summary.task} on {summary.dataset}, {summary.encoder}, {format_bytes(summary.size)}"
    )
    if summary.best_probe:
        lines.append(f"best probe: {shown(summary.best_probe)} at step {summary.best_probe.step}")
    return lines


def _points(rows: list[Row], metric: str) -> tuple[list[int], list[float]]:
    points = [(row["step"], row[metric]) for row in rows if has_finite_value(row, metric)]
    if not points:
        names = dict.fromkeys(name for row in rows for name in row)
        there = ", ".join(name for name in names if name not in ("step", "epoch"))
        raise UserError(f"--metric={metric}: this run has no such figure; it has {there}")
    steps, values = zip(*points, strict=True)
    return list(steps), list(values)


def _curve(rows: list[Row], metric: str, width: int) -> list[str]:
    steps, values = _points(rows, metric)
    last = f"{metric}: {values[-1]:.4g} at step {steps[-1]}"
    return [last, *curve(steps, values, width)]
