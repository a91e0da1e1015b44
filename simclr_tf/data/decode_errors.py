"""Which image it was that could not be decoded."""

from __future__ import annotations

import itertools

import tensorflow as tf

from simclr_tf.data.pipeline import stream
from simclr_tf.data.source import Source
from simclr_tf.errors import UserError


def explain_decode_error(
    source: Source, *, seed: int | None = None, position: int = 0
) -> UserError | None:
    """Finds the image that made reading a source fail; tf.data's own error does not name it.

    Records are decoded again, one by one, until one fails.

    Args:
      source: what was being read.
      seed: the run's, to search in the order of its stream; None searches in stored order.
      position: where in the stream to begin: the finished steps times the global batch. Close
        to it the search takes moments, otherwise as long as decoding everything.

    Returns:
      The error to raise instead, or None if every image can be decoded: then the cause is another.
    """
    if source.decodes_batches:
        return None
    records = source.records_in_order() if seed is None else stream(source, seed, position)
    # Two epochs of the stream hold every image, wherever in an epoch it begins.
    for record in itertools.islice(records, 2 * source.num_examples):
        try:
            source.decode(record)
        except tf.errors.OpError as error:
            return UserError(
                f"{source.describe(record)} cannot be decoded ({_reason(error)}): remove or "
                "replace it, or, for a folder, pass --skip_unreadable"
            )
    return None


def _reason(error: tf.errors.OpError) -> str:
    """TensorFlow's message without the names of its nodes."""
    message = " ".join(error.message.split())
    return message.rpartition("}}")[2].partition(" [Op:")[0].strip()
