"""Interactive plots: results as bars, metrics as curves, the embedding as a map."""

import math
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import qualitative
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from simclr_tf.evaluation.knn import l2_normalize_rows
from simclr_tf.reporting.embedded_split import EmbeddedSplit, sprite_uri
from simclr_tf.reporting.html import LEGEND, Plot, Table, escape_for_plotly
from simclr_tf.runs.metrics_log import ENCODER_PROBES, Row

MISSING = "–"  # table cell without a value

# Metrics that share a plot; every other metric has its own.
_GROUPS = {
    "Loss": ("loss", "validation_loss", "linear_loss", "distillation_loss", "labelled_loss"),
    "Probes of the encoder": ENCODER_PROBES,
    "Training accuracy": (
        *("contrastive_accuracy", "validation_contrastive_accuracy", "linear_accuracy"),
        *("accuracy", "agreement", "validation_accuracy", "validation_agreement"),
    ),
    "Alignment and uniformity": ("alignment", "uniformity"),
}
_INDEX_COLUMNS = ("step", "epoch")
_MAX_CURVE_POINTS = 500

_NUM_CLUSTERS = 10
_MIN_MAP_POINTS = 5
_COLLAPSE_TOLERANCE = 1e-6  # between features of unit length
_MAX_LEGEND_CLASSES = 40
# Colors repeat after ten classes, with another symbol.
_SYMBOLS = ("circle", "diamond", "cross", "square", "triangle-up", "star")


def parse_percent(cell: object) -> float | None:
    """Returns the value of a table cell in percent; None for a missing value."""
    return None if cell == MISSING else float(str(cell))


def without_probes(table: Table) -> Table:
    """Returns a table without transformation probes, which do not rate an encoder."""
    return Table(table.header, [row for row in table.rows if not str(row[0]).startswith("probe:")])


def bar_plot(name: str, title: str, table: Table, axis: str) -> Plot:
    """Plots a group of bars per row, with a bar per column that has values."""
    figure = go.Figure()
    columns = [
        i for i in range(1, len(table.header)) if any(row[i] != MISSING for row in table.rows)
    ]
    for i in columns:
        figure.add_bar(
            y=[escape_for_plotly(str(row[0])) for row in table.rows],
            x=[parse_percent(row[i]) for row in table.rows],
            name=escape_for_plotly(str(table.header[i])),
            orientation="h",
            hovertemplate="%{y}: %{x:.1f} %",
        )
    figure.update_layout(
        xaxis={"title": axis, "rangemode": "tozero"},
        yaxis={"autorange": "reversed", "automargin": True},
        legend=LEGEND,
        margin={"l": 8, "r": 12, "t": 40, "b": 40},
        height=140 + (12 * len(columns) + 14) * len(table.rows),
    )
    values = "; ".join(" ".join(map(str, row)) for row in table.rows)
    label = f"Bars: {title}. {', '.join(map(str, table.header))}: {values}."
    return Plot(name, title, label, figure, table)


def plot_run_curves(rows: Sequence[Row], probed: str = "") -> list[Plot]:
    """Plots the metrics of a run, related ones together; the probes name their data."""
    names = _metric_names(rows)
    groups = {title: [n for n in members if n in names] for title, members in _GROUPS.items()}
    grouped = [name for members in groups.values() for name in members]
    groups |= {_title(name): [name] for name in names if name not in grouped}
    return [
        _plot_curves(
            f"{title}: {probed}" if probed and members[0] in ENCODER_PROBES else title,
            {name: (rows, name) for name in members},
        )
        for title, members in groups.items()
        if members
    ]


def plot_runs_curves(
    runs: Mapping[str, Sequence[Row]], probed: Mapping[str, str] = types.MappingProxyType({})
) -> list[Plot]:
    """Plots every metric, with a curve per run that has it; the probes name their data."""

    def label(run: str, name: str) -> str:
        return f"{run}: {probed[run]}" if probed and name in ENCODER_PROBES else run

    names = _metric_names([row for rows in runs.values() for row in rows])
    return [
        _plot_curves(_title(name), {label(run, name): (rows, name) for run, rows in runs.items()})
        for name in names
    ]


