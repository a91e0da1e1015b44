"""Report sections that show images: nearest neighbors and positive pairs.

The sections are dictionaries that the templates read. An image that cannot be read is a UserError.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import tensorflow as tf

from simclr_tf.augment import eval_transform, to_uint8, view_seed
from simclr_tf.data import batches_at, decode_errors_name_image
from simclr_tf.embedding.nearest import nearest_others
from simclr_tf.evaluation.features import FeatureExtractor, trace_per_shape
from simclr_tf.evaluation.knn import nearest_neighbors
from simclr_tf.losses import l2_normalize
from simclr_tf.models import Classifier, SimCLR
from simclr_tf.reporting.embedded_split import EmbeddedSplit, jpeg_data_uri
from simclr_tf.reporting.html import LEGEND, Plot, Table

_NUM_QUERIES = 8
_NUM_NEIGHBORS = 6
_NUM_PAIRS = 12
_BATCH_SIZE = 128


def find_nearest_neighbors(
    bank: EmbeddedSplit, test: EmbeddedSplit | None, image_size: int
) -> list[dict[str, Any]]:
    """Finds the nearest neighbors in `bank` of evenly spaced query images.

    Queries are images of `test`, or of `bank` without finding themselves. Pixels are compared at
    side `image_size` by their Euclidean distance in [0, 1].

    Returns {"query": picture, "by_features": pictures, "by_pixels": pictures}, best first.
    """
    query_split = test or bank
    queries = query_split.evenly_spaced_sample(_NUM_QUERIES)
    count = min(_NUM_NEIGHBORS, len(bank) - (test is None))
    if not count:
        return []
    distances = _pixel_distances(bank, query_split, queries, image_size)
    if test is None:
        similarity, by_features = nearest_others(bank.rows.features, queries, count)
        distances[queries, np.arange(len(queries))] = np.inf
    else:
        similarity, by_features = nearest_neighbors(
            bank.rows.features, test.rows.features[queries], count
        )
    by_pixels = np.argsort(distances, axis=0, kind="stable")[:count].T
    pictures = bank.pictures(np.concatenate([by_features.ravel(), by_pixels.ravel()]))
    query_pictures = query_split.pictures(queries)
    rows = []
    for i, query in enumerate(queries.tolist()):
        query_class = _class_name(query_split, query)
        row = {
            "query": _picture(query_split, query, query_pictures),
            "by_features": [
                _picture(bank, position, pictures, f"cosine {cosine:.3f}", query_class)
                for position, cosine in zip(by_features[i].tolist(), similarity[i], strict=True)
            ],
            "by_pixels": [
                _picture(bank, j, pictures, f"distance {distances[j, i]:.2f}", query_class)
                for j in by_pixels[i].tolist()
            ],
        }
        rows.append(row)
    return rows


def _pixel_distances(
    bank: EmbeddedSplit, query_split: EmbeddedSplit, queries: np.ndarray, size: int
) -> np.ndarray:
    """Returns Euclidean distances float32 [N, M] of the bank's images to M queries."""
    source = query_split.rows.source
    with decode_errors_name_image(source):
        (batch,) = batches_at(source, queries, len(queries))
    query_pixels = _flatten(eval_transform(batch["image"], size, batch.get("aspect")))

    def distances(images: tf.Tensor, training: bool) -> tf.Tensor:
        del training
        pixels = _flatten(images)
        norms, query_norms = (tf.reduce_sum(x * x, axis=1) for x in (pixels, query_pixels))
        product = tf.matmul(pixels, query_pixels, transpose_b=True)
        return tf.sqrt(tf.maximum(norms[:, tf.newaxis] + query_norms - 2 * product, 0))

    return FeatureExtractor(distances, size)(bank.rows.source).features.copy()


def _flatten(images: tf.Tensor) -> tf.Tensor:
    # float64, so that equal images have distance 0 in spite of the subtraction.
    return tf.cast(tf.reshape(images, [-1, int(np.prod(images.shape[1:]))]), tf.float64)


def _class_name(split: EmbeddedSplit, position: int) -> str | None:
    names = split.rows.class_names(np.array([position]))
    return names[0] if names else None


