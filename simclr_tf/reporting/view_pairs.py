"""Pairs: views of one image that the model finds least alike, and images that it finds the same."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import tensorflow as tf

from simclr_tf.augment import to_uint8, view_seed
from simclr_tf.data import batches_at, decode_errors_name_image
from simclr_tf.evaluation.features import trace_per_shape
from simclr_tf.evaluation.knn import l2_normalize_rows, nearest_neighbors
from simclr_tf.losses import l2_normalize
from simclr_tf.models import Classifier, SimCLR
from simclr_tf.reporting.embedded_split import EmbeddedSplit, data_uri, seen
from simclr_tf.reporting.html import LEGEND, Plot, Table

_BATCH = 128
_SHOWN = 12
_CANDIDATES = 100  # pairs whose pixels are compared
_SAME = 1.0  # mean difference of bytes below which two images have the same pixels


@dataclass(frozen=True)
class Pair:
    """Two pictures, with what they are called and how alike they are."""

    uris: tuple[str, str]
    names: tuple[str, ...]
    figure: str
    note: str = ""


@dataclass(frozen=True)
class PositivePairs:
    """Positive pairs: how alike they are to the model, and those that are least so."""

    plot: Plot
    worst: list[Pair]
    images: str


def score_positive_pairs(
    model: SimCLR | Classifier, looked: EmbeddedSplit, most: int
) -> PositivePairs:
    """Return what the model makes of two views of each of up to `most` images.

    The views are drawn as in training, for step 0. Cosines are of the projections, of a classifier
    of its features, in inference mode; negatives are views of two successive images.

    Raises:
        UserError: an image cannot be read.
    """
    positions = looked.evenly_spaced_sample(most)
    source = looked.rows.source
    policies = model.policies[0], model.policies[-1]

    def compare(images, aspect, offset):
        views = [
            policy(images, view_seed(model.seed, 0, view), offset, aspect)
            for view, policy in enumerate(policies)
        ]
        outputs = [_represent(model, view) for view in views]
        return views, outputs

    run = trace_per_shape(compare)
    first, second = [], []
    worst: list[tuple[float, int, tuple[np.ndarray, np.ndarray]]] = []
    offset = 0
    with decode_errors_name_image(source):
        for batch in batches_at(source, positions, _BATCH):
            views, outputs = run(batch["image"], batch.get("aspect"), tf.constant(offset))
            first.append(outputs[0].numpy())
            second.append(outputs[1].numpy())
            cosines = np.sum(first[-1] * second[-1], axis=1)
            pictures = list(zip(*(to_uint8(view) for view in views), strict=True))
            worst += zip(cosines.tolist(), positions[offset:], pictures, strict=False)
            worst = sorted(worst, key=lambda found: found[0])[:_SHOWN]
            offset += len(cosines)
    z_a, z_b = np.concatenate(first), np.concatenate(second)
    positive = np.sum(z_a * z_b, axis=1)
    negative = np.sum(z_a * np.roll(z_b, 1, axis=0), axis=1)[: len(z_a) if len(z_a) > 1 else 0]
    images = f"{len(positions):,} of {looked.total:,} images of {looked.split}"
    names = looked.rows.image_ids(np.array([place for _, place, _ in worst]))
    pairs = [
        Pair((data_uri(a), data_uri(b)), (name,), f"cosine {cosine:.3f}")
        for (cosine, _, (a, b)), name in zip(worst, names, strict=True)
    ]
    return PositivePairs(_histogram(positive, negative, images), pairs, images)


def _represent(model: SimCLR | Classifier, views: tf.Tensor) -> tf.Tensor:
    outputs = model.encoder(views, training=False)
    if isinstance(model, SimCLR):
        outputs = model.projection_head(outputs, training=False)
    return l2_normalize(tf.cast(outputs, tf.float32))


def _histogram(positive: np.ndarray, negative: np.ndarray, images: str) -> Plot:
    figure = go.Figure()
    edges = np.linspace(-1, 1, 81)
    middles = ((edges[1:] + edges[:-1]) / 2).tolist()
    rows = []
    for name, cosines in (("two views of one image", positive), ("views of two images", negative)):
        if not len(cosines):
            continue
        shares = np.histogram(np.clip(cosines, -1, 1), edges)[0] / len(cosines)
        figure.add_bar(
            x=middles,
            y=shares.tolist(),
            name=name,
            opacity=0.65,
            hovertemplate="cosine %{x:.2f}: %{y:.1%}",
        )
        quantiles = np.quantile(cosines, (0.05, 0.5, 0.95))
        rows.append((name, len(cosines), *(f"{q:.3f}" for q in quantiles)))
    figure.update_layout(
        barmode="overlay",
        bargap=0,
        xaxis_title="cosine",
        yaxis={"title": "share of pairs", "tickformat": ".0%"},
        legend=LEGEND,
        margin={"l": 56, "r": 12, "t": 40, "b": 40},
    )
    said = "; ".join(f"{row[0]}: median {row[3]}" for row in rows)
    label = f"Histogram of the cosines of pairs, {images}. {said}."
    table = Table(("pairs", "number", "5 % below", "median", "95 % below"), rows)
    return Plot("positives", "How alike views are", label, figure, table)


@dataclass(frozen=True)
class Duplicates:
    """Images whose features are nearly the same.

    Attributes:
        pairs: the most alike.
        compared: how many pairs had their pixels compared.
        same: how many of these have the same pixels, or nearly.
        across: how many of these have one image in each split.
        images: among which images they were looked for, in words.
    """

    pairs: list[Pair]
    compared: int
    same: int
    across: int
    images: str


def find_duplicates(sets: list[EmbeddedSplit], image_size: int) -> Duplicates:
    """Return the pairs with the largest cosine of their features, of all sets together.

    Raises:
        UserError: an image cannot be read.
    """
    features = np.concatenate([looked.rows.features for looked in sets])
    images = " and ".join(map(str, sets))
    if len(features) < 2:
        return Duplicates([], 0, 0, 0, images)
    _, nearest = nearest_neighbors(features, features, 2)
    own = np.arange(len(features))
    partner = np.where(nearest[:, 0] == own, nearest[:, 1], nearest[:, 0])
    pairs = np.unique(np.sort(np.stack([own, partner], axis=1), axis=1), axis=0)
    unit = l2_normalize_rows(features)
    cosines = np.einsum("nd,nd->n", unit[pairs[:, 0]], unit[pairs[:, 1]])
    best = np.argsort(-cosines, kind="stable")[:_CANDIDATES]
    pairs, cosines = pairs[best], cosines[best]

    starts = np.cumsum([0, *map(len, sets)])
    pixels: dict[int, np.ndarray] = {}
    names: dict[int, str] = {}
    for looked, start in zip(sets, starts, strict=False):
        mine = np.unique(pairs[(pairs >= start) & (pairs < start + len(looked))])
        if not len(mine):
            continue
        found = seen(looked.rows, mine - start, image_size)
        pixels |= {place + int(start): picture for place, picture in found.items()}
        names |= dict(zip(mine.tolist(), looked.rows.image_ids(mine - start), strict=True))
    differences = [
        float(np.abs(pixels[a].astype(np.float32) - pixels[b]).mean()) for a, b in pairs.tolist()
    ]
    across = (pairs[:, 0] < starts[1]) & (pairs[:, 1] >= starts[1])
    shown = [
        Pair(
            (data_uri(pixels[a]), data_uri(pixels[b])),
            (names[a], names[b]),
            f"cosine {cosine:.4f}, pixels differ by {difference:.1f} of 255",
            "in both splits" if crossing else "",
        )
        for (a, b), cosine, difference, crossing in zip(
            pairs.tolist()[:_SHOWN], cosines, differences, across, strict=False
        )
    ]
    same = sum(difference < _SAME for difference in differences)
    return Duplicates(shown, len(pairs), same, int(across.sum()), images)
