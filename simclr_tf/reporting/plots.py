"""metrics.jsonl as curves: of one run, or of several one over the other."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.colors import qualitative

from simclr_tf.reporting.html import LEGEND, Plot, Table, escape_for_plotly
from simclr_tf.runs.metrics_log import Row

# What is drawn into one figure; whatever else a run has measured gets a figure of its own.
_TOGETHER = {
    "Loss": ("loss", "validation_loss", "linear_loss", "distillation_loss", "labelled_loss"),
    "Probes of the encoder": ("knn_top1", "linear_probe_top1"),
    "Accuracy while training": (
        *("contrastive_accuracy", "validation_contrastive_accuracy", "linear_accuracy"),
        *("accuracy", "agreement", "validation_accuracy", "validation_agreement"),
    ),
    "Alignment and uniformity": ("alignment", "uniformity"),
}
_NOT_CURVES = ("step", "epoch")
_POINTS = 500  # of a curve at most


def plot_run_curves(rows: Sequence[Row]) -> list[Plot]:
    """Return the figures of a run, those of one kind of measure together."""
    names = _names(rows)
    groups = {title: [n for n in members if n in names] for title, members in _TOGETHER.items()}
    grouped = [name for members in groups.values() for name in members]
    groups |= {_words(name): [name] for name in names if name not in grouped}
    return [
        _plot(title, {name: (rows, name) for name in members})
        for title, members in groups.items()
        if members
    ]


def plot_runs_curves(runs: Mapping[str, Sequence[Row]]) -> list[Plot]:
    """Return a figure for every measure, with a curve of each run that has it."""
    names = _names([row for rows in runs.values() for row in rows])
    return [
        _plot(_words(name), {run: (rows, name) for run, rows in runs.items()}) for name in names
    ]


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if name not in _NOT_CURVES))


def _words(name: str) -> str:
    words = name.replace("_", " ").replace("knn", "k-NN")
    return words[:1].upper() + words[1:]


def _thinned(rows: Sequence[Row], name: str) -> tuple[list[float], list[int], list[float]]:
    """Epochs, steps and values; of many rows the means of successive ones, at their last."""
    parts = np.array_split(np.arange(len(rows)), min(len(rows), _POINTS))
    ends = [rows[part[-1]] for part in parts]
    means = [np.mean([rows[i][name] for i in part]) for part in parts]
    return (
        [float(f"{end['epoch']:.6g}") for end in ends],
        [end["step"] for end in ends],
        [float(f"{mean:.5g}") for mean in means],
    )


def _plot(title: str, members: Mapping[str, tuple[Sequence[Row], str]]) -> Plot:
    """One figure; `members` says of which rows and which measure each curve is."""
    figure = go.Figure()
    table = []
    for number, (label, (rows, name)) in enumerate(members.items()):
        there = [row for row in rows if row.get(name) is not None]
        if not there:
            continue
        epochs, steps, means = _thinned(there, name)
        figure.add_scatter(
            x=epochs,
            y=means,
            name=escape_for_plotly(label),
            # A single point makes no line.
            mode="lines" if len(there) > 1 else "markers",
            # A run has its own, also where others have no such curve.
            line={"color": qualitative.Plotly[number % len(qualitative.Plotly)]},
            customdata=steps,
            hovertemplate="%{y:.4g} (step %{customdata})",
        )
        values = [row[name] for row in there]
        ends = (values[0], values[-1], min(values), max(values))
        table.append((label, len(values), *(f"{value:.4g}" for value in ends)))
    figure.update_layout(
        xaxis_title="epoch",
        hovermode="x unified",
        showlegend=len(members) > 1,
        legend=LEGEND,
        margin={"l": 48, "r": 12, "t": 40 if len(members) > 1 else 24, "b": 40},
        height=300,
    )
    said = "; ".join(f"{row[0]} from {row[2]} to {row[3]}" for row in table)
    header = ("curve", "points", "first", "last", "lowest", "highest")
    slug = "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    return Plot(
        f"curve-{slug}", title, f"{title} over the epochs: {said}.", figure, Table(header, table)
    )
