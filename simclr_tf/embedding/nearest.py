"""The images whose features are nearest to those of one image, listed and in a picture."""

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simclr_tf.data import ImageSource, batches_at, decode_errors_name_image
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset
from simclr_tf.embedding.query import Query
from simclr_tf.evaluation import knn
from simclr_tf.evaluation.features import FeatureExtractor
from simclr_tf.utils.files import atomic_write

_COLUMNS = 6
_LETTERS = 22  # of a name, under a picture


@dataclass(frozen=True)
class Neighbor:
    """A row that is near; `class_name` is None where the set has no labels."""

    position: int
    similarity: float
    id: str
    class_name: str | None


def nearest_neighbors(
    rows: EmbeddedDataset, query: Query, extract: FeatureExtractor, count: int
) -> list[Neighbor]:
    """Return the rows with the largest cosine to the query, best first, itself among them.

    Args:
        rows: what is searched, a block at a time.
        query: an image of the set or another.
        extract: gives the features of another, as it gave those of the rows.
        count: how many, from 1 to the number of rows.
    """
    if query.image is None:
        wanted = np.array(rows.features[query.position])[np.newaxis]
    else:
        wanted = extract(query.image).features
    similarity, found = (part[0] for part in knn.nearest_neighbors(rows.features, wanted, count))
    names: Sequence[str | None] = rows.class_names(found) or [None] * count
    parts = zip(found.tolist(), similarity.tolist(), rows.image_ids(found), names, strict=True)
    return [Neighbor(*part) for part in parts]


def format_neighbors(query: Query, found: list[Neighbor]) -> str:
    """Return a table of similarity, id and label for the terminal."""
    width = max(len(neighbour.id) for neighbour in found)
    lines = [f"nearest to {query.name}, by cosine:"]
    for rank, neighbour in enumerate(found, 1):
        name = f"{neighbour.id:<{width}}  {neighbour.class_name or ''}".rstrip()
        lines.append(f"{rank:4}  {neighbour.similarity:7.4f}  {name}")
    return "\n".join(lines)


def plot_neighbors(rows: EmbeddedDataset, query: Query, found: list[Neighbor], path: Path) -> None:
    """Write a picture: the query, then its neighbours with similarity, label and id.

    Raises:
        UserError: an image cannot be read.
    """
    positions = {neighbour.position for neighbour in found}
    if query.position is not None:
        positions.add(query.position)
    order = np.array(sorted(positions))
    images = dict(zip(order.tolist(), _images(rows.source, order), strict=True))
    first = _images(query.image, np.array([0]))[0] if query.image else images[query.position]
    tiles = [(first, f"query\n{_short(query.name)}")]
    for neighbour in found:
        words = [f"{neighbour.similarity:.4f}", neighbour.class_name, neighbour.id]
        tiles.append(
            (images[neighbour.position], "\n".join(_short(word) for word in words if word))
        )

    columns = min(_COLUMNS, len(tiles))
    lines = math.ceil(len(tiles) / columns)
    figure = Figure(figsize=(1.9 * columns, 2.4 * lines), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for place, ((image, aspect), caption) in enumerate(tiles, 1):
        axes = figure.add_subplot(lines, columns, place)
        axes.imshow(image, aspect=1 / aspect)  # in the original's proportions
        axes.set_axis_off()
        # Names are strangers': a dollar sign is no formula.
        axes.set_title(caption, parse_math=False, fontsize=8)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # not every script is in the font
        canvas.print_png(file)
    atomic_write(path, file.getvalue())


def _images(source: ImageSource, positions: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Images uint8 [H, W, 3] with width / height of the original over that of the image."""
    found: list[tuple[np.ndarray, float]] = []
    with decode_errors_name_image(source):
        for batch in batches_at(source, positions, len(positions)):
            images = batch["image"].numpy()
            aspects = batch["aspect"].numpy() if "aspect" in batch else np.ones(len(images))
            found += zip(images, aspects.tolist(), strict=True)
    return found


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else f"…{name[1 - _LETTERS :]}"