def _metric_names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if name not in _INDEX_COLUMNS))


def _title(name: str) -> str:
    title = name.replace("_", " ").replace("knn", "k-NN")
    return title[:1].upper() + title[1:]


def _downsample(rows: Sequence[Row], name: str) -> tuple[list[float], list[int], list[float]]:
    """Returns epochs, steps and values; for many rows, means of successive rows."""
    chunks = np.array_split(np.arange(len(rows)), min(len(rows), _MAX_CURVE_POINTS))
    last = [rows[chunk[-1]] for chunk in chunks]
    means = [np.mean([rows[i][name] for i in chunk]) for chunk in chunks]
    return (
        [float(f"{row['epoch']:.6g}") for row in last],
        [row["step"] for row in last],
        [float(f"{mean:.5g}") for mean in means],
    )


def _plot_curves(title: str, curves: Mapping[str, tuple[Sequence[Row], str]]) -> Plot:
    """Plots curves given as {label: (rows, name of the metric)}."""
    figure = go.Figure()
    table = []
    for number, (label, (rows, name)) in enumerate(curves.items()):
        present = [row for row in rows if row.get(name) is not None]
        if not present:
            continue
        epochs, steps, means = _downsample(present, name)
        figure.add_scatter(
            x=epochs,
            y=means,
            name=escape_for_plotly(label),
            # A single point makes no line.
            mode="lines" if len(present) > 1 else "markers",
            # A run has the same color in all plots, including those that lack other runs.
            line={"color": qualitative.Plotly[number % len(qualitative.Plotly)]},
            customdata=steps,
            hovertemplate="%{y:.4g} (step %{customdata})",
        )
        values = [row[name] for row in present]
        first_last_min_max = (values[0], values[-1], min(values), max(values))
        table.append((label, len(values), *(f"{value:.4g}" for value in first_last_min_max)))
    figure.update_layout(
        xaxis_title="epoch",
        hovermode="x unified",
        showlegend=len(curves) > 1,
        legend=LEGEND,
        margin={"l": 48, "r": 12, "t": 40 if len(curves) > 1 else 24, "b": 40},
        height=300,
    )
    description = "; ".join(f"{row[0]} from {row[2]} to {row[3]}" for row in table)
    header = ("curve", "points", "first", "last", "lowest", "highest")
    slug = "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    label = f"{title} over the epochs: {description}."
    return Plot(f"curve-{slug}", title, label, figure, Table(header, table))


def make_embedding_map(split: EmbeddedSplit, method: str, max_images: int) -> dict[str, Any] | None:
    """Maps images by PCA of their features, and also by `method` "umap" or "tsne".

    Colors show classes if each image has at most one, otherwise k-means clusters.

    Returns {"plots": one per method, "points": sprite of the thumbnails, ID and group of each
    image, "grouping": meaning of the colors, "images": description}; None for fewer than five.
    """
    positions = split.evenly_spaced_sample(max_images)
    if len(positions) < _MIN_MAP_POINTS:
        return None
    features = l2_normalize_rows(split.rows.features[positions])
    names, groups, grouping = _group(split, positions, features)
    uri, columns = sprite_uri(split.rows, positions)
    images = f"{len(positions):,} of {split.total:,} images of {split.split}"
    table = _group_similarities(features, names, groups)
    plots = []
    # A collapsed embedding has no other map, and t-SNE would end the process.
    for kind in dict.fromkeys(("pca", "pca" if _is_collapsed(features) else method)):
        # One thread: on few cores the threads of BLAS and TensorFlow wait for one another.
        with threadpool_limits(1, "blas"):
            coordinates, title = _project(features, kind)
        label = f"{title} of {images}, colored by {grouping}. Arrow keys move between points."
        figure = _scatter_plot(coordinates, names, groups)
        plots.append(Plot(f"map-{kind}", title, label, figure, table))
    points = {
        "sprite": uri,
        "columns": columns,
        "ids": split.rows.image_ids(positions),
        "groups": [names[group] if group >= 0 else "without a label" for group in groups],
    }
    return {"plots": plots, "points": points, "grouping": grouping, "images": images}


