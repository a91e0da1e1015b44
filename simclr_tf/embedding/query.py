"""What `--nearest` names: an image of the set, or a file."""

import os
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from simclr_tf.data import ImageSource, sequential_batches
from simclr_tf.data.base import ArraySource
from simclr_tf.data.decoding import (
    UnreadableImageError,
    check_image_header,
    decode_rgb,
    resize_to_square,
)
from simclr_tf.embedding.embedded_dataset import escape_control_chars
from simclr_tf.errors import UserError

_IDS_AT_ONCE = 2**14


@dataclass(frozen=True)
class Query:
    """An image whose nearest images are looked for.

    Attributes:
        name: on one line.
        position: its row, where it is one of the set; else None.
        image: the source of the one image from a file; else None.
    """

    name: str
    position: int | None = None
    image: ImageSource | None = None


def resolve_query(query: str, source: ImageSource, storage_size: int) -> Query:
    """Return the image that a user means.

    Args:
        query: a row number of `source`, or the path of an image file, or an id of `source`; what
            could be several of these is the first.
        source: the set that is searched.
        storage_size: the side in pixels to which it resizes images of varying size.

    Raises:
        UserError: it is none of these, or a file that is no image.
    """
    if query.isdecimal():
        if int(query) >= source.num_examples:
            raise UserError(
                f"--nearest={query}: {source.name} has {source.num_examples:,} images, counted "
                "from 0; name one of them, or an image file"
            )
        return Query(escape_control_chars(source.image_ids(np.array([int(query)]))[0]), int(query))
    path = os.path.expanduser(query)
    if os.path.isfile(path):
        return Query(
            escape_control_chars(os.path.basename(path)),
            image=_image_file(path, source, storage_size),
        )
    for start in range(0, source.num_examples, _IDS_AT_ONCE):
        positions = np.arange(start, min(start + _IDS_AT_ONCE, source.num_examples))
        for position, name in zip(positions, source.image_ids(positions), strict=True):
            if query in (name, escape_control_chars(name)):
                return Query(escape_control_chars(name), int(position))
    example = escape_control_chars(source.image_ids(np.array([0]))[0])
    raise UserError(
        f"--nearest={escape_control_chars(query)} is no image file, and no id of {source.name}: "
        f"name a file, an id such as {example}, or a number from 0 to {source.num_examples - 1}"
    )


def _image_file(path: str, source: ImageSource, storage_size: int) -> ImageSource:
    """The image as the source would store it."""
    try:
        check_image_header(path)
        image = decode_rgb(tf.io.read_file(os.fsencode(path)))
    except (UnreadableImageError, OSError, tf.errors.OpError) as error:
        reason = (
            str(error) if isinstance(error, UnreadableImageError) else "cannot be read or decoded"
        )
        raise UserError(
            f"--nearest={escape_control_chars(path)} {reason}: name an image file, or an image of "
            f"{source.name}"
        ) from None
    resizes = "aspect" in sequential_batches(source, 1).element_spec
    if not resizes and tuple(image.shape) == source.image_shape:
        return ArraySource(path, image.numpy()[np.newaxis])
    square, aspect = resize_to_square(image, storage_size)
    return ArraySource(path, square.numpy()[np.newaxis], aspects=aspect.numpy()[np.newaxis])
