"""Sources of images and the batches made from them."""

from simclr_tf.data.base import ArraySource, Source
from simclr_tf.data.batches import chosen_batches, ordered_batches, train_batches
from simclr_tf.data.cache import in_memory
from simclr_tf.data.decode_errors import READ_ERRORS, explain_decode_error, named
from simclr_tf.data.folder import FOLDER, open_folder
from simclr_tf.data.shapes import open_shapes
from simclr_tf.data.tfds import open_tfds

__all__ = [
    "READ_ERRORS",
    "Source",
    "chosen_batches",
    "explain_decode_error",
    "named",
    "open_source",
    "ordered_batches",
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
) -> Source:
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
    source: Source
    if dataset == "shapes":
        source = open_shapes(split)
    elif dataset.startswith(FOLDER):
        path = dataset.removeprefix(FOLDER)
        source = open_folder(path, split, storage_size, skip_unreadable)
    else:
        source = open_tfds(dataset, split, data_dir, storage_size)
    return in_memory(source) if cache and not isinstance(source, ArraySource) else source
