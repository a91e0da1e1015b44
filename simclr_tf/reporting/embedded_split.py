"""The images that a report looks at, and what the encoder makes of them."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from simclr_tf.augment import eval_transform, to_uint8
from simclr_tf.data import ImageSource, batches_at, decode_errors_name_image
from simclr_tf.embedding.embedded_dataset import (
    EmbeddedDataset,
    escape_control_chars,
    evenly_spaced_sample,
)
from simclr_tf.embedding.projector import make_sprite
from simclr_tf.evaluation.features import FeatureExtractor, FeatureStore
from simclr_tf.evaluation.load_encoder import FrozenEncoder

Say = Callable[[str], None]

_BATCH = 256
_SIDE = 96  # of a single picture at most, in pixels
_SPRITE_BYTES = 3_000_000
_SMALLEST_TILE = 16


@dataclass(frozen=True)
class EmbeddedSplit:
    """Images of a split, evenly spaced, with their features.

    Attributes:
        rows: their source and features [N, D].
        split: its name.
        total: how many images the split has.
    """

    rows: EmbeddedDataset
    split: str
    total: int

    def __len__(self) -> int:
        """Return N."""
        return len(self.rows)

    def __str__(self) -> str:
        count = f"{len(self):,}"
        if len(self) < self.total:
            count += f" of {self.total:,}"
        return f"{count} images of {self.split}"

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes, where each image has one; each name is one line."""
        source = self.rows.source
        return None if source.multi_label or not source.class_names else _lines(source.class_names)

    def evenly_spaced_sample(self, most: int) -> np.ndarray:
        """Return the positions of up to so many of them, evenly spaced."""
        return evenly_spaced_sample(len(self), most)


def _lines(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(escape_control_chars, names))


def embed_split(
    encoder: FrozenEncoder, source: ImageSource, split: str, most: int, cache: Path, say: Say
) -> EmbeddedSplit:
    """Return up to `most` images of a split with their features, which are kept in `cache`.

    Raises:
        UserError: an image cannot be read, or the encoder gives no finite vector per image.
    """
    extract = FeatureExtractor(
        encoder.encoder, encoder.image_size, _BATCH, cache, encoder.fingerprint
    )
    total = source.num_examples
    if total <= most:
        features = extract(source)
        return EmbeddedSplit(
            EmbeddedDataset(source, features.features, features.labels), split, total
        )
    positions = evenly_spaced_sample(total, most)
    part = source.subset(positions)
    place = extract.cache_path(source)
    if place is not None and FeatureStore(place, total).is_complete:  # by `evaluate` or `embed`
        whole = extract(source)
        rows = EmbeddedDataset(part, whole.features[positions], whole.labels[positions])
    else:
        features = extract(part)
        rows = EmbeddedDataset(part, features.features, features.labels)
    return EmbeddedSplit(rows, split, total)


def seen(
    rows: EmbeddedDataset, positions: np.ndarray, size: int | None = None
) -> dict[int, np.ndarray]:
    """Return what the encoder sees of images, by their positions: uint8 [S, S, 3].

    Args:
        rows: where they are.
        positions: in any order.
        size: S; None: that of a single picture in the report.

    Raises:
        UserError: an image cannot be read.
    """
    if size is None:
        size = min(_SIDE, *rows.source.image_shape[:2])
    order = np.unique(positions)
    pictures = (picture for picture in _pictures(rows.source, order, size))
    return dict(zip(order.tolist(), pictures, strict=True))


def _pictures(source: ImageSource, positions: np.ndarray, size: int) -> Iterator[np.ndarray]:
    with decode_errors_name_image(source):
        for batch in batches_at(source, positions, _BATCH):
            yield from to_uint8(eval_transform(batch["image"], size, batch.get("aspect")))


def data_uri(image: np.ndarray, quality: int = 90) -> str:
    """Return an image uint8 [H, W, 3] as a JPEG within a `data:` address."""
    # In full colour resolution: what lies beside a small picture would show in it.
    jpeg = tf.io.encode_jpeg(image, quality=quality, chroma_downsampling=False).numpy()
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"


def sprite_uri(rows: EmbeddedDataset, positions: np.ndarray) -> tuple[str, int]:
    """Return a picture of all images as a `data:` address, and its number of columns.

    The larger tiles are halved where they would take more than 3 MB.

    Args:
        rows: where they are.
        positions: which of them, ascending.

    Raises:
        UserError: an image cannot be read.
    """
    picture, tile = make_sprite(rows, positions)
    columns = picture.shape[1] // tile
    uri = data_uri(picture, 85)
    while len(uri) > _SPRITE_BYTES * 4 // 3 and tile % 2 == 0 and tile > _SMALLEST_TILE:
        tile //= 2
        height, width = (side // 2 for side in picture.shape[:2])
        blocks = picture.reshape(height, 2, width, 2, 3)
        picture = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
        uri = data_uri(picture, 85)
    return uri, columns
