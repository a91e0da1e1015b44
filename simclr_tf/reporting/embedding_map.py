"""The embedding in two dimensions, every point an image."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from simclr_tf.evaluation.knn import l2_normalize_rows
from simclr_tf.reporting.embedded_split import EmbeddedSplit, sprite_uri
from simclr_tf.reporting.html import LEGEND, Plot, Table, escape_for_plotly

_CLUSTERS = 10
_FEWEST = 5  # points that make a map
_SAME = 1e-6  # of features of unit length, a difference that is none
_MOST_NAMES = 40  # classes up to which there is a legend
# Colours come again after ten classes, with another of these.
_SYMBOLS = ("circle", "diamond", "cross", "square", "triangle-up", "star")


@dataclass(frozen=True)
class EmbeddingMap:
    """Maps of the same images.

    Attributes:
        plots: PCA, and what else was asked for.
        points: what the page shows of a point: the sprite, and of each image its name and group.
        grouping: what the colours are, in words.
        images: on how many images it was computed, in words.
    """

    plots: list[Plot]
    points: dict[str, Any]
    grouping: str
    images: str


def make_embedding_map(looked: EmbeddedSplit, method: str, most: int) -> EmbeddingMap | None:
    """Return maps of up to `most` images; None where there are too few.

    Coloured by class where each image has at most one, else by clusters of k-means.

    Raises:
        UserError: an image cannot be read.
    """
    positions = looked.evenly_spaced_sample(most)
    if len(positions) < _FEWEST:
        return None
    features = l2_normalize_rows(looked.rows.features[positions])
    names, groups, grouping = _groups(looked, positions, features)
    uri, columns = sprite_uri(looked.rows, positions)
    images = f"{len(positions):,} of {looked.total:,} images of {looked.split}"
    table = _distances(features, names, groups)
    plots = []
    # Of one point alone there is no other map, and t-SNE ends the process.
    for kind in dict.fromkeys(("pca", "pca" if _collapsed(features) else method)):
        # One thread: on few cores BLAS's and TensorFlow's wait for one another.
        with threadpool_limits(1, "blas"):
            places, title = _METHODS[kind](features)
        label = f"{title} of {images}, coloured by {grouping}. Arrow keys go from point to point."
        plots.append(Plot(f"map-{kind}", title, label, _scatter(places, names, groups), table))
    points = {
        "sprite": uri,
        "columns": columns,
        "ids": looked.rows.image_ids(positions),
        "groups": [names[group] if group >= 0 else "without a label" for group in groups],
    }
    return EmbeddingMap(plots, points, grouping, images)


def _groups(
    looked: EmbeddedSplit, positions: np.ndarray, features: np.ndarray
) -> tuple[Sequence[str], np.ndarray, str]:
    """(names of the groups, int [n] which of them a point is of or -1, what they are)."""
    labels = looked.rows.labels[positions]
    if looked.class_names and (labels >= 0).any():
        return looked.class_names, labels, "class"
    count = min(_CLUSTERS, len(features) // 2)
    with threadpool_limits(1, "blas"):
        groups = KMeans(count, n_init=4, random_state=0).fit_predict(features)
    names = [f"cluster {i + 1}" for i in range(count)]
    return names, groups, f"{count} clusters of k-means, for there are no classes to colour by"


def _scatter(places: np.ndarray, names: Sequence[str], groups: np.ndarray) -> go.Figure:
    figure = go.Figure()
    there = [group for group in range(-1, len(names)) if (groups == group).any()]
    for group in there:
        members = np.flatnonzero(groups == group)
        figure.add_scatter(
            x=places[members, 0].tolist(),
            y=places[members, 1].tolist(),
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
    bare = {"showticklabels": False, "showgrid": False, "zeroline": False}
    figure.update_layout(
        xaxis=bare,
        yaxis=bare | {"scaleanchor": "x"},
        showlegend=len(there) <= _MOST_NAMES,
        # Points in the legend stay large enough to load_run_info their colours.
        legend=LEGEND | {"itemsizing": "constant"},
        margin={"l": 8, "r": 8, "t": 40, "b": 8},
        height=560,
    )
    return figure


def _distances(features: np.ndarray, names: Sequence[str], groups: np.ndarray) -> Table:
    """What a map says, in numbers: how alike the images of a group are, and which is nearest."""
    there = [group for group in range(len(names)) if (groups == group).any()]
    means = np.stack([features[groups == group].mean(axis=0) for group in there])
    # The mean over all pairs of a group is the square of its mean feature.
    alike = means @ means.T
    rows = []
    for i, group in enumerate(there):
        others = np.where(np.arange(len(there)) == i, -np.inf, alike[i])
        nearest = int(np.argmax(others))
        beside = (names[there[nearest]], f"{others[nearest]:.3f}") if len(there) > 1 else ("–", "–")
        rows.append((names[group], int((groups == group).sum()), f"{alike[i, i]:.3f}", *beside))
    return Table(("group", "images", "cosine within", "nearest group", "cosine to it"), rows)


def _collapsed(features: np.ndarray) -> bool:
    return bool(np.ptp(features, axis=0).max() < _SAME)


def _pca(features: np.ndarray) -> tuple[np.ndarray, str]:
    pca = PCA(2, random_state=0).fit(features)
    first, second = pca.explained_variance_ratio_
    share = f"{first:.0%} and {second:.0%} of the variance"
    if _collapsed(features):
        share = "all features are the same: the representation has collapsed"
    return pca.transform(features), f"PCA ({share})"


def _umap(features: np.ndarray) -> tuple[np.ndarray, str]:
    from umap import UMAP

    near = min(15, len(features) - 1)
    places = UMAP(n_neighbors=near, random_state=0, n_jobs=1).fit_transform(features)
    return places, f"UMAP ({near} neighbours)"


def _tsne(features: np.ndarray) -> tuple[np.ndarray, str]:
    perplexity = min(30.0, math.floor((len(features) - 1) / 3))
    places = TSNE(perplexity=perplexity, random_state=0).fit_transform(features)
    return places, f"t-SNE (perplexity {perplexity:g})"


_METHODS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, str]]] = {
    "pca": _pca,
    "umap": _umap,
    "tsne": _tsne,
}
