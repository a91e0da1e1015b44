"""Datasets of TensorFlow Datasets (TFDS), streamed from their files."""

from __future__ import annotations

import copy
import difflib
import logging
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.util import DownloadError
from tensorflow_datasets.core.utils.version import list_all_versions

from simclr_tf.data.base import (
    ImageSource,
    IndexedSource,
    content_hash,
    host_constant,
    records_at,
    resolve_split,
)
from simclr_tf.data.decoding import composite_on_white, resize_to_square
from simclr_tf.data.in_memory import max_bytes_in_memory
from simclr_tf.errors import UserError
from simclr_tf.utils.files import format_bytes
from simclr_tf.utils.paths import shell_join

# Records wait encoded in the shuffle buffer, which holds all of a small dataset.
_SHUFFLE_BYTES = 256 * 2**20
_MIN_SHUFFLE = 1024
_FILES_AT_ONCE = 16
_SLOW_LABEL_SCAN = 200_000  # examples
_MAX_SHARD_IMBALANCE = 1.1  # examples of the largest shard / of the smallest

logger = logging.getLogger(__name__)


class _FileSlice(NamedTuple):
    """Consecutive examples of one file: `take` of its `examples`, after the first `skip`."""

    filename: str
    skip: int
    take: int
    examples: int
    split: str
    first: int  # position of the file's first example within the split


