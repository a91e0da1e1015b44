"""Sources of images and the batches made from them."""

from simclr_tf.data.base import ArraySource, ImageSource
from simclr_tf.data.batches import batches_at, sequential_batches, train_batches
from simclr_tf.data.cache import load_into_memory
from simclr_tf.data.decode_errors import (
    READ_ERRORS,
    decode_errors_name_image,
    find_undecodable_image,
)
from simclr_tf.data.folder import FOLDER_PREFIX, open_folder
from simclr_tf.data.shapes import open_shapes
from simclr_tf.data.tfds import open_tfds

__all__ = [
    "READ_ERRORS",
    "Source",
    "batches_at",
    "decode_errors_name_image",
    "find_undecodable_image",
    "open_source",
    "sequential_batches",
    "train_batches",
]


def open_source(
    dataset: str,
    split: str,
    *,
    data_dir: str | None = None,
    storage_size: int | None = None,
    skip_unreadable: bool = False,
    cache: bool = False,
) -> ImageSource:
    """Opens a split of a data set.

    Args:
      dataset: `shapes`, `folder:PATH`, or the name of a TFDS data set.
      split: one of its splits, or a slice or sum of them: `train[:90%]`, `train+test`.
      data_dir: where TFDS keeps its data; the others do not use it.
      storage_size: the side of the square, in pixels, to which images of varying size are
        resized on the host; images of one size stay as they are.
      skip_unreadable: leave out files of a folder that are not readable images, and say how many,
        instead of refusing the folder. Every file is then decoded once at the start.
      cache: decode everything once into memory. An epoch is then a full permutation, as it
        always is for folders and `shapes`.

    Raises:
      UserError: there is no such data set, folder, split or slice, or it cannot be read.
    """
    source: ImageSource
    if dataset == "shapes":
        source = open_shapes(split)
    elif dataset.startswith(FOLDER_PREFIX):
        path = dataset.removeprefix(FOLDER_PREFIX)
        source = open_folder(path, split, storage_size, skip_unreadable)
    else:
        source = open_tfds(dataset, split, data_dir, storage_size)
    return load_into_memory(source) if cache and not isinstance(source, ArraySource) else source
