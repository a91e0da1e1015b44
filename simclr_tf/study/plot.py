"""Plot of a study: k-NN over the grid."""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simclr_tf.study.results import CellSummary, StudyResults
from simclr_tf.utils.files import atomic_write


def plot_study(results: StudyResults, path: Path) -> None:
    """Writes a PNG: k-NN in percent, mean and standard deviation over the seeds.

    Axes of the study that are not axes of the plot become panels next to each other.
    """
    study, summaries = results.study, results.summaries
    shown = study.plot.x, study.plot.by
    others = [study.axes.index(axis) for axis in study.axes if axis not in shown]
    panels: dict[tuple[str, ...], list[CellSummary]] = {}
    for summary in summaries:
        panels.setdefault(tuple(summary.cell.coordinates[i] for i in others), []).append(summary)
    figure = Figure(figsize=(6.4 * len(panels), 4.8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=study.plot.kind != "heat map")
    for axes, (coordinates, members) in zip(grid[0], panels.items(), strict=True):
        names = [f"{study.axes[i]} {x}" for i, x in zip(others, coordinates, strict=True)]
        axes.set_title(", ".join(names) or study.title, fontsize=10)
        _KINDS[study.plot.kind](axes, members, results)
    legend: dict[str, Any] = {}
    for axes in grid[0]:
        legend |= {
            label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
    if legend:
        figure.legend(
            list(legend.values()), list(legend), loc="outside lower center", ncols=4, fontsize=8
        )
    file = io.BytesIO()
    canvas.print_png(file)
    atomic_write(path, file.getvalue())


def _arrays(
    summaries: Sequence[CellSummary], results: StudyResults
) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Returns (columns, rows, means [R, C], deviations [R, C]) in percent, NaN: missing."""
    study = results.study

    def get_coordinates(axis: str) -> tuple[list[str], list[str]]:
        """Returns each summary's coordinate, and those of all panels in the grid's order."""
        if not axis:
            return [""] * len(summaries), [""]
        index = study.axes.index(axis)
        shown = {summary.cell.coordinates[index] for summary in results.summaries}
        in_order = dict.fromkeys(cell.coordinates[index] for cell in study.cells)
        own = [summary.cell.coordinates[index] for summary in summaries]
        return own, [x for x in in_order if x in shown]

    x_values, columns = get_coordinates(study.plot.x)
    y_values, rows = get_coordinates(study.plot.by)
    means, deviations = np.full((2, len(rows), len(columns)), np.nan)
    for summary, x, y in zip(summaries, x_values, y_values, strict=True):
        mean, std = summary.mean("knn"), summary.std("knn")
        if mean is not None:
            index = rows.index(y), columns.index(x)
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
