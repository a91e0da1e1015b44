"""Features of a dataset together with the images, IDs and labels behind them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from simclr_tf.augment import eval_transform, to_uint8
from simclr_tf.data import ImageSource, batches_at, decode_errors_name_image

_BATCH_SIZE = 256
# Characters that end a line or a field, or that UTF-8 cannot encode; and the escape itself.
_UNSAFE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class EmbeddedDataset:
    """Features of a source, row by row.

    >>> import numpy as np
    >>> import simclr_tf as st
    >>> from simclr_tf.embedding.embedded_dataset import EmbeddedDataset
    >>> source = st.data.open_source("shapes", "test[:2]")
    >>> dataset = EmbeddedDataset(source, np.zeros((2, 8), np.float32), source.labels())
    >>> dataset.images(np.array([1]), size=16)[1].shape
    (16, 16, 3)

    Attributes:
        source: the images.
        features: float32 [N, D], possibly memory-mapped.
        labels: int64 [N] or [N, C], as in `evaluation.features.Features`.
        max_block_rows: maximum number of rows that are processed together.
        max_block_bytes: maximum size of their features.
    """

    source: ImageSource
    features: np.ndarray
    labels: np.ndarray
    max_block_rows: int = 2**14
    max_block_bytes: int = 2**26

    def __len__(self) -> int:
        """Returns N."""
        return len(self.features)

    def image_ids(self, positions: np.ndarray) -> list[str]:
        """Returns the IDs of rows, each as one line of UTF-8."""
        return [escape_control_chars(name) for name in self.source.image_ids(positions)]

    def class_names(self, positions: np.ndarray) -> list[str] | None:
        """Returns the class names of rows, or None for a source without labels.

        The name is "" for a row without a label; multiple names are joined with `|`.
        """
        if not self.source.class_names:
            return None
        names = tuple(map(escape_control_chars, self.source.class_names))
        labels = self.labels[positions]
        if labels.ndim == 1:
            return [names[label] if label >= 0 else "" for label in labels]
        return ["|".join(names[i] for i in np.flatnonzero(row)) for row in labels]

    def images(self, positions: np.ndarray, size: int) -> dict[int, np.ndarray]:
        """Returns images as the encoder receives them, {position: uint8 [size, size, 3]}."""
        order = np.unique(positions)
        images: list[np.ndarray] = []
        with decode_errors_name_image(self.source):
            for batch in batches_at(self.source, order, _BATCH_SIZE):
                images += list(to_uint8(eval_transform(batch["image"], size, batch.get("aspect"))))
        return dict(zip(order.tolist(), images, strict=True))

    def iter_blocks(self) -> Iterator[np.ndarray]:
        """Yields the positions of successive blocks of rows."""
        fitting = self.max_block_bytes // self.features[0].nbytes
        count = max(1, min(self.max_block_rows, fitting))
        for start in range(0, len(self), count):
            yield np.arange(start, min(start + count, len(self)))


def load_pictures(
    source: ImageSource, positions: np.ndarray, max_side: int
) -> dict[int, np.ndarray]:
    """Returns whole images in their proportions, {position: uint8 [H, W, 3]}.

    Originals of varying size are reduced to `max_side`; images of one size are unchanged.
    """
    order = np.unique(positions)
    pictures: list[np.ndarray] = []
    source = source.with_storage_size(max_side)
    with decode_errors_name_image(source):
        for batch in batches_at(source, order, _BATCH_SIZE).as_numpy_iterator():
            aspects = batch.get("aspect", np.ones(len(batch["image"])))
            pictures += map(_restore_proportions, batch["image"], aspects)
    return dict(zip(order.tolist(), pictures, strict=True))


def _restore_proportions(square: np.ndarray, aspect: float) -> np.ndarray:
    """Reduces one side of an image that was resized to a square, with its original aspect."""
    if aspect == 1:
        return square
    height, width, _ = square.shape
    size = max(1, round(width * min(1, aspect))), max(1, round(height * min(1, 1 / aspect)))
    return np.asarray(Image.fromarray(square).resize(size, Image.Resampling.BICUBIC))


def evenly_spaced_sample(count: int, max_count: int) -> np.ndarray:
    """Returns positions below `count`, ascending: one from each of `max_count` equal intervals.

    The sample is always the same, and contains all positions if they are at most `max_count`.
    """
    if count <= max_count:
        return np.arange(count)
    # Integer arithmetic, so that no interval is empty.
    edges = np.arange(max_count + 1) * count // max_count
    return np.random.Generator(np.random.Philox(0)).integers(edges[:-1], edges[1:])


def escape_control_chars(name: str) -> str:
    """Returns a name with doubled backslashes and escaped control characters."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), name)
