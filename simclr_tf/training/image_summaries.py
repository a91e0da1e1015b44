"""Pictures of what an encoder finds alike, for TensorBoard."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simclr_tf.augment import eval_transform, to_uint8
from simclr_tf.data import ImageSource, batches_at
from simclr_tf.data.base import ArraySource, IndexedSource
from simclr_tf.data.cache import load_into_memory
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset
from simclr_tf.embedding.projector import evenly_spaced_sample, write_projector
from simclr_tf.evaluation import FeatureExtractor
from simclr_tf.evaluation.knn import nearest_neighbors
from simclr_tf.losses import l2_normalize
from simclr_tf.models import SimCLR
from simclr_tf.models.multi_view import MultiViewModel

_IMAGES, _BYTES = 1000, 2**27  # the most that are looked at, and that they take
_BATCH = 32  # images of the similarity matrix
_QUERIES, _NEIGHBOURS = 10, 8
_TILE = 64
_FRAME = 3
_SAME, _OTHER, _PLAIN = (0, 114, 178), (230, 159, 0), (255, 255, 255)  # blue, orange, white


class EmbeddingSummaries:
    """An evaluator: what the encoder makes of a fixed sample of up to 1000 training images.

    Gives `nearest_neighbours`, in each row an image and the eight nearest to it of the sample, by
    cosine of the features, framed blue where they are of its class and orange where not; and
    `similarity_matrix`, the cosines of the projections (of a classifier, the features) of two views
    of 32 images, in the order of their classes. Writes the sample for the embedding projector.

    Args:
        source: the training images. Of those that can be read in any order the sample is spread
            evenly over them, else it is the first of them.
        image_size: of the encoder.
        directory: TensorBoard's, which gets the projector's files.
    """

    def __init__(self, source: ImageSource, image_size: int, directory: Path):
        self._source, self._image_size, self._directory = source, image_size, directory
        self._sample: ArraySource | None = None
        self._extract: FeatureExtractor | None = None

    def __call__(self, model: MultiViewModel) -> dict[str, np.ndarray]:
        if self._sample is None or self._extract is None:  # kept: its graph serves all calls
            self._sample = _sample(self._source)
            self._extract = FeatureExtractor(
                model.encoder, self._image_size, min(256, self._sample.num_examples)
            )
        found = self._extract(self._sample)
        rows = EmbeddedDataset(self._sample, found.features, found.labels)
        self._write_projector(rows)
        pictures = {"similarity_matrix": _drawn(similarities(model, rows))}
        if len(rows) > 1:
            pictures["nearest_neighbours"] = neighbour_grid(rows)
        return pictures

    def _write_projector(self, rows):
        # TensorBoard looks for them beside the events, where a directory cannot be replaced.
        made = self._directory / "projector"
        write_projector(rows, made, len(rows))
        for file in sorted(made.iterdir()):
            os.replace(file, self._directory / file.name)
        made.rmdir()


def _sample(source: ImageSource) -> ArraySource:
    fitting = max(_BATCH, _BYTES // int(np.prod(source.image_shape)))
    count = min(_IMAGES, fitting, source.num_examples)
    # A stream would be read up to the last of them; it was shuffled when it was written.
    pool = source.num_examples if isinstance(source, IndexedSource) else count
    return load_into_memory(source.subset(evenly_spaced_sample(pool, count)))


def neighbour_grid(rows: EmbeddedDataset) -> np.ndarray:
    """Returns uint8 [H, W, 3]: lines of an image and those nearest to it; at least two rows."""
    queries = evenly_spaced_sample(len(rows), _QUERIES)
    count = min(_NEIGHBOURS, len(rows) - 1)
    _, near = nearest_neighbors(rows.features, rows.features[queries], count + 1)
    # Without itself, which duplicates may keep from being the first.
    lines = [
        [query, *[i for i in found if i != query][:count]]
        for query, found in zip(queries.tolist(), near.tolist(), strict=True)
    ]
    shown = np.unique(lines)
    (batch,) = batches_at(rows.source, shown, len(shown))
    side = min(_TILE, *rows.source.image_shape[:2])
    seen = to_uint8(eval_transform(batch["image"], side, batch.get("aspect")))
    images = dict(zip(shown.tolist(), seen, strict=True))
    tiles = [[_framed(images[i], _colour(rows.labels, line[0], i)) for i in line] for line in lines]
    return np.concatenate([np.concatenate(line, axis=1) for line in tiles])


def _colour(labels, query, other):
    if query == other or labels.ndim > 1 or labels[query] < 0 or labels[other] < 0:
        return _PLAIN
    return _SAME if labels[query] == labels[other] else _OTHER


def _framed(image, colour):
    scale = -(-_TILE // len(image))  # so that small ones can be seen
    large = image.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width, _ = large.shape
    framed = np.full((height + 4 * _FRAME, width + 4 * _FRAME, 3), 255, np.uint8)
    framed[_FRAME:-_FRAME, _FRAME:-_FRAME] = colour
    framed[2 * _FRAME : -2 * _FRAME, 2 * _FRAME : -2 * _FRAME] = large
    return framed


def similarities(model: MultiViewModel, rows: EmbeddedDataset) -> np.ndarray:
    """Returns cosines [n, n] of the first view of each of n images with the last of each."""
    positions = evenly_spaced_sample(len(rows), _BATCH)
    (batch,) = batches_at(rows.source, positions, len(positions))
    views = model.make_views(batch, 0, offset=0)
    of_views = model if isinstance(model, SimCLR) else model.encoder
    z = l2_normalize(tf.cast(of_views(views, training=False), tf.float32)).numpy()
    order = np.arange(len(positions))
    if rows.labels.ndim == 1:
        order = np.argsort(rows.labels[positions], kind="stable")
    return z[: len(order)][order] @ z[-len(order) :][order].T


def _drawn(matrix):
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    picture = axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
    figure.colorbar(picture, label="cosine")
    axes.set(xlabel="image, last view", ylabel="image, first view")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
