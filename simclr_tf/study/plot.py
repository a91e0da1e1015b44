"""A study as a picture: k-NN over the grid."""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simclr_tf.study.results import Report, Summary
from simclr_tf.utils.files import atomic_write


def draw(report: Report, path: Path) -> None:
    """Writes a PNG: k-NN in percent, mean and standard deviation over the seeds.

    Axes of the study that the picture has no direction for become panels, side by side.
    """
    study, summaries = report.study, report.summaries
    shown = study.picture.x, study.picture.by
    others = [study.axes.index(axis) for axis in study.axes if axis not in shown]
    panels: dict[tuple[str, ...], list[Summary]] = {}
    for summary in summaries:
        panels.setdefault(tuple(summary.cell.at[i] for i in others), []).append(summary)
    figure = Figure(figsize=(6.4 * len(panels), 4.8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=study.picture.kind != "heat map")
    for axes, (places, members) in zip(grid[0], panels.items(), strict=True):
        names = [f"{study.axes[i]} {place}" for i, place in zip(others, places, strict=True)]
        axes.set_title(", ".join(names) or study.title, fontsize=10)
        _KINDS[study.picture.kind](axes, members, report)
    told: dict[str, Any] = {}
    for axes in grid[0]:
        told |= {
            label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
    if told:
        figure.legend(
            list(told.values()), list(told), loc="outside lower center", ncols=4, fontsize=8
        )
    file = io.BytesIO()
    canvas.print_png(file)
    atomic_write(path, file.getvalue())


def _arrays(
    summaries: Sequence[Summary], report: Report
) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """(columns, rows, means [R, C], deviations [R, C]) in percent, NaN where there is nothing."""
    study = report.study

    def places(axis: str) -> tuple[list[str], list[str]]:
        """Each summary's place on an axis, and those of all panels in the grid's order."""
        if not axis:
            return [""] * len(summaries), [""]
        index = study.axes.index(axis)
        shown = {summary.cell.at[index] for summary in report.summaries}
        whole = dict.fromkeys(cell.at[index] for cell in study.cells)
        found = [summary.cell.at[index] for summary in summaries]
        return found, [place for place in whole if place in shown]

    across, columns = places(study.picture.x)
    down, rows = places(study.picture.by)
    means, deviations = np.full((2, len(rows), len(columns)), np.nan)
    for summary, x, y in zip(summaries, across, down, strict=True):
        mean, deviation = summary.mean("knn"), summary.deviation("knn")
        if mean is not None:
            place = rows.index(y), columns.index(x)
            means[place], deviations[place] = 100 * mean, 100 * (deviation or 0.0)
    return columns, rows, means, deviations


def _heat_map(axes: Axes, summaries: Sequence[Summary], report: Report) -> None:
    columns, rows, means, _ = _arrays(summaries, report)
    averages = [np.mean(row[~np.isnan(row)] if (~np.isnan(row)).any() else np.nan) for row in means]
    values = np.column_stack([means, averages])
    image = axes.imshow(values, cmap="viridis")
    axes.set_xticks(range(len(columns) + 1), [*columns, "average"], rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.axvline(len(columns) - 0.5, color="white", linewidth=4)
    middle = np.mean(image.get_clim())
    for y, x in itertools.product(*map(range, values.shape)):
        if not np.isnan(values[y, x]):
            color = "white" if values[y, x] < middle else "black"
            axes.text(x, y, f"{values[y, x]:.1f}", ha="center", va="center", color=color)
    axes.set_xlabel(report.study.picture.x)
    axes.set_ylabel(report.study.picture.by)
    axes.figure.colorbar(image, ax=axes, label="k-NN top-1 %")


def _bars(axes: Axes, summaries: Sequence[Summary], report: Report) -> None:
    columns, rows, means, deviations = _arrays(summaries, report)
    # Side by side where a place has several bars, in the middle where it has one.
    for x in range(len(columns)):
        there = np.flatnonzero(~np.isnan(means[:, x]))
        for k, y in enumerate(there.tolist()):
            width = 0.8 / len(there)
            place = x + (k - (len(there) - 1) / 2) * width
            axes.bar(place, means[y, x], width * 0.95, yerr=deviations[y, x], color=f"C{y}")
    for y, row in enumerate(rows):
        if row:
            axes.bar(0, 0, color=f"C{y}", label=f"{report.study.picture.by}: {row}")
    _finish(axes, columns, summaries, report)


def _lines(axes: Axes, summaries: Sequence[Summary], report: Report) -> None:
    columns, rows, means, deviations = _arrays(summaries, report)
    for y, row in enumerate(rows):
        there = ~np.isnan(means[y])
        label = f"{report.study.picture.by}: {row}" if row else None
        axes.errorbar(
            np.flatnonzero(there),
            means[y, there],
            yerr=deviations[y, there],
            marker="o",
            color=f"C{y}",
            capsize=3,
            label=label,
        )
    _finish(axes, columns, summaries, report)


def _finish(
    axes: Axes, columns: Sequence[str], summaries: Sequence[Summary], report: Report
) -> None:
    """Names the axes and shows where untrained encoders are."""
    untrained = [value for summary in summaries for value in summary.values("knn/random")]
    if untrained:
        low, high = 100 * min(untrained), 100 * max(untrained)
        axes.axhspan(low, high, color="lightgray", zorder=0, label="untrained")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_xlabel(report.study.picture.x)
    axes.set_ylabel("k-NN top-1 %")


_KINDS = {"heat map": _heat_map, "bars": _bars, "lines": _lines}
