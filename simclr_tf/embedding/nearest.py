"""Nearest-neighbor search with a query image, listed and plotted."""

import math
import os
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from simclr_tf.data import ImageSource, sequential_batches
from simclr_tf.data.base import ArraySource
from simclr_tf.data.decoding import UnreadableImageError, check_image_header, decode_rgb
from simclr_tf.data.folder import FolderSource
from simclr_tf.embedding.embedded_dataset import (
    EmbeddedDataset,
    escape_control_chars,
    load_pictures,
)
from simclr_tf.errors import UserError
from simclr_tf.evaluation import knn
from simclr_tf.evaluation.features import FeatureExtractor
from simclr_tf.option_groups import MAX_PIXELS
from simclr_tf.utils.figures import new_figure
from simclr_tf.utils.files import atomic_path
from simclr_tf.utils.tables import format_table

_IDS_PER_BLOCK = 2**14
_COLUMNS = 6
_MAX_SIDE = 256  # pixels of an image in the plot
_LINE_CHARS, _MAX_LINES = 24, 6  # of a caption


@dataclass(frozen=True)
class Query:
    """Query image of a nearest-neighbor search: a row of the dataset, or a source of one image."""

    name: str
    position: int | None = None
    image: ImageSource | None = None


@dataclass(frozen=True)
class Neighbor:
    """A row of the dataset; `class_name` is None for a dataset without labels.

    >>> from simclr_tf.embedding.nearest import Neighbor
    >>> Neighbor(position=3, similarity=0.9, id="b/3.png", class_name="b").class_name
    'b'
    """

    position: int
    similarity: float
    id: str
    class_name: str | None


def resolve_query(
    query: str, source: ImageSource, storage_size: int, max_pixels: int = MAX_PIXELS
) -> Query:
    """Finds the query image that a user names: a row number, image file or ID, in this order.

    `storage_size` is the side in pixels to which `source` resizes images of varying size.
    """
    if query.isdecimal():
        if int(query) >= source.num_examples:
            raise UserError(
                f"--nearest={query}: expected a row from 0 to {source.num_examples - 1} of "
                f"{source.name}, or an image file. Fix: name one of them"
            )
        return Query(escape_control_chars(source.image_ids(np.array([int(query)]))[0]), int(query))
    path = os.path.expanduser(query)
    if os.path.isfile(path):
        name = escape_control_chars(os.path.basename(path))
        return Query(name, image=_open_image_file(path, source, storage_size, max_pixels))
    for start in range(0, source.num_examples, _IDS_PER_BLOCK):
        positions = np.arange(start, min(start + _IDS_PER_BLOCK, source.num_examples))
        for position, name in zip(positions, source.image_ids(positions), strict=True):
            if query in (name, escape_control_chars(name)):
                return Query(escape_control_chars(name), int(position))
    example = escape_control_chars(source.image_ids(np.array([0]))[0])
    raise UserError(
        f"--nearest={escape_control_chars(query)}: expected an image file, an ID of {source.name} "
        f"such as {example}, or a row from 0 to {source.num_examples - 1}. Fix: "
        "name one of them"
    )


def _open_image_file(
    path: str, source: ImageSource, storage_size: int, max_pixels: int
) -> ImageSource:
    """Reads the image as `source` would store it."""
    try:
        check_image_header(path, max_pixels)
        image = decode_rgb(tf.io.read_file(os.fsencode(path)))
    except (UnreadableImageError, OSError, tf.errors.OpError) as error:
        is_described = isinstance(error, UnreadableImageError)
        reason = str(error) if is_described else "cannot be read or decoded"
        raise UserError(
            f"--nearest={escape_control_chars(path)} {reason}. Fix: choose an image file, or an "
            f"image of {source.name}"
        ) from None
    resizes = "aspect" in sequential_batches(source, 1).element_spec
    if not resizes and tuple(image.shape) == source.image_shape:
        return ArraySource(path, image.numpy()[np.newaxis])
    directory, name = os.path.split(path)
    return FolderSource(path, directory, [name], storage_size)


