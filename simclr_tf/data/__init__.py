"""Sources of images and the batches made from them."""

from __future__ import annotations

from simclr_tf.data.base import ArraySource, ImageSource
from simclr_tf.data.batches import batches_at, sequential_batches, train_batches
from simclr_tf.data.decoding import READ_ERRORS, decode_errors_name_image, find_undecodable_image
from simclr_tf.data.folder import open_folder
from simclr_tf.data.in_memory import (
    ARRAY_PREFIX,
    available,
    config_name,
    from_python,
    load_into_memory,
    open_array,
)
from simclr_tf.data.label_subset import drop_labels
from simclr_tf.data.shapes import open_shapes
from simclr_tf.data.tfds import open_tfds
from simclr_tf.option_groups import MAX_PIXELS
from simclr_tf.options import FOLDER_PREFIX

__all__ = [
    "READ_ERRORS",
    "ArraySource",
    "ImageSource",
    "available",
    "batches_at",
    "config_name",
    "decode_errors_name_image",
    "find_undecodable_image",
    "from_python",
    "load_into_memory",
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
    labels: str = "auto",
    skip_unreadable: bool = False,
    duplicates: str = "keep",
    max_pixels: int = MAX_PIXELS,
    cache: bool = False,
) -> ImageSource:
    """Opens a split of a dataset.

    Args:
        dataset: `shapes`, `folder:PATH`, or the name of a TFDS dataset.
        split: one of its splits, or a slice or sum of them: `train[:90%]`, `train+test`.
        data_dir: directory of TFDS's data; ignored by the others.
        storage_size: side of the square, in pixels, to which images of varying size are resized
            on the host; images of one size are not resized.
        labels: auto: those of the dataset; none: the source has no labels.
        skip_unreadable: skip files and subfolders of a folder that cannot be read, and log their
            number, instead of refusing the folder. Every file is decoded once; results are stored
            in the user's cache.
        duplicates: keep; or drop links and exact copies of other images of a split of a folder.
        max_pixels: the size from which an image file of a folder counts as unreadable.
        cache: decode everything once into memory. An epoch is then a full permutation, as it
            always is for folders and `shapes`.

    Raises:
        UserError: the dataset, folder, split or slice does not exist or cannot be read.

    Example:
        >>> import simclr_tf as st
        >>> source = st.data.open_source("shapes", "train[:10%]")
        >>> source.num_examples, source.image_shape, source.class_names[0]
        (1000, (32, 32, 3), 'circle')
    """
    source: ImageSource
    if dataset == "shapes":
        source = open_shapes(split)
    elif dataset.startswith(FOLDER_PREFIX):
        path = dataset.removeprefix(FOLDER_PREFIX)
        source = open_folder(
            path,
            split,
            storage_size,
            skip_unreadable=skip_unreadable,
            max_pixels=max_pixels,
            drop_duplicates=duplicates == "drop",
            labels=labels == "auto",
        )
    elif dataset.startswith(ARRAY_PREFIX):
        source = open_array(dataset, split)
    else:
        source = open_tfds(dataset, split, data_dir or None, storage_size)
    if labels == "none" and source.class_names:
        source = drop_labels(source)
    return load_into_memory(source) if cache and not isinstance(source, ArraySource) else source