def _picture(
    split: EmbeddedSplit,
    position: int,
    pictures: dict[int, np.ndarray],
    value: str = "",
    query_class: str | None = None,
) -> dict[str, Any]:
    """Returns an image with its caption; "same_class" as the query is None if unknown."""
    group = _class_name(split, position) or ""
    (name,) = split.rows.image_ids(np.array([position]))
    return {
        "uri": jpeg_data_uri(pictures[position]),
        "name": name,
        "group": group,
        "value": value,
        "same_class": group == query_class if group and query_class else None,
    }


def make_pair(
    images: Sequence[np.ndarray], names: Sequence[str], value: str, note: str = ""
) -> dict[str, Any]:
    """Returns two images with their caption."""
    return {"uris": [*map(jpeg_data_uri, images)], "names": names, "value": value, "note": note}


def score_positive_pairs(
    model: SimCLR | Classifier, split: EmbeddedSplit, max_images: int, batch_size: int = _BATCH_SIZE
) -> dict[str, Any]:
    """Computes the cosine similarity of two views of each of at most `max_images` images.

    The views are the first two of training step 0. Cosines are those of the projections (of a
    classifier: of the features) in inference mode; negative pairs are views of two successive
    images.

    Returns {"plot": histogram, "worst": the least similar pairs, "images": description}.
    """
    positions = split.evenly_spaced_sample(max_images)
    source = split.rows.source
    policies = (model.policies * 2)[:2]

    def compare(images, aspect, offset):
        views = [
            policy(images, view_seed(model.seed, 0, view), offset, aspect)
            for view, policy in enumerate(policies)
        ]
        return views, [_represent(model, view) for view in views]

    run = trace_per_shape(compare)
    first, second = [], []
    worst: list[tuple[float, int, tuple[np.ndarray, np.ndarray]]] = []
    offset = 0
    with decode_errors_name_image(source):
        for batch in batches_at(source, positions, batch_size):
            views, outputs = run(batch["image"], batch.get("aspect"), tf.constant(offset))
            first.append(outputs[0].numpy())
            second.append(outputs[1].numpy())
            cosines = np.sum(first[-1] * second[-1], axis=1)
            images = list(zip(*(to_uint8(view) for view in views), strict=True))
            worst += zip(cosines.tolist(), positions[offset:], images, strict=False)
            worst = sorted(worst, key=lambda pair: pair[0])[:_NUM_PAIRS]
            offset += len(cosines)
    z_a, z_b = np.concatenate(first), np.concatenate(second)
    positive = np.sum(z_a * z_b, axis=1)
    negative = np.sum(z_a * np.roll(z_b, 1, axis=0), axis=1)[: len(z_a) if len(z_a) > 1 else 0]
    description = f"{len(positions):,} of {split.total:,} images of {split.split}"
    names = split.rows.image_ids(np.array([position for _, position, _ in worst]))
    pairs = [
        make_pair(views, (name,), f"cosine {cosine:.3f}")
        for (cosine, _, views), name in zip(worst, names, strict=True)
    ]
    plot = _plot_histogram(positive, negative, description)
    return {"plot": plot, "worst": pairs, "images": description}


def _represent(model: SimCLR | Classifier, views: tf.Tensor) -> tf.Tensor:
    outputs = model.encoder(views, training=False)
    if isinstance(model, SimCLR):
        outputs = model.projection_head(outputs, training=False)
    return l2_normalize(tf.cast(outputs, tf.float32))


def _plot_histogram(positive: np.ndarray, negative: np.ndarray, images: str) -> Plot:
    figure = go.Figure()
    edges = np.linspace(-1, 1, 81)
    centers = ((edges[1:] + edges[:-1]) / 2).tolist()
    rows = []
    for name, cosines in (("two views of one image", positive), ("views of two images", negative)):
        if not len(cosines):
            continue
        fractions = np.histogram(np.clip(cosines, -1, 1), edges)[0] / len(cosines)
        figure.add_bar(
            x=centers,
            y=fractions.tolist(),
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
        yaxis={"title": "fraction of pairs", "tickformat": ".0%"},
        legend=LEGEND,
        margin={"l": 56, "r": 12, "t": 40, "b": 40},
    )
    medians = "; ".join(f"{row[0]}: median {row[3]}" for row in rows)
    label = f"Histogram of the cosines of pairs, {images}. {medians}."
    table = Table(("pairs", "number", "5th percentile", "median", "95th percentile"), rows)
    return Plot("positives", "Similarity of views", label, figure, table)