class TFDSSource(ImageSource):
    """A split of a prepared TFDS dataset; a record is a serialized example.

    An epoch interleaves the files, in an order drawn from (seed, epoch), and shuffles within a
    buffer of 256 MiB of encoded records. Images of one channel become RGB; those of four are
    composited on white.
    """

    def __init__(
        self,
        name: str,
        features: tfds.features.FeaturesDict,
        parts: Sequence[_FileSlice],
        storage_size: int | None,
    ):
        self.name = name
        self.max_bytes = max_bytes_in_memory()  # of the encoded records that `subset` reads
        self._image_key = _image_key(name, features)
        image = features[self._image_key]
        self._channels = image.shape[-1]
        height, width = image.shape[:2]
        self._resize_to = None
        if height is None or width is None:
            if storage_size is None:
                raise UserError(
                    f"the images of {name} vary in size. Fix: pass storage_size, the side of the "
                    "square to which they are resized."
                )
            height = width = self._resize_to = storage_size
        self.image_shape = (height, width, 3)
        label, self._label_keys = _find_label_feature(features)
        self.class_names = None if label is None else tuple(label.names)
        self.multi_label = "labels" in self._label_keys
        used = tfds.decode.PartialDecoding(
            dict.fromkeys((self._image_key, *self._label_keys), True)
        )
        self._features = used.extract_features(features)
        self._set_slices(parts)

    def _set_slices(self, parts: Sequence[_FileSlice]) -> None:
        self._labels: np.ndarray | None = None
        self._slices = [part for part in parts if part.take]
        self.num_examples = sum(part.take for part in self._slices)

    def records(self, seed: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        buffer = max(_MIN_SHUFFLE, int(_SHUFFLE_BYTES / self._record_size()))
        buffer = min(self.num_examples, buffer)
        files_at_once = min(_FILES_AT_ONCE, len(self._slices))

        def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
            # Sets the seed of this function's graph only: otherwise the program's
            # tf.random.set_seed would change the order, and a seed of 0 fails (TensorFlow 2.21).
            tf.compat.v1.set_random_seed(1)
            key = tf.stack([tf.cast(seed, tf.int64), epoch])
            order = tf.random.experimental.stateless_shuffle(
                tf.range(len(self._slices)), key, alg="philox"
            )
            parts = tf.data.Dataset.from_tensor_slices(order).map(self._file_slice)
            buffer_seed = tf.random.stateless_uniform(
                [], key, minval=None, maxval=None, dtype=tf.int64, alg="philox"
            )
            records = parts.interleave(
                _read_records,
                cycle_length=files_at_once,
                block_length=_FILES_AT_ONCE,
                num_parallel_calls=min(files_at_once, os.cpu_count() or 1),
                deterministic=True,
            )
            return records.shuffle(buffer, buffer_seed, reshuffle_each_iteration=False)

        return tf.data.Dataset.from_tensors(tf.cast(epoch, tf.int64)).flat_map(shuffled)

    def records_in_order(self) -> tf.data.Dataset:
        indices = tf.data.Dataset.range(len(self._slices))
        return indices.map(self._file_slice).flat_map(_read_records)

    def decode(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        example = self._parse(record)
        image = tf.io.decode_image(
            example[self._image_key], channels=self._channels or 3, expand_animations=False
        )
        if self._channels == 4:
            image = composite_on_white(image)
        elif self._channels == 1:
            image = tf.repeat(image, 3, axis=-1)
        decoded = {}
        if self._resize_to is None:
            decoded["image"] = tf.ensure_shape(image, self.image_shape)
        else:
            image = tf.ensure_shape(image, [None, None, 3])
            decoded["image"], decoded["aspect"] = resize_to_square(image, self._resize_to)
        if self.class_names is not None:
            decoded["label"] = self._read_label(example)
        return decoded

    def with_storage_size(self, size: int) -> ImageSource:
        if self._resize_to is None:
            return self
        source = copy.copy(self)
        source._resize_to, source.image_shape = size, (size, size, 3)
        return source

    def record_id(self, record: tf.Tensor) -> tf.Tensor:
        # A hash of the example, because a record does not contain its position.
        return tf.strings.to_hash_bucket_fast(record, 2**63 - 1)

    def _parse(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        """Parses a serialized example; the image remains encoded."""
        skip = {self._image_key: tfds.decode.SkipDecoding()}
        return self._features.deserialize_example(record, decoders=skip)

    def _read_label(self, example: dict[str, tf.Tensor]) -> tf.Tensor:
        if not self.multi_label:
            return tf.cast(example[self._label_keys[0]], tf.int64)
        assert self.class_names is not None
        classes = len(self.class_names)
        present, *not_difficult = (
            # reduce_max of no label at all would be the lowest integer.
            tf.minimum(tf.reduce_sum(tf.one_hot(example[key], classes, dtype=tf.int64), axis=0), 1)
            for key in self._label_keys
        )
        if not not_difficult:
            return present
        return tf.where(not_difficult[0] > 0, not_difficult[0], -present)

    def labels(self) -> np.ndarray:
        self._require_labels()
        if self._labels is None:
            if self.num_examples > _SLOW_LABEL_SCAN:
                logger.info(f"reading the labels of {self.name}")
            labels = self.records_in_order().map(
                lambda record: self._read_label(self._parse(record)),
                num_parallel_calls=os.cpu_count() or 1,
            )
            self._labels = np.concatenate(list(labels.batch(1024).as_numpy_iterator()))
            self._labels.setflags(write=False)
        return self._labels

    def subset(self, positions: np.ndarray) -> ImageSource:
        size = self._record_size() * len(positions)
        if size > self.max_bytes:
            raise UserError(
                f"{len(positions):,} images of {self.name} take {format_bytes(size)} encoded, more "
                f"than half of this machine's memory ({format_bytes(self.max_bytes)}). Fix: use "
                "fewer images or a prepared subset such as imagenet2012_subset/10pct."
            )
        records = [record.numpy() for record in records_at(self, positions)]
        return _InMemoryTFDSSource(self, records, positions)

    def image_ids(self, positions: np.ndarray) -> list[str]:
        ends = np.cumsum([part.take for part in self._slices])
        ids = []
        for position, i in zip(positions, np.searchsorted(ends, positions, "right"), strict=True):
            part = self._slices[i]
            number = part.first + part.skip + part.take - (ends[i] - position)
            ids.append(f"{part.split}/{number}")
        return ids

    def fingerprint(self) -> str:
        files = [(part, tf.io.gfile.stat(part.filename)) for part in self._slices]
        return content_hash(
            [
                (os.path.basename(p.filename), p.skip, p.take, s.length, s.mtime_nsec)
                for p, s in files
            ],
            self.image_shape,
            self.class_names,
            # VOC's labels changed when difficult objects were distinguished: caches must, too.
            *self._label_keys[1:],
        )

    def holdout(self, fraction: float, seed: int) -> tuple[ImageSource, ImageSource]:
        # Consecutive examples from a random position: TFDS writes them shuffled.
        count = self._holdout_size(fraction)
        start = int(
            tf.random.stateless_uniform(
                [], [seed, 0], 0, self.num_examples - count + 1, tf.int64, alg="philox"
            )
        )
        stop = start + count
        rest = self._slices_between(0, start) + self._slices_between(stop, self.num_examples)
        return self._with_slices(rest), self._with_slices(self._slices_between(start, stop))

    def shard_by_file(self, num_workers: int, worker_index: int) -> ImageSource | None:
        """Returns every num_workers-th file if that distributes the examples evenly (± 10 %)."""
        sizes = [
            sum(part.take for part in self._slices[worker::num_workers])
            for worker in range(num_workers)
        ]
        if len(self._slices) < num_workers or max(sizes) > _MAX_SHARD_IMBALANCE * min(sizes):
            return None
        return self._with_slices(self._slices[worker_index::num_workers])

    def _with_slices(self, parts: Sequence[_FileSlice]) -> TFDSSource:
        source = copy.copy(self)
        source._set_slices(parts)
        return source

    def _slices_between(self, start: int, stop: int) -> list[_FileSlice]:
        parts, first = [], 0
        for part in self._slices:
            low, high = max(start - first, 0), min(stop - first, part.take)
            if low < high:
                parts.append(part._replace(skip=part.skip + low, take=high - low))
            first += part.take
        return parts

    def _file_slice(self, index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        filenames, skips, takes, *_ = zip(*self._slices, strict=True)
        return tf.gather(filenames, index), tf.gather(skips, index), tf.gather(takes, index)

    def _record_size(self) -> float:
        first = self._slices[0]
        return tf.io.gfile.stat(first.filename).length / first.examples


class _InMemoryTFDSSource(IndexedSource):
    """Encoded examples of a TFDS dataset in memory."""

    _parent: ImageSource

    def __init__(self, parent: TFDSSource, records: list[bytes], positions: np.ndarray):
        self.name = f"{parent.name} ({len(records)} images)"
        self.class_names, self.multi_label = parent.class_names, parent.multi_label
        self.image_shape = parent.image_shape
        self._parent, self._positions = parent, positions
        self._records = host_constant(records)
        self._set_indices(np.arange(len(records)))

    def decode(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._parent.decode(tf.gather(self._records, record))

    def with_storage_size(self, size: int) -> ImageSource:
        source = copy.copy(self)
        source._parent = self._parent.with_storage_size(size)
        source.image_shape = source._parent.image_shape
        return source

    def labels(self) -> np.ndarray:
        return self._parent.labels()[self._positions][self.indices]

    def image_ids(self, positions: np.ndarray) -> list[str]:
        return self._parent.image_ids(self._positions[self.indices[positions]])

    def fingerprint(self) -> str:
        return content_hash(self._parent.fingerprint(), self._positions[self.indices])


def _read_records(filename: tf.Tensor, skip: tf.Tensor, take: tf.Tensor) -> tf.data.Dataset:
    skip, take = tf.cast(skip, tf.int64), tf.cast(take, tf.int64)
    return tf.data.TFRecordDataset(filename).skip(skip).take(take)


def _find_label_feature(
    features: tfds.features.FeaturesDict,
) -> tuple[tfds.features.ClassLabel | None, tuple[str, ...]]:
    """Returns the classes and the names of their features: `label`, or `labels` if multi-label.

    VOC has `labels_no_difficult` next to `labels`: those of objects that its evaluation counts.
    """
    by_name = dict(features)
    label = by_name.get("label")
    keys: tuple[str, ...] = ("label",)
    if not isinstance(label, tfds.features.ClassLabel):
        label = getattr(by_name.get("labels"), "feature", None)
        keys = tuple(key for key in ("labels", "labels_no_difficult") if key in by_name)
    is_labeled = isinstance(label, tfds.features.ClassLabel) and label.num_classes is not None
    return (label, keys) if is_labeled else (None, ())


def _image_key(name: str, features: tfds.features.FeaturesDict) -> str:
    """Returns the name of the image feature: "image" if it exists, otherwise the only one."""
    image, mask = tfds.features.Image, tfds.features.LabeledImage
    keys = [key for key, x in features.items() if isinstance(x, image) and not isinstance(x, mask)]
    if "image" in keys:
        keys = ["image"]
    if len(keys) != 1:
        raise UserError(
            f"{name}: expected one image feature or one named image, got {len(keys)} among the "
            f"features {', '.join(features)}"
        )
    dtype = np.dtype(features[keys[0]].np_dtype).name
    if dtype != "uint8":
        raise UserError(f"{name}: expected images of uint8, got {dtype}")
    return keys[0]


def open_tfds(
    dataset: str, split: str, data_dir: str | None, storage_size: int | None
) -> TFDSSource:
    """Opens a split of a TFDS dataset, which is downloaded and prepared if necessary."""
    builder = _load_builder(dataset, data_dir)
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise UserError(
            f"--dataset={dataset}: expected file format tfrecord, got "
            f"{builder.info.file_format.value} in {builder.data_path}. Fix: prepare it as tfrecord"
        )
    infos = builder.info.splits
    resolve_split(dataset, split, infos)
    shard_starts = {
        os.fspath(path): (name, end - length)
        for name, info in infos.items()
        for path, length, end in zip(
            info.filepaths, info.shard_lengths, np.cumsum(info.shard_lengths), strict=True
        )
    }
    parts = [
        _FileSlice(p.filename, p.skip, p.take, p.examples_in_shard, *shard_starts[p.filename])
        for p in infos[split].file_instructions
    ]
    missing = [part.filename for part in parts if not tf.io.gfile.exists(part.filename)]
    if missing:
        raise UserError(
            f"--dataset={dataset} lacks {len(missing)} of {len(parts)} files, the first is "
            f"{missing[0]}. Fix: copy them, or remove {builder.data_path} to prepare it again."
        )
    return TFDSSource(f"{dataset} {split}", builder.info.features, parts, storage_size)


def _load_builder(dataset: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    if data_dir is not None:
        data_dir = os.path.expanduser(data_dir)
        if not tf.io.gfile.isdir(data_dir):
            raise UserError(
                f"--data_dir={data_dir} is not a directory. Fix: pass the directory of TFDS's "
                "datasets, or create it to prepare them there."
            )
    try:
        builder = tfds.builder(dataset, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(_unknown_dataset_message(dataset, data_dir)) from error
    except (ValueError, AssertionError, ImportError) as error:
        if "Parsing builder name" in str(error):
            raise UserError(_unknown_dataset_message(dataset, data_dir)) from None
        raise UserError(
            f"--dataset={dataset} cannot be opened: {_one_line(error)}. Fix: check its name and "
            "config, or install what it needs"
        ) from error
    if builder.is_prepared():
        return builder
    versions = list_all_versions(builder.data_path.parent)
    if versions and ":" not in dataset:
        path = builder.data_path.parent / str(versions[-1])
        logger.info(
            f"--dataset={dataset}: reading {path}; the installed TFDS would prepare "
            f"{builder.version}"
        )
        return tfds.builder_from_directory(path)
    logger.info(f"--dataset={dataset} is not in {builder.data_path}: downloading and preparing it")
    try:
        builder.download_and_prepare()
    except (OSError, AssertionError, ImportError, DownloadError, NonMatchingChecksumError) as error:
        # OSError: no network, no space, no write permission. AssertionError: a manual download.
        raise UserError(
            f"--dataset={dataset} cannot be prepared in {builder.data_path}: {_one_line(error)}. "
            "Fix: prepare it with a network, or copy a prepared one there."
        ) from error
    return builder


def _unknown_dataset_message(dataset: str, data_dir: str | None) -> str:
    message = f"--dataset={dataset}: expected `shapes`, `folder:PATH` or the name of a TFDS dataset"
    for path in (dataset, re.sub(r"^\w+[:=]\s*", "", dataset)):
        if os.path.isdir(path):
            return f"{message}. Fix: did you mean {shell_join([f'folder:{path}'])}?"
        if os.path.isfile(path):
            return (
                f"{message}, got a file. Fix: use its folder, "
                "or that of the unpacked archive, as folder:PATH"
            )
    known = tfds.list_builders(with_community_datasets=False)
    suggestions = difflib.get_close_matches(dataset.lower(), known, cutoff=0.5)
    entries = tf.io.gfile.listdir(data_dir) if data_dir else []
    names = sorted(entry.rstrip("/") for entry in entries)
    local = [name for name in names if not name.startswith(".") and name != "downloads"]
    if suggestions:
        message += f"; similar names: {', '.join(suggestions)}"
    if local:
        message += f"; {data_dir} contains {', '.join(local)}"
    return f"{message}. Fix: check the name"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
