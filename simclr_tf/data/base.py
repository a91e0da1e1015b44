"""What every source of images offers: an order of undecoded records, and their decoding."""

from __future__ import annotations

import abc
import copy
import hashlib
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simclr_tf.errors import UserError


class ImageSource(abc.ABC):
    """The images of one split, in an order that depends on (seed, epoch) alone.

    Attributes:
      name: for messages: the dataset and the split.
      num_examples: how many images.
      class_names: the classes that "label" counts, or None: then there are no labels. A label
        of -1 is an image without one (STL-10's `unlabelled` split).
      multi_label: an image has any number of classes: its "label" is then int64 [C] of 1 (there),
        0 (not there) and -1 (there, but not judged: VOC's objects that are marked difficult).
      image_shape: (height, width, 3) of a decoded image.
      decodes_batches: whether `decode` takes a batch of records rather than one.
    """

    name: str
    num_examples: int
    class_names: tuple[str, ...] | None
    image_shape: tuple[int, int, int]
    decodes_batches: bool = False
    multi_label: bool = False

    @abc.abstractmethod
    def records(self, seed: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        """The undecoded records of one epoch in its random order; `epoch` may be a tensor."""

    @abc.abstractmethod
    def records_in_order(self) -> tf.data.Dataset:
        """The undecoded records, each once, in the order in which they are stored."""

    @abc.abstractmethod
    def decode(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decodes a record (a batch of them where `decodes_batches`); runs in tf.data's map.

        Returns:
          "image" uint8 `image_shape`; "label" int64 where there are class names; "aspect"
          float32, the original width/height, where images were resized to a square.
        """

    @abc.abstractmethod
    def labels(self) -> np.ndarray:
        """The labels in stored order, no image decoded: int64 [N], or [N, C] if `multi_label`.

        Raises:
          UserError: there are none.
        """

    @abc.abstractmethod
    def subset(self, positions: np.ndarray) -> ImageSource:
        """The images at these places of the stored order, named in ascending order."""

    @abc.abstractmethod
    def image_ids(self, positions: np.ndarray) -> list[str]:
        """What names the images at these places of the stored order, whatever slice is read.

        Of a folder, the paths within it; else `SPLIT/POSITION`: the image is the slice
        `SPLIT[POSITION:POSITION + 1]` of the dataset.
        """

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A digest of what the images are and of their order, the same in every process.

        Of images in memory it is of their bytes; of files, of names, sizes and times of change.
        """

    @abc.abstractmethod
    def holdout(self, fraction: float, seed: int) -> tuple[ImageSource, ImageSource]:
        """Splits into (rest, held out), disjoint and the same for the same seed.

        Raises:
          UserError: `fraction` leaves either part without an image.
        """

    @abc.abstractmethod
    def record_id(self, record: tf.Tensor) -> tf.Tensor:
        """What tells a record (or each of a batch) from those of other images: int64; in a map."""

    def describe(self, record: tf.Tensor) -> str:
        """Names a record (an eager tensor) in a message."""
        del record
        return f"an image of {self.name}"

    def shard_by_file(self, num_workers: int, worker_index: int) -> ImageSource | None:
        """The part of the files that this worker reads, or None to deal out single records."""
        del num_workers, worker_index
        return None

    def _require_labels(self) -> None:
        if not self.class_names:
            raise UserError(f"{self.name} has no labels; name a labelled dataset")

    def _held_out(self, fraction: float) -> int:
        """The number of images that a fraction holds out."""
        count = round(fraction * self.num_examples)
        if not 0 < count < self.num_examples:
            raise UserError(
                f"--validation_fraction={fraction:g} of the {self.num_examples} images of "
                f"{self.name} is {count}: choose a fraction that leaves images on both sides"
            )
        return count


class IndexedSource(ImageSource):
    """A source whose images can be read in any order; a record is a row number, int64.

    Every epoch is a full permutation of the rows.
    """

    def _set_rows(self, rows: np.ndarray) -> None:
        """Names the rows of this split, int64 [num_examples], in canonical order."""
        self.rows = rows
        self.num_examples = len(rows)
        self._rows = host_constant(rows)

    def records(self, seed: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        """The rows in an order drawn from (seed, epoch)."""
        key = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
        with tf.device("CPU:0"):
            order = tf.random.experimental.stateless_shuffle(self._rows, key, alg="philox")
            return tf.data.Dataset.from_tensor_slices(order)

    def records_in_order(self) -> tf.data.Dataset:
        """The rows in canonical order."""
        return tf.data.Dataset.from_tensor_slices(self._rows)

    def record_id(self, record: tf.Tensor) -> tf.Tensor:
        """The row."""
        return record

    def holdout(self, fraction: float, seed: int) -> tuple[ImageSource, ImageSource]:
        """Holds out a random subset of the rows."""
        count = self._held_out(fraction)
        order = np.random.Generator(np.random.Philox(seed)).permutation(self.num_examples)
        held_out = np.zeros(self.num_examples, bool)
        held_out[order[:count]] = True
        return self._subset(self.rows[~held_out]), self._subset(self.rows[held_out])

    def subset(self, positions: np.ndarray) -> ImageSource:
        """The rows at these places."""
        return self._subset(self.rows[positions])

    def _subset(self, rows: np.ndarray) -> IndexedSource:
        part = copy.copy(self)
        part._set_rows(rows)
        return part


class ArraySource(IndexedSource):
    """Images that lie decoded in memory.

    Args:
      name: for messages.
      images: uint8 [N, H, W, 3].
      labels: int64 [N], or None.
      class_names: the names of the labels, or None.
      aspects: float32 [N], original width/height where images were resized, or None.
      rows: the rows that belong to the split, in canonical order; all by default.
      ids: gives the names of rows; None: their numbers.
    """

    decodes_batches = True

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        class_names: tuple[str, ...] | None = None,
        aspects: np.ndarray | None = None,
        rows: np.ndarray | None = None,
        ids: Callable[[np.ndarray], list[str]] | None = None,
    ):
        self.name = name
        self.class_names = class_names
        self.image_shape = images.shape[1:]
        self._set_rows(np.arange(len(images)) if rows is None else rows)
        self._images = images
        self._ids = ids or (lambda rows: [str(row) for row in rows])
        self._columns: dict[str, tf.Tensor] = {}
        if labels is not None:
            self._columns["label"] = host_constant(labels)
        if aspects is not None:
            self._columns["aspect"] = host_constant(aspects)

    def labels(self) -> np.ndarray:
        """The labels of the rows."""
        self._require_labels()
        return self._columns["label"].numpy()[self.rows]

    def image_ids(self, positions: np.ndarray) -> list[str]:
        """The names of the rows."""
        return self._ids(self.rows[positions])

    def fingerprint(self) -> str:
        """A digest of the rows' pixels and labels."""
        found = content_hash(*(self._images[row] for row in self.rows))
        return content_hash(
            found, *(column.numpy()[self.rows] for column in self._columns.values())
        )

    def decode(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gathers a batch of rows."""
        # NumPy keeps the only copy of what can be half of the memory; one call a batch.
        image = tf.numpy_function(self._images.__getitem__, [record], tf.uint8, stateful=False)
        batch = {"image": tf.ensure_shape(image, [*record.shape, *self.image_shape])}
        for key, column in self._columns.items():
            batch[key] = tf.gather(column, record)
        return batch


def content_hash(*parts: object) -> str:
    """A digest of arrays, by their bytes, and of whatever else, by how it prints."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype} {part.shape}".encode())
            total.update(np.ascontiguousarray(part).data)
        else:
            total.update(repr(part).encode())
    return total.hexdigest()


def host_constant(values: np.ndarray | list[bytes]) -> tf.Tensor:
    """A tensor that tf.data's functions capture, rather than copy into their graphs."""
    with tf.device("CPU:0"):
        return tf.constant(values)


def records_at(source: ImageSource, positions: np.ndarray) -> tf.data.Dataset:
    """The undecoded records at these places of the stored order, in that order."""
    chosen = np.zeros(source.num_examples, bool)
    chosen[positions] = True
    # Not beyond the last: a mask that ends early ends the reading.
    mask = tf.data.Dataset.from_tensor_slices(chosen[: np.max(positions) + 1])
    together = tf.data.Dataset.zip(source.records_in_order(), mask)
    return together.filter(lambda _, take: take).map(lambda record, _: record)


def decode_records(
    source: ImageSource,
    records: tf.data.Dataset,
    batch_size: int,
    **batch: bool,
) -> tf.data.Dataset:
    """Decodes records in parallel, in their order, into batches (`batch`: Dataset.batch's)."""
    decode = {"num_parallel_calls": os.cpu_count() or 1, "deterministic": True}
    if source.decodes_batches:
        return records.batch(batch_size, **batch).map(source.decode, **decode)
    return records.map(source.decode, **decode).batch(batch_size, **batch)