def _group(
    split: EmbeddedSplit, positions: np.ndarray, features: np.ndarray
) -> tuple[Sequence[str], np.ndarray, str]:
    """Returns group names, the group int [n] of each point (-1: none), and their meaning."""
    labels = split.rows.labels[positions]
    if split.class_names and (labels >= 0).any():
        return split.class_names, labels, "class"
    count = min(_NUM_CLUSTERS, len(features) // 2)
    with threadpool_limits(1, "blas"):
        groups = KMeans(count, n_init=4, random_state=0).fit_predict(features)
    names = [f"cluster {i + 1}" for i in range(count)]
    return names, groups, f"{count} clusters of k-means, because there are no single labels"


def _scatter_plot(coordinates: np.ndarray, names: Sequence[str], groups: np.ndarray) -> go.Figure:
    figure = go.Figure()
    present = [group for group in range(-1, len(names)) if (groups == group).any()]
    for group in present:
        members = np.flatnonzero(groups == group)
        figure.add_scatter(
            x=coordinates[members, 0].tolist(),
            y=coordinates[members, 1].tolist(),
            customdata=members.tolist(),
            name=escape_for_plotly(names[group]) if group >= 0 else "without a label",
            mode="markers",
            marker={
                "size": 7 if len(groups) < 1000 else 5,
                "opacity": 0.8,
                "symbol": _SYMBOLS[max(group, 0) // 10 % len(_SYMBOLS)],
            },
            hoverinfo="none",  # the page shows the image itself
        )
    hidden_axis = {"showticklabels": False, "showgrid": False, "zeroline": False}
    figure.update_layout(
        xaxis=hidden_axis,
        yaxis=hidden_axis | {"scaleanchor": "x"},
        showlegend=len(present) <= _MAX_LEGEND_CLASSES,
        # Markers in the legend stay large enough to distinguish their colors.
        legend=LEGEND | {"itemsizing": "constant"},
        margin={"l": 8, "r": 8, "t": 40, "b": 8},
        height=560,
    )
    return figure


def _group_similarities(features: np.ndarray, names: Sequence[str], groups: np.ndarray) -> Table:
    """Returns the mean cosine similarity within each group, and the nearest other group."""
    present = [group for group in range(len(names)) if (groups == group).any()]
    means = np.stack([features[groups == group].mean(axis=0) for group in present])
    # The mean over all pairs of a group is the squared norm of its mean feature.
    similarity = means @ means.T
    rows = []
    for i, group in enumerate(present):
        others = np.where(np.arange(len(present)) == i, -np.inf, similarity[i])
        nearest = int(np.argmax(others))
        neighbor = (names[present[nearest]], f"{others[nearest]:.3f}")
        if len(present) == 1:
            neighbor = (MISSING, MISSING)
        size = int((groups == group).sum())
        rows.append((names[group], size, f"{similarity[i, i]:.3f}", *neighbor))
    return Table(("group", "images", "cosine within", "nearest group", "cosine to it"), rows)


def _is_collapsed(features: np.ndarray) -> bool:
    return bool(np.ptp(features, axis=0).max() < _COLLAPSE_TOLERANCE)


def _project(features: np.ndarray, method: str) -> tuple[np.ndarray, str]:
    """Returns coordinates [n, 2] and the title of the map."""
    if method == "umap":
        from umap import UMAP

        n_neighbors = min(15, len(features) - 1)
        umap = UMAP(n_neighbors=n_neighbors, random_state=0, n_jobs=1)
        return umap.fit_transform(features), f"UMAP ({n_neighbors} neighbors)"
    if method == "tsne":
        perplexity = min(30.0, math.floor((len(features) - 1) / 3))
        coordinates = TSNE(perplexity=perplexity, random_state=0).fit_transform(features)
        return coordinates, f"t-SNE (perplexity {perplexity:g})"
    pca = PCA(2, random_state=0).fit(features)
    first, second = pca.explained_variance_ratio_
    note = f"{first:.0%} and {second:.0%} of the variance"
    if _is_collapsed(features):
        note = "all features are the same: the representation has collapsed"
    return pca.transform(features), f"PCA ({note})"
