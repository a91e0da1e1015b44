"""The files of TensorBoard's embedding projector: points, what they are called, their pictures."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorboard.plugins import projector

from simclr_tf.augment import eval_transform, to_uint8
from simclr_tf.data import batches_at, decode_errors_name_image
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset
from simclr_tf.utils.files import atomic_path

MAX_IMAGES = 100_000
_NAME = "features"
_SIDE = 8192  # of the sprite, in pixels: the largest texture that browsers are sure to take
_TILE = 64
_BATCH = 256


def write_projector(
    rows: EmbeddedDataset, directory: Path, most: int = 10_000, say: Callable[[str], None] = print
) -> None:
    """Write a directory that `tensorboard --logdir` shows; one that is there is replaced.

    Args:
        rows: what is shown; all of it, or one row of each of `most` equal stretches, drawn from a
            fixed seed.
        directory: gets a checkpoint of the features, metadata.tsv (label, id, index), sprite.png
            and projector_config.pbtxt.
        most: images, up to MAX_IMAGES.
        say: takes the line that says what was left out.

    Raises:
        UserError: an image cannot be read.
    """
    positions = evenly_spaced_sample(len(rows), most)
    if len(positions) < len(rows):
        say(
            f"projector: {len(positions):,} of {len(rows):,} images, evenly spaced, because more "
            "are too many for a browser; --projector_images sets how many"
        )
    with atomic_path(directory) as unfinished:
        unfinished.mkdir()
        picture, tile = make_sprite(rows, positions)
        (unfinished / "sprite.png").write_bytes(tf.io.encode_png(picture).numpy())
        _write_metadata(rows, positions, unfinished / "metadata.tsv")
        # Not tensors.bytes: TensorBoard first reads that as text, and some bytes are.
        tf.raw_ops.SaveV2(
            prefix=str(unfinished / _NAME),
            tensor_names=[_NAME],
            shape_and_slices=[""],
            tensors=[rows.features[positions]],
        )
        (unfinished / "checkpoint").write_text(f'model_checkpoint_path: "{_NAME}"\n', "utf-8")
        config = projector.ProjectorConfig()
        embedding = config.embeddings.add()
        embedding.tensor_name = _NAME
        embedding.metadata_path = "metadata.tsv"
        embedding.sprite.image_path = "sprite.png"
        embedding.sprite.single_image_dim.extend([tile, tile])
        projector.visualize_embeddings(str(unfinished), config)


def evenly_spaced_sample(count: int, most: int) -> np.ndarray:
    """Return int64 positions below `count`, ascending: all, or one of each of `most` stretches."""
    if count <= most:
        return np.arange(count)
    # In whole numbers, so that a stretch is never empty.
    edges = np.arange(most + 1) * count // most
    return np.random.Generator(np.random.Philox(0)).integers(edges[:-1], edges[1:])


def make_sprite(rows: EmbeddedDataset, positions: np.ndarray) -> tuple[np.ndarray, int]:
    """Return a picture of all images, and the side T in pixels of one.

    Args:
        rows: where the images are.
        positions: which of them, ascending.

    Returns:
        uint8 [H, W, 3] of ceil(√n) columns, filled row by row with what the encoder sees of each
        image, and T.

    Raises:
        UserError: an image cannot be read.
    """
    columns = math.isqrt(len(positions) - 1) + 1
    tile = min(_TILE, _SIDE // columns, min(rows.source.image_shape[:2]))
    lines = -(-len(positions) // columns)
    picture = np.full((lines * tile, columns * tile, 3), 255, np.uint8)
    place = 0
    with decode_errors_name_image(rows.source):
        for batch in batches_at(rows.source, positions, _BATCH):
            seen = eval_transform(batch["image"], tile, batch.get("aspect"))
            for image in to_uint8(seen):
                y, x = (tile * i for i in divmod(place, columns))
                picture[y : y + tile, x : x + tile] = image
                place += 1
    return picture, tile


def _write_metadata(rows: EmbeddedDataset, positions: np.ndarray, path: Path) -> None:
    columns = {"id": rows.image_ids(positions), "index": list(map(str, positions))}
    names = rows.class_names(positions)
    if names is not None:
        columns = {"label": names, **columns}
    # No quotes: the projector splits at tabs and takes everything else as it is.
    lines = ["\t".join(columns), *("\t".join(row) for row in zip(*columns.values(), strict=True))]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
