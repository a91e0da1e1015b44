"""Images of a split with their features and thumbnails."""

import base64
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from simclr_tf.data import ImageSource
from simclr_tf.embedding.embedded_dataset import (
    EmbeddedDataset,
    escape_control_chars,
    evenly_spaced_sample,
    load_pictures,
)
from simclr_tf.embedding.projector import make_sprite
from simclr_tf.evaluation.features import FeatureExtractor, FeatureStore
from simclr_tf.evaluation.load_encoder import FrozenEncoder

_BATCH_SIZE = 256
_MAX_PICTURE_SIDE = 160
_MAX_SPRITE_BYTES = 3_000_000
_MIN_TILE, _MAX_TILE = 16, 128


@dataclass(frozen=True)
class EmbeddedSplit:
    """Evenly spaced images of the `total` images of a split, with their features [N, D]."""

    rows: EmbeddedDataset
    split: str
    total: int

    def __len__(self) -> int:
        """Returns N."""
        return len(self.rows)

    def __str__(self) -> str:
        count = f"{len(self):,}"
        if len(self) < self.total:
            count += f" of {self.total:,}"
        return f"{count} images of {self.split}"

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The class names, one line each; None if images have no label or more than one."""
        source = self.rows.source
        if source.multi_label or not source.class_names:
            return None
        return tuple(map(escape_control_chars, source.class_names))

    def evenly_spaced_sample(self, max_count: int) -> np.ndarray:
        """Returns the positions of at most `max_count` images."""
        return evenly_spaced_sample(len(self), max_count)

    def pictures(self, positions: np.ndarray) -> dict[int, np.ndarray]:
        """Returns whole images in their proportions, uint8 [H, W, 3], by position."""
        return load_pictures(self.rows.source, positions, _MAX_PICTURE_SIDE)


def embed_split(
    encoder: FrozenEncoder, source: ImageSource, split: str, max_images: int, cache_dir: Path
) -> EmbeddedSplit:
    """Embeds at most `max_images` images of a split; caches the features."""
    extract = FeatureExtractor(
        encoder.encoder, encoder.image_size, _BATCH_SIZE, cache_dir, encoder.fingerprint
    )
    total = source.num_examples
    positions = evenly_spaced_sample(total, max_images)
    sample = source if total <= max_images else source.subset(positions)
    cache_path = extract.cache_path(source)
    if sample is not source and cache_path and FeatureStore(cache_path, total).is_complete:
        # `simclr-tf evaluate` or `embed` has cached the whole split.
        whole = extract(source)
        features, labels = whole.features[positions], whole.labels[positions]
    else:
        extracted = extract(sample)
        features, labels = extracted.features, extracted.labels
    return EmbeddedSplit(EmbeddedDataset(sample, features, labels), split, total)


def jpeg_data_uri(image: np.ndarray, quality: int = 90) -> str:
    """Returns an image uint8 [H, W, 3] as a `data:` URI of a JPEG."""
    # Full color resolution: subsampling would let neighboring colors bleed into small images.
    jpeg = tf.io.encode_jpeg(image, quality=quality, chroma_downsampling=False).numpy()
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"


def sprite_uri(rows: EmbeddedDataset, positions: np.ndarray) -> tuple[str, int]:
    """Returns one image of the thumbnails of ascending rows as a `data:` URI, and its columns.

    Thumbnails are halved until the JPEG takes at most 3 MB.
    """
    sprite, tile = make_sprite(rows, positions, max_tile=_MAX_TILE)
    columns = sprite.shape[1] // tile
    uri = jpeg_data_uri(sprite, 85)
    while len(uri) > _MAX_SPRITE_BYTES * 4 // 3 and tile % 2 == 0 and tile > _MIN_TILE:
        tile //= 2
        height, width = (side // 2 for side in sprite.shape[:2])
        blocks = sprite.reshape(height, 2, width, 2, 3)
        sprite = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
        uri = jpeg_data_uri(sprite, 85)
    return uri, columns
