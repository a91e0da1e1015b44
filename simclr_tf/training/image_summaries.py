"""Images of nearest neighbors and similarities for TensorBoard."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from simclr_tf.data import ImageSource, batches_at
from simclr_tf.data.base import ArraySource, IndexedSource
from simclr_tf.data.in_memory import load_into_memory
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset, evenly_spaced_sample
from simclr_tf.embedding.nearest import nearest_others
from simclr_tf.embedding.projector import write_projector
from simclr_tf.evaluation import FeatureExtractor
from simclr_tf.losses import l2_normalize
from simclr_tf.models import SimCLR
from simclr_tf.models.multi_view import MultiViewModel, eager_functions
from simclr_tf.utils.figures import new_figure

_NUM_QUERIES, _NUM_NEIGHBORS = 10, 8
_TILE_SIDE = 64
_FRAME_WIDTH = 3
_SAME_CLASS, _OTHER_CLASS = (0, 114, 178), (230, 159, 0)  # blue, orange
_UNKNOWN_CLASS = (255, 255, 255)


class EmbeddingSummaries:
    """Evaluator that plots the embedding of a fixed sample of the training images.

    It returns two images. `nearest_neighbours`: in each row an image and its eight nearest
    neighbors in the sample, by cosine similarity of the features, with a blue frame if they are of
    the same class and an orange one if not. `similarity_matrix`: cosine similarities of the
    projections (of a classifier, the features) of two views of `matrix_size` images, sorted by
    class. It also writes the sample for TensorBoard's embedding projector to `directory`.

    The sample is evenly spaced if the images can be read in any order; otherwise it consists of the
    first ones. It has at most `max_images`, and at most `max_bytes` unless that is less than
    `matrix_size` images.
    """

    def __init__(
        self,
        source: ImageSource,
        image_size: int,
        directory: Path,
        *,
        max_images: int = 1000,
        max_bytes: int = 2**27,
        matrix_size: int = 32,
    ):
        self._source, self._image_size, self._directory = source, image_size, directory
        self._max_images, self._max_bytes = max_images, max_bytes
        self._matrix_size = matrix_size
        self._sample: ArraySource | None = None
        self._extract: FeatureExtractor | None = None

    def __call__(self, model: MultiViewModel, is_last: bool = False) -> dict[str, np.ndarray]:
        if self._sample is None or self._extract is None:  # its graph serves all calls
            self._sample = self._load_sample()
            self._extract = FeatureExtractor(
                model.encoder, self._image_size, min(256, self._sample.num_examples)
            )
        features = self._extract(self._sample)
        rows = EmbeddedDataset(self._sample, features.features, features.labels)
        self._write_projector(rows)
        matrix = similarity_matrix(model, rows, self._matrix_size)
        images = {"similarity_matrix": _plot_matrix(matrix)}
        if len(rows) > 1:
            images["nearest_neighbours"] = neighbor_grid(rows)
        return images

    def _load_sample(self) -> ArraySource:
        source = self._source
        max_fitting = self._max_bytes // int(np.prod(source.image_shape))
        count = min(self._max_images, max(self._matrix_size, max_fitting), source.num_examples)
        # A stream would be read up to the last sampled image; it was shuffled when written.
        pool = source.num_examples if isinstance(source, IndexedSource) else count
        return load_into_memory(source.subset(evenly_spaced_sample(pool, count)))

    def _write_projector(self, rows):
        # TensorBoard expects the files next to the events, in a directory that cannot be replaced.
        projector_dir = self._directory / "projector"
        write_projector(rows, projector_dir, len(rows))
        for file in sorted(projector_dir.iterdir()):
            os.replace(file, self._directory / file.name)
        projector_dir.rmdir()


def neighbor_grid(rows: EmbeddedDataset) -> np.ndarray:
    """Returns an image uint8 [H, W, 3] of queries among at least 2 rows, and their neighbors."""
    queries = evenly_spaced_sample(len(rows), _NUM_QUERIES)
    count = min(_NUM_NEIGHBORS, len(rows) - 1)
    _, nearest = nearest_others(rows.features, queries, count)
    lines = np.concatenate([queries[:, np.newaxis], nearest], axis=1).tolist()
    images = rows.images(np.array(lines), min(_TILE_SIDE, *rows.source.image_shape[:2]))
    tiles = [
        [_add_frame(images[i], _frame_color(rows.labels, line[0], i)) for i in line]
        for line in lines
    ]
    return np.concatenate([np.concatenate(line, axis=1) for line in tiles])


def _frame_color(labels, query, other):
    if query == other or labels.ndim > 1 or labels[query] < 0 or labels[other] < 0:
        return _UNKNOWN_CLASS
    return _SAME_CLASS if labels[query] == labels[other] else _OTHER_CLASS


def _add_frame(image, color):
    scale = -(-_TILE_SIDE // len(image))  # enlarges small images
    large = image.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width, _ = large.shape
    margin = 2 * _FRAME_WIDTH
    framed = np.full((height + 2 * margin, width + 2 * margin, 3), 255, np.uint8)
    framed[_FRAME_WIDTH:-_FRAME_WIDTH, _FRAME_WIDTH:-_FRAME_WIDTH] = color
    framed[margin:-margin, margin:-margin] = large
    return framed


def similarity_matrix(model: MultiViewModel, rows: EmbeddedDataset, size: int = 32) -> np.ndarray:
    """Returns cosine similarities [n, n] of the first view of n images with the last view of each.

    If the views have several sizes, the last view of the first size. The images, at most `size`,
    are evenly spaced and sorted by class.
    """
    positions = evenly_spaced_sample(len(rows), size)
    (batch,) = batches_at(rows.source, positions, len(positions))
    with eager_functions():
        views = tf.nest.flatten(model.make_views(batch, 0, offset=0))[0]
    project = model if isinstance(model, SimCLR) else model.encoder
    z = l2_normalize(tf.cast(project(views, training=False), tf.float32)).numpy()
    order = np.arange(len(positions))
    if rows.labels.ndim == 1:
        order = np.argsort(rows.labels[positions], kind="stable")
    return z[: len(order)][order] @ z[-len(order) :][order].T


def _plot_matrix(matrix):
    figure, canvas = new_figure(5, 4.2)
    axes = figure.add_subplot()
    image = axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
    figure.colorbar(image, label="cosine similarity")
    axes.set(xlabel="image, last view", ylabel="image, first view")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
