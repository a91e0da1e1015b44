"""Files of TensorBoard's embedding projector: features, metadata and thumbnails."""

import logging
import math
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorboard.plugins import projector

from simclr_tf.augment import eval_transform, to_uint8
from simclr_tf.data import batches_at, decode_errors_name_image
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset, evenly_spaced_sample
from simclr_tf.utils.files import atomic_path

logger = logging.getLogger(__name__)

_TENSOR_NAME = "features"
_MAX_SPRITE_SIDE = 8192  # pixels; the largest texture that all browsers support
_DECODED_SIDE = 160  # pixels, of images that vary in size
_BATCH_SIZE = 256


def write_projector(dataset: EmbeddedDataset, directory: Path, max_images: int = 10_000) -> None:
    """Writes a directory for `tensorboard --logdir`, replacing an existing one.

    It contains a checkpoint of the features, metadata.tsv (label, id, index), sprite.png and
    projector_config.pbtxt. Of a larger dataset, an evenly spaced sample of `max_images` is shown.
    """
    positions = evenly_spaced_sample(len(dataset), max_images)
    if len(positions) < len(dataset):
        logger.info(
            f"projector: {len(positions):,} of {len(dataset):,} images, evenly spaced "
            "(--projector_images sets the maximum)"
        )
    with atomic_path(directory) as temporary:
        temporary.mkdir()
        sprite, tile = make_sprite(dataset, positions)
        (temporary / "sprite.png").write_bytes(tf.io.encode_png(sprite).numpy())
        _write_metadata(dataset, positions, temporary / "metadata.tsv")
        # Not tensors.bytes: TensorBoard first tries to read that as text, and some bytes are.
        tf.raw_ops.SaveV2(
            prefix=str(temporary / _TENSOR_NAME),
            tensor_names=[_TENSOR_NAME],
            shape_and_slices=[""],
            tensors=[dataset.features[positions]],
        )
        (temporary / "checkpoint").write_text(f'model_checkpoint_path: "{_TENSOR_NAME}"\n', "utf-8")
        config = projector.ProjectorConfig()
        embedding = config.embeddings.add()
        embedding.tensor_name = _TENSOR_NAME
        embedding.metadata_path = "metadata.tsv"
        embedding.sprite.image_path = "sprite.png"
        embedding.sprite.single_image_dim.extend([tile, tile])
        projector.visualize_embeddings(str(temporary), config)


def make_sprite(
    dataset: EmbeddedDataset,
    positions: np.ndarray,
    max_side: int = _MAX_SPRITE_SIDE,
    max_tile: int = 64,
) -> tuple[np.ndarray, int]:
    """Makes one large image of thumbnails, row by row in ceil(√n) columns for n `positions`.

    Returns the sprite uint8 [H, W, 3], whose sides are at most `max_side`, and the side of a
    thumbnail in pixels.
    """
    columns = math.isqrt(len(positions) - 1) + 1
    source = dataset.source.with_storage_size(_DECODED_SIDE)
    tile = min(max_tile, max_side // columns, *source.image_shape[:2])
    lines = -(-len(positions) // columns)
    sprite = np.full((lines * tile, columns * tile, 3), 255, np.uint8)
    index = 0
    with decode_errors_name_image(source):
        for batch in batches_at(source, positions, _BATCH_SIZE):
            images = eval_transform(batch["image"], tile, batch.get("aspect"))
            for image in to_uint8(images):
                y, x = (tile * i for i in divmod(index, columns))
                sprite[y : y + tile, x : x + tile] = image
                index += 1
    return sprite, tile


def _write_metadata(dataset: EmbeddedDataset, positions: np.ndarray, path: Path) -> None:
    columns = {"id": dataset.image_ids(positions), "index": list(map(str, positions))}
    names = dataset.class_names(positions)
    if names is not None:
        columns = {"label": names, **columns}
    # No quotes: the projector splits at tabs and shows everything else literally.
    lines = ["\t".join(columns), *("\t".join(row) for row in zip(*columns.values(), strict=True))]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
