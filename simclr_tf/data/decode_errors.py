"""Which image it was that could not be decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from simclr_tf.data.base import ImageSource
from simclr_tf.data.batches import record_stream
from simclr_tf.errors import UserError

# What a file that is damaged, cut short or gone raises while it is read.
READ_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
    tf.errors.PermissionDeniedError,
)


@contextlib.contextmanager
def decode_errors_name_image(source: ImageSource) -> Iterator[None]:
    """Turns an error of reading a source in stored order into one that names the image.

    Raises:
      UserError: an image could not be read.
    """
    try:
        yield
    except READ_ERRORS as error:
        explained = find_undecodable_image(source)
        if explained is None:
            raise
        raise explained from error


def find_undecodable_image(
    source: ImageSource, *, seed: int | None = None, position: int = 0, count: int | None = None
) -> UserError | None:
    """Finds the image that made reading a source fail; tf.data's own error does not name it.

    Records are decoded again, one by one, until one fails.

    Args:
      source: what was being read.
      seed: the run's, to search in the order of its stream; None searches in stored order.
      position: where in the stream to begin: the finished steps times the global batch.
      count: how many records to search; None searches all, as long as decoding everything takes.

    Returns:
      The error to raise instead, or None if every image can be decoded: then the cause is another.
    """
    if source.decodes_batches:
        return None
    records = source.records_in_order() if seed is None else record_stream(source, seed, position)
    culprit = unread = f"a record of {source.name}"
    try:
        # Two epochs of the stream hold every image, wherever in an epoch it begins.
        for record in records.take(count or 2 * source.num_examples):
            culprit = source.describe(record)
            source.decode(record)
            culprit = unread
    except READ_ERRORS as error:
        return UserError(
            f"{culprit} cannot be decoded ({_reason(error)}): remove or replace it, or, for a "
            "folder, pass --skip_unreadable"
        )
    return None


def _reason(error: tf.errors.OpError) -> str:
    """TensorFlow's message without the names of its nodes."""
    message = " ".join(error.message.split())
    return message.rpartition("}}")[2].partition(" [Op:")[0].strip()