def nearest_neighbors(
    dataset: EmbeddedDataset, query: Query, extract: FeatureExtractor, count: int
) -> list[Neighbor]:
    """Returns the `count` rows with the largest cosine similarity to the query, best first.

    A row of the dataset finds itself. `extract` computes the features of another image.
    """
    if query.image is None:
        query_features = np.array(dataset.features[query.position])[np.newaxis]
    else:
        query_features = extract(query.image).features
    similarity, positions = (
        values[0] for values in knn.nearest_neighbors(dataset.features, query_features, count)
    )
    names: Sequence[str | None] = dataset.class_names(positions) or [None] * count
    ids = dataset.image_ids(positions)
    rows = zip(positions.tolist(), similarity.tolist(), ids, names, strict=True)
    return [Neighbor(*row) for row in rows]


def nearest_others(
    features: np.ndarray, positions: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the `count` nearest neighbors of the rows `positions` [M] among all other rows.

    Returns (cosine similarity float32 [M, count], positions int64 [M, count]), best first.
    """
    similarity, found = knn.nearest_neighbors(features, features[positions], count + 1)
    drop = found == np.asarray(positions)[:, np.newaxis]
    # Duplicates can take the place of the query itself; then drop the last one.
    drop[~drop.any(axis=1), -1] = True
    return similarity[~drop].reshape(-1, count), found[~drop].reshape(-1, count)


def format_neighbors(query: str, neighbors: Sequence[Neighbor]) -> str:
    """Returns a table of rank, cosine similarity, ID and label."""
    rows = [
        (rank, f"{neighbor.similarity:.4f}", neighbor.id, neighbor.class_name or "")
        for rank, neighbor in enumerate(neighbors, 1)
    ]
    table = format_table(rows, ("", "cosine", "id", "label"), align="rrll")
    return f"nearest to {query}:\n" + "\n".join(line.rstrip() for line in table.splitlines())


def plot_neighbors(
    dataset: EmbeddedDataset, query: Query, neighbors: Sequence[Neighbor], path: Path
) -> None:
    """Writes a plot: the query, then its neighbors with similarity, label and ID."""
    positions = np.array([neighbor.position for neighbor in neighbors])
    images = load_pictures(dataset.source, positions, _MAX_SIDE)
    source = dataset.source if query.image is None else query.image
    (first,) = load_pictures(source, np.array([query.position or 0]), _MAX_SIDE).values()
    tiles = [(first, f"query\n{_wrap(query.name)}")]
    for neighbor in neighbors:
        lines = [f"{neighbor.similarity:.4f}", neighbor.class_name, neighbor.id]
        caption = "\n".join(_wrap(line) for line in lines if line)
        tiles.append((images[neighbor.position], caption))

    columns = min(_COLUMNS, len(tiles))
    num_rows = math.ceil(len(tiles) / columns)
    caption_height = 0.14 * max(caption.count("\n") + 1 for _, caption in tiles)  # inches
    size = (1.9 * columns, (1.9 + caption_height) * num_rows)
    figure, canvas = new_figure(*size)
    for number, (image, caption) in enumerate(tiles, 1):
        axes = figure.add_subplot(num_rows, columns, number)
        axes.imshow(image)
        axes.set_axis_off()
        # File names are arbitrary: a dollar sign does not start a formula.
        axes.set_title(caption, parse_math=False, fontsize=8)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font lacks some scripts
        canvas.print_png(temporary)


def _wrap(text: str) -> str:
    """Breaks a caption into lines; of a very long one, the middle is left out."""
    lines = textwrap.wrap(text, _LINE_CHARS, break_on_hyphens=False, drop_whitespace=False)
    if len(lines) > _MAX_LINES:
        lines = [*lines[:2], "…", *lines[3 - _MAX_LINES :]]
    return "\n".join(lines)
