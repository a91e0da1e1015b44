"""Image sources: a random order of undecoded records for every epoch, and their decoding."""

from __future__ import annotations

import abc
import copy
import hashlib
import os
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf.errors import UserError


class ImageSource(abc.ABC):
    """The images of one split, in an order that depends on (seed, epoch) alone.

    Attributes:
        name: dataset and split, for messages.
        num_examples: number of images.
        class_names: names of the classes that "label" indexes, or None without labels. A label
            of -1 marks an image without one (STL-10's `unlabelled` split).
        multi_label: whether an image has any number of classes. Its "label" is then int64 [C]:
            1 (present), 0 (absent) or -1 (present but not evaluated: VOC's difficult objects).
        image_shape: (height, width, 3) of a decoded image.
        decodes_batches: whether `decode` takes a batch of records instead of one.

    Example:
    >>> from simclr_tf.data import open_source
    >>> source = open_source("shapes", "test[:20]")
    >>> source.num_examples, source.image_shape, len(source.class_names)
    (20, (32, 32, 3), 10)
    """

    name: str
    num_examples: int
    class_names: tuple[str, ...] | None
    image_shape: tuple[int, int, int]
    decodes_batches: bool = False
    multi_label: bool = False

    @abc.abstractmethod
    def records(self, seed: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        """Returns the undecoded records of one epoch in random order; `epoch` may be a tensor."""

    @abc.abstractmethod
    def records_in_order(self) -> tf.data.Dataset:
        """Returns the undecoded records, each once, in stored order."""

    @abc.abstractmethod
    def decode(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decodes a record (a batch of them if `decodes_batches`); runs in `tf.data`'s map.

        Returns:
            "image" uint8 `image_shape`; "label" int64 if there are class names; "aspect" float32,
            the original width / height, if images were resized to a square.
        """

    @abc.abstractmethod
    def labels(self) -> np.ndarray:
        """Returns the labels in stored order, int64 [N], or [N, C] if `multi_label`.

        Raises:
            UserError: the source has no labels.
        """

    @abc.abstractmethod
    def subset(self, positions: np.ndarray) -> ImageSource:
        """Returns the images at these positions of the stored order, int [K], ascending."""

    @abc.abstractmethod
    def image_ids(self, positions: np.ndarray) -> list[str]:
        """Returns the names of the images at these positions, the same in every slice.

        For a folder the relative path, otherwise `SPLIT/POSITION`, as in `SPLIT[POSITION:]`.
        """

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Returns a hash of the images and their order, the same in every process.

        For images in memory it covers their bytes; for files, names, sizes and modification times.
        """

    @abc.abstractmethod
    def holdout(self, fraction: float, seed: int) -> tuple[ImageSource, ImageSource]:
        """Splits into (rest, held out), disjoint and the same for the same seed.

        Raises:
            UserError: `fraction` leaves either part without an image.
        """

    @abc.abstractmethod
    def record_id(self, record: tf.Tensor) -> tf.Tensor:
        """Returns int64 IDs that distinguish records of different images; runs in a map."""

    def with_storage_size(self, size: int) -> ImageSource:
        """Returns the images resized to another square; itself if it does not resize images."""
        del size
        return self

    def describe(self, record: tf.Tensor) -> str:
        """Returns the name of a record (an eager tensor) for a message."""
        return f"an image of {self.name}"

    def forget_checks(self) -> None:  # noqa: B027
        """Makes the next start read images again that are remembered as readable."""

    def shard_by_file(self, num_workers: int, worker_index: int) -> ImageSource | None:
        """Returns this worker's part of the files, or None if single records are sharded."""
        return None

    def _require_labels(self) -> None:
        if not self.class_names:
            raise UserError(f"{self.name} has no labels. Fix: use a labeled dataset")

    def _holdout_size(self, fraction: float) -> int:
        count = round(fraction * self.num_examples)
        if not 0 < count < self.num_examples:
            raise UserError(
                f"--validation_fraction={fraction:g}: expected images on both sides, got {count} "
                f"of the {self.num_examples} images of {self.name}. Fix: choose another fraction."
            )
        return count


class IndexedSource(ImageSource):
    """A source whose records are int64 indices; every epoch is a full permutation of them."""

    def _set_indices(self, indices: np.ndarray) -> None:
        self.indices = indices  # int64 [num_examples], in stored order
        self.num_examples = len(indices)
        self._index_tensor = host_constant(indices)

    def records(self, seed: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
        with tf.device("CPU:0"):
            order = tf.random.experimental.stateless_shuffle(self._index_tensor, key, alg="philox")
            return tf.data.Dataset.from_tensor_slices(order)

    def records_in_order(self) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(self._index_tensor)

    def record_id(self, record: tf.Tensor) -> tf.Tensor:
        return record

    def holdout(self, fraction: float, seed: int) -> tuple[ImageSource, ImageSource]:
        count = self._holdout_size(fraction)
        order = np.random.Generator(np.random.Philox(seed)).permutation(self.num_examples)
        return self.subset(np.sort(order[count:])), self.subset(np.sort(order[:count]))

    def subset(self, positions: np.ndarray) -> ImageSource:
        part = copy.copy(self)
        part._set_indices(self.indices[positions])
        return part


class ArraySource(IndexedSource):
    """Decoded images in memory.

    Args:
        name: for messages.
        images: uint8 [N, H, W, 3].
        labels: int64 [N], or None.
        class_names: the names of the labels, or None.
        aspects: float32 [N], original width / height of resized images, or None.
        indices: int64, the images that belong to the split, in stored order; default: all.
        image_ids: returns the names of indices; default: the numbers themselves.

    Attributes:
        images: uint8 [N, H, W, 3], of which the split has those at `indices`.

    Example:
    >>> import numpy as np
    >>> from simclr_tf.data import ArraySource
    >>> images = np.zeros([3, 8, 8, 3], np.uint8)
    >>> source = ArraySource("mine", images, np.array([0, 1, 0]), ("a", "b"))
    >>> source.num_examples, source.labels()
    (3, array([0, 1, 0]))
    """

    decodes_batches = True

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        class_names: tuple[str, ...] | None = None,
        aspects: np.ndarray | None = None,
        indices: np.ndarray | None = None,
        image_ids: Callable[[np.ndarray], list[str]] | None = None,
    ):
        self.name = name
        self.class_names = class_names
        self.image_shape = images.shape[1:]
        self._set_indices(np.arange(len(images)) if indices is None else indices)
        self.images = images
        self._image_ids = image_ids or (lambda indices: [str(index) for index in indices])
        self._columns: dict[str, tf.Tensor] = {}
        if labels is not None:
            self._columns["label"] = host_constant(labels)
        if aspects is not None:
            self._columns["aspect"] = host_constant(aspects)

    def labels(self) -> np.ndarray:
        self._require_labels()
        return self._columns["label"].numpy()[self.indices]

    def image_ids(self, positions: np.ndarray) -> list[str]:
        return self._image_ids(self.indices[positions])

    def fingerprint(self) -> str:
        pixels = content_hash(*(self.images[index] for index in self.indices))
        columns = (column.numpy()[self.indices] for column in self._columns.values())
        return content_hash(pixels, *columns)

    def decode(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        # NumPy holds the only copy of what can be half of the memory; one call per batch.
        image = tf.numpy_function(self.images.__getitem__, [record], tf.uint8, stateful=False)
        batch = {"image": tf.ensure_shape(image, [*record.shape, *self.image_shape])}
        for key, column in self._columns.items():
            batch[key] = tf.gather(column, record)
        return batch


def content_hash(*parts: object) -> str:
    """Returns a SHA-256 of arrays, by their bytes, and of any other values, by their repr."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype} {part.shape}".encode())
            total.update(np.ascontiguousarray(part).data)
        else:
            total.update(repr(part).encode())
    return total.hexdigest()


def host_constant(values: np.ndarray | list[bytes]) -> tf.Tensor:
    """Returns a tensor that `tf.data` functions capture instead of copying it into their graph."""
    with tf.device("CPU:0"):
        return tf.constant(values)


def record_stream(source: ImageSource, seed: int, start: int) -> tf.data.Dataset:
    """Returns the undecoded records of all epochs, one after another, from a position on."""
    first_epoch, position = divmod(start, source.num_examples)
    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
    return epochs.flat_map(lambda epoch: source.records(seed, epoch)).skip(position)


def records_at(source: ImageSource, positions: np.ndarray) -> tf.data.Dataset:
    """Returns the undecoded records at these positions of the stored order, in that order."""
    chosen = np.zeros(source.num_examples, bool)
    chosen[positions] = True
    # The mask ends at the last position, and the zipped dataset with it.
    mask = tf.data.Dataset.from_tensor_slices(chosen[: np.max(positions) + 1])
    zipped = tf.data.Dataset.zip(source.records_in_order(), mask)
    return zipped.filter(lambda _, is_chosen: is_chosen).map(lambda record, _: record)


def decode_records(
    source: ImageSource, records: tf.data.Dataset, batch_size: int, drop_remainder: bool = False
) -> tf.data.Dataset:
    """Decodes records in parallel, in their order, into batches."""
    parallel = {"num_parallel_calls": os.cpu_count() or 1, "deterministic": True}
    if source.decodes_batches:
        return records.batch(batch_size, drop_remainder).map(source.decode, **parallel)
    return records.map(source.decode, **parallel).batch(batch_size, drop_remainder)


def split_indices(
    dataset: str, split: str, sizes: Mapping[str, int], note: str = ""
) -> list[tuple[str, np.ndarray]]:
    """Resolves a split (see `resolve_split`) to (name, int64 indices) for every part of the sum."""
    infos = [tfds.core.SplitInfo(name, [size], 0) for name, size in sizes.items()]
    parts = resolve_split(dataset, split, tfds.core.splits.SplitDict(infos), note)
    return [(name, np.arange(start, stop)) for name, start, stop in parts]


def resolve_split(
    dataset: str, split: str, infos: tfds.core.splits.SplitDict, note: str = ""
) -> list[tuple[str, int, int]]:
    """Resolves a split in TFDS's syntax (`train[:9%]+test`) to (name, start, stop) of its parts.

    `note` ends its errors.
    """
    available = ", ".join(f"{name} ({info.num_examples:,})" for name, info in infos.items())
    try:
        instructions = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
    except (ValueError, NotImplementedError) as error:
        raise UserError(
            f"--dataset={dataset} has no split {split!r}: expected {available}, a slice such as "
            f"{next(iter(infos))}[:90%], or a sum{note}. Fix: name one of them"
        ) from error
    parts = []
    for part in instructions:
        stop = infos[part.splitname].num_examples if part.to is None else part.to
        parts.append((part.splitname, part.from_ or 0, stop))
    if not any(stop > start for _, start, stop in parts):
        raise UserError(
            f"split {split!r} of --dataset={dataset} is empty: expected {available}{note}. Fix: "
            "use a larger slice"
        )
    return parts
