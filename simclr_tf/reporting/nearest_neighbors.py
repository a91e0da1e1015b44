"""Nearest neighbours of some images: by their features, and beside them by their pixels."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from simclr_tf.augment import eval_transform
from simclr_tf.data import batches_at, decode_errors_name_image
from simclr_tf.evaluation.features import Encoder, FeatureExtractor
from simclr_tf.evaluation.knn import nearest_neighbors
from simclr_tf.reporting.embedded_split import EmbeddedSplit, Say, data_uri, seen

QUERIES = 8
_NEIGHBOURS = 6


@dataclass(frozen=True)
class Picture:
    """An image with what is said of it; `alike` is whether it is of the query's class, if known."""

    uri: str
    name: str
    group: str
    figure: str = ""
    alike: bool | None = None


@dataclass(frozen=True)
class NeighborRow:
    """A query, and the images nearest to it, best first."""

    query: Picture
    by_features: list[Picture]
    by_pixels: list[Picture]


def find_nearest_neighbors(
    bank: EmbeddedSplit, judged: EmbeddedSplit | None, image_size: int, say: Say
) -> list[NeighborRow]:
    """Return what is near to a few images, evenly spaced.

    Args:
        bank: the images that are searched.
        judged: those that the queries are of; None: of the bank, and no image is its own neighbour.
        image_size: S, at which pixels are compared: by their Euclidean distance in [0, 1].
        say: takes the lines of progress.

    Raises:
        UserError: an image cannot be read.
    """
    asked = judged or bank
    queries = asked.evenly_spaced_sample(QUERIES)
    itself = None if judged else queries
    count = min(_NEIGHBOURS, len(bank) - (judged is None))
    if not count:
        return []
    alike, features = _best(bank.rows.features, asked.rows.features[queries], count, itself)
    distances = _pixel_distances(bank, asked, queries, image_size, say)
    if itself is not None:
        distances[itself, np.arange(len(queries))] = np.inf
    pixels = np.argsort(distances, axis=0, kind="stable")[:count].T

    found = seen(bank.rows, np.concatenate([features.ravel(), pixels.ravel()]))
    pictures = seen(asked.rows, queries)
    result = []
    for i, query in enumerate(queries.tolist()):
        group = _group(asked, query)
        near = [
            _picture(bank, place, found, group, f"cosine {cosine:.3f}")
            for place, cosine in zip(features[i].tolist(), alike[i], strict=True)
        ]
        beside = [
            _picture(bank, place, found, group, f"distance {distances[place, i]:.2f}")
            for place in pixels[i].tolist()
        ]
        result.append(NeighborRow(_picture(asked, query, pictures, None, ""), near, beside))
    return result


def _best(
    bank: np.ndarray, queries: np.ndarray, count: int, itself: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(cosine, row) [M, count] of the nearest, without the queries' own rows in the bank."""
    if itself is None:
        return nearest_neighbors(bank, queries, count)
    similarity, rows = nearest_neighbors(bank, queries, count + 1)
    return drop_self(similarity, rows, itself)


def drop_self(
    similarity: np.ndarray, rows: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return neighbours [M, k + 1] without each query's own row [M], as [M, k].

    Where images are equal, so that an own row is not among them, the last one goes.
    """
    drop = rows == own[:, np.newaxis]
    drop[~drop.any(axis=1), -1] = True
    shape = (len(rows), -1)
    return similarity[~drop].reshape(shape), rows[~drop].reshape(shape)


def _pixel_distances(
    bank: EmbeddedSplit, asked: EmbeddedSplit, queries: np.ndarray, size: int, say: Say
) -> np.ndarray:
    """Euclidean distances float32 [N, M] of the bank's images to the queries, at size × size."""
    source = asked.rows.source
    with decode_errors_name_image(source):
        (batch,) = batches_at(source, queries, len(queries))
    wanted = _flat(eval_transform(batch["image"], size, batch.get("aspect")))
    return FeatureExtractor(_distance_to(wanted), size)(bank.rows.source).features.copy()


def _distance_to(wanted: tf.Tensor) -> Encoder:
    def distances(images: tf.Tensor, training: bool) -> tf.Tensor:
        del training
        pixels = _flat(images)
        mine, theirs = (tf.reduce_sum(x * x, axis=1) for x in (pixels, wanted))
        product = tf.matmul(pixels, wanted, transpose_b=True)
        return tf.sqrt(tf.maximum(mine[:, tf.newaxis] + theirs - 2 * product, 0))

    return distances


def _flat(images: tf.Tensor) -> tf.Tensor:
    # In float64, in which images that are equal are so after the subtraction, too.
    return tf.cast(tf.reshape(images, [-1, int(np.prod(images.shape[1:]))]), tf.float64)


def _group(looked: EmbeddedSplit, position: int) -> str | None:
    names = looked.rows.class_names(np.array([position]))
    return names[0] if names else None


def _picture(
    looked: EmbeddedSplit, position: int, found: dict[int, np.ndarray], of: str | None, figure: str
) -> Picture:
    """An image of a set; `of` is the class of its query."""
    group = _group(looked, position)
    (name,) = looked.rows.image_ids(np.array([position]))
    alike = group == of if group and of else None
    return Picture(data_uri(found[position]), name, group or "", figure, alike)
