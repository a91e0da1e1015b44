"""Plot of a study: k-NN over the grid."""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from simclr_tf.study.results import CellSummary, StudyResults
from simclr_tf.utils.figures import new_figure
from simclr_tf.utils.files import atomic_write


def plot_study(results: StudyResults, path: Path) -> None:
    """Writes a PNG: k-NN in percent, mean and standard deviation over the seeds."""
    study = results.study
    shown = study.plot.x, study.plot.by
    # Axes of the study that are not axes of the plot become panels next to each other.
    panels: dict[str, list[CellSummary]] = {}
    for summary in results.summaries:
        at = study.at(summary.cell)
        title = ", ".join(f"{axis} {x}" for axis, x in at.items() if axis not in shown)
        panels.setdefault(title, []).append(summary)
    figure, canvas = new_figure(6.4 * len(panels), 4.8)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=study.plot.kind != "heat map")
    legend: dict[str, Any] = {}
    for axes, (title, members) in zip(grid[0], panels.items(), strict=True):
        axes.set_title(title or study.title, fontsize=10)
        _KINDS[study.plot.kind](axes, members, results)
        handles, labels = axes.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    if legend:
        handles, labels = list(legend.values()), list(legend)
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    file = io.BytesIO()
    canvas.print_png(file)
    atomic_write(path, file.getvalue())


def _arrays(
    summaries: Sequence[CellSummary], results: StudyResults
) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Returns (columns, rows, means [R, C], deviations [R, C]) in percent, NaN: missing."""
    study, plot = results.study, results.study.plot

    def coordinates(axis):
        """Returns those of all panels in the grid's order."""
        shown = {study.at(summary.cell).get(axis, "") for summary in results.summaries}
        in_order = dict.fromkeys(study.at(cell).get(axis, "") for cell in study.cells)
        return [x for x in in_order if x in shown]

    columns, rows = coordinates(plot.x), coordinates(plot.by)
    means, deviations = np.full((2, len(rows), len(columns)), np.nan)
    for summary in summaries:
        mean, std = summary.mean("knn"), summary.std("knn")
        if mean is not None:
            at = study.at(summary.cell)
            index = rows.index(at.get(plot.by, "")), columns.index(at[plot.x])
            means[index], deviations[index] = 100 * mean, 100 * (std or 0.0)
    return columns, rows, means, deviations


def _heat_map(axes: Axes, summaries: Sequence[CellSummary], results: StudyResults) -> None:
    columns, rows, means, _ = _arrays(summaries, results)
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
    axes.set_xlabel(results.study.plot.x)
    axes.set_ylabel(results.study.plot.by)
    axes.figure.colorbar(image, ax=axes, label="k-NN top-1 %")


def _bars(axes: Axes, summaries: Sequence[CellSummary], results: StudyResults) -> None:
    columns, rows, means, deviations = _arrays(summaries, results)
    # Next to each other if a coordinate has several bars, centered if it has one.
    for x in range(len(columns)):
        present = np.flatnonzero(~np.isnan(means[:, x]))
        for k, y in enumerate(present.tolist()):
            width = 0.8 / len(present)
            left = x + (k - (len(present) - 1) / 2) * width
            axes.bar(left, means[y, x], width * 0.95, yerr=deviations[y, x], color=f"C{y}")
    for y, row in enumerate(rows):
        if row:
            axes.bar(0, 0, color=f"C{y}", label=f"{results.study.plot.by}: {row}")
    _label_axes(axes, columns, summaries, results)


def _lines(axes: Axes, summaries: Sequence[CellSummary], results: StudyResults) -> None:
    columns, rows, means, deviations = _arrays(summaries, results)
    for y, row in enumerate(rows):
        present = ~np.isnan(means[y])
        label = f"{results.study.plot.by}: {row}" if row else None
        axes.errorbar(
            np.flatnonzero(present),
            means[y, present],
            yerr=deviations[y, present],
            marker="o",
            color=f"C{y}",
            capsize=3,
            label=label,
        )
    _label_axes(axes, columns, summaries, results)


def _label_axes(
    axes: Axes, columns: Sequence[str], summaries: Sequence[CellSummary], results: StudyResults
) -> None:
    """Labels the axes and shows the range of untrained encoders."""
    untrained = [value for summary in summaries for value in summary.values("knn/random")]
    if untrained:
        low, high = 100 * min(untrained), 100 * max(untrained)
        axes.axhspan(low, high, color="lightgray", zorder=0, label="untrained")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_xlabel(results.study.plot.x)
    axes.set_ylabel("k-NN top-1 %")


_KINDS = {"heat map": _heat_map, "bars": _bars, "lines": _lines}
