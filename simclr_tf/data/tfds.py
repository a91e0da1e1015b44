"""Data sets of TensorFlow Datasets, streamed from their files."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf.data.base import ImageSource, IndexedSource, content_hash, host_constant, records_at
from simclr_tf.data.cache import total_memory_bytes
from simclr_tf.data.decoding import composite_on_white, resize_to_square
from simclr_tf.data.splits import resolve_split
from simclr_tf.data.tfds_builder import load_builder
from simclr_tf.errors import UserError

# Records wait encoded in the shuffle buffer; within this the whole of a small set fits.
_SHUFFLE_BYTES = 256 * 2**20
_MIN_SHUFFLE = 1024
_FILES_AT_ONCE = 16
_MANY = 200_000
# By how much one worker's files may hold more examples than another's.
_UNEVEN = 1.1


class _Part(NamedTuple):
    """Some successive examples of one file that holds `examples`, the first being `first`."""

    filename: str
    skip: int
    take: int
    examples: int
    split: str
    first: int  # of the file, within the split


class TFDSSource(ImageSource):
    """A split of a prepared TFDS data set; a record is a serialised example.

    An epoch interleaves the files, in an order drawn from (seed, epoch), and shuffles within a
    buffer of 256 MiB of encoded records. An image of one channel becomes RGB; one of four is
    laid over white.
    """

    def __init__(
        self,
        name: str,
        features: tfds.features.FeaturesDict,
        parts: Sequence[_Part],
        storage_size: int | None,
    ):
        self.name = name
        self._key = _image_key(name, features)
        image = features[self._key]
        self._channels = image.shape[-1]
        height, width = image.shape[:2]
        self._square = None
        if height is None or width is None:
            if storage_size is None:
                raise UserError(
                    f"the images of {name} vary in size: give storage_size, the side to which "
                    "they are resized"
                )
            height = width = self._square = storage_size
        self.image_shape = (height, width, 3)
        label, self._label_keys = _label(features)
        self.class_names = None if label is None else tuple(label.names)
        self.multi_label = "labels" in self._label_keys
        labels = dict.fromkeys(self._label_keys, True)
        self._features = _part_of(features, {self._key: True} | labels)
        self._label_features = _part_of(features, labels) if labels else None
        self._set_parts(parts)

    def _set_parts(self, parts: Sequence[_Part]) -> None:
        self._labels: np.ndarray | None = None
        self._parts = [part for part in parts if part.take]
        self.num_examples = sum(part.take for part in self._parts)

    def records(self, seed: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        """The serialised examples in an order drawn from (seed, epoch)."""
        buffer = self._shuffle_buffer()

        def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
            # Of this function's graph only: otherwise the program's own tf.random.set_seed
            # would enter into the order, and 0 there fails (tensorflow 2.21).
            tf.compat.v1.set_random_seed(1)
            key = tf.stack([tf.cast(seed, tf.int64), epoch])
            order = tf.random.experimental.stateless_shuffle(
                tf.range(len(self._parts)), key, alg="philox"
            )
            parts = tf.data.Dataset.from_tensor_slices(order).map(self._part)
            buffer_seed = tf.random.stateless_uniform(
                [], key, minval=None, maxval=None, dtype=tf.int64, alg="philox"
            )
            records = parts.interleave(
                _records_of,
                cycle_length=min(_FILES_AT_ONCE, len(self._parts)),
                block_length=_FILES_AT_ONCE,
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            return records.shuffle(buffer, buffer_seed, reshuffle_each_iteration=False)

        return tf.data.Dataset.from_tensors(tf.cast(epoch, tf.int64)).flat_map(shuffled)

    def records_in_order(self) -> tf.data.Dataset:
        """The serialised examples, file after file."""
        indices = tf.data.Dataset.range(len(self._parts))
        return indices.map(self._part).flat_map(_records_of)

    def decode(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        """Parses and decodes one serialised example."""
        example = self._features.deserialize_example(
            record, decoders={self._key: tfds.decode.SkipDecoding()}
        )
        image = tf.io.decode_image(
            example[self._key], channels=self._channels or 3, expand_animations=False
        )
        if self._channels == 4:
            image = composite_on_white(image)
        elif self._channels == 1:
            image = tf.repeat(image, 3, axis=-1)
        decoded = {}
        if self._square is None:
            decoded["image"] = tf.ensure_shape(image, self.image_shape)
        else:
            image = tf.ensure_shape(image, [None, None, 3])
            decoded["image"], decoded["aspect"] = resize_to_square(image, self._square)
        if self.class_names is not None:
            decoded["label"] = self._read_label(example)
        return decoded

    def record_id(self, record: tf.Tensor) -> tf.Tensor:
        """A hash of the example: a record does not know its place."""
        return tf.strings.to_hash_bucket_fast(record, 2**63 - 1)

    def _read_label(self, example: dict[str, tf.Tensor]) -> tf.Tensor:
        if not self.multi_label:
            return tf.cast(example[self._label_keys[0]], tf.int64)
        assert self.class_names is not None
        classes = len(self.class_names)
        there, *plain = (
            # Of no label at all the maximum would be the lowest number.
            tf.minimum(tf.reduce_sum(tf.one_hot(example[key], classes, dtype=tf.int64), axis=0), 1)
            for key in self._label_keys
        )
        return tf.where(plain[0] > 0, plain[0], -there) if plain else there

    def labels(self) -> np.ndarray:
        """The labels, the images left encoded; read once, and then kept."""
        self._require_labels()
        if self._labels is None:
            self._labels = self._read_labels()
            self._labels.setflags(write=False)
        return self._labels

    def _read_labels(self) -> np.ndarray:
        assert self._label_features is not None
        if self.num_examples > _MANY:
            print(f"reading the labels of {self.name}", file=sys.stderr, flush=True)
        parse = self._label_features.deserialize_example
        labels = self.records_in_order().map(
            lambda record: self._read_label(parse(record)), num_parallel_calls=tf.data.AUTOTUNE
        )
        return np.concatenate(list(labels.batch(1024).as_numpy_iterator()))

    def subset(self, positions: np.ndarray) -> ImageSource:
        """The chosen examples, their records held encoded in memory."""
        size = self._record_size() * len(positions)
        if size > total_memory_bytes() // 2:
            raise UserError(
                f"{len(positions):,} images of {self.name} take {size / 2**30:.1f} GiB encoded, "
                "more than half of this machine's memory: take fewer, or a ready subset such as "
                "imagenet2012_subset/10pct"
            )
        kept = [record.numpy() for record in records_at(self, positions)]
        return _RecordsInMemory(self, kept, positions)

    def image_ids(self, positions: np.ndarray) -> list[str]:
        """`SPLIT/POSITION`."""
        ends = np.cumsum([part.take for part in self._parts])
        found = []
        for position, i in zip(positions, np.searchsorted(ends, positions, "right"), strict=True):
            part = self._parts[i]
            number = part.first + part.skip + part.take - (ends[i] - position)
            found.append(f"{part.split}/{number}")
        return found

    def fingerprint(self) -> str:
        """A digest of the files' names, sizes and times of change, and of what of them is read."""
        files = [(part, tf.io.gfile.stat(part.filename)) for part in self._parts]
        return content_hash(
            [
                (os.path.basename(p.filename), p.skip, p.take, s.length, s.mtime_nsec)
                for p, s in files
            ],
            self.image_shape,
            self.class_names,
            # What was kept of others before difficult objects were told apart is of other labels.
            *self._label_keys[1:],
        )

    def holdout(self, fraction: float, seed: int) -> tuple[ImageSource, ImageSource]:
        """Holds out successive examples, from a place drawn from the seed.

        TFDS has shuffled the examples when it wrote them.
        """
        count = self._held_out(fraction)
        start = int(
            tf.random.stateless_uniform(
                [], [seed, 0], 0, self.num_examples - count + 1, tf.int64, alg="philox"
            )
        )
        stop = start + count
        rest = self._range(0, start) + self._range(stop, self.num_examples)
        return self._with(rest), self._with(self._range(start, stop))

    def shard_by_file(self, num_workers: int, worker_index: int) -> ImageSource | None:
        """Every num_workers-th file, where that shares the examples evenly (within 10 %)."""
        shares = [
            sum(part.take for part in self._parts[worker::num_workers])
            for worker in range(num_workers)
        ]
        if len(self._parts) < num_workers or max(shares) > _UNEVEN * min(shares):
            return None
        return self._with(self._parts[worker_index::num_workers])

    def _with(self, parts: Sequence[_Part]) -> TFDSSource:
        source = copy.copy(self)
        source._set_parts(parts)
        return source

    def _range(self, start: int, stop: int) -> list[_Part]:
        """The parts that hold the examples [start, stop) of this source."""
        parts, first = [], 0
        for part in self._parts:
            low, high = max(start - first, 0), min(stop - first, part.take)
            if low < high:
                parts.append(part._replace(skip=part.skip + low, take=high - low))
            first += part.take
        return parts

    def _part(self, index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        filenames, skips, takes, *_ = zip(*self._parts, strict=True)
        return tf.gather(filenames, index), tf.gather(skips, index), tf.gather(takes, index)

    def _shuffle_buffer(self) -> int:
        fitting = int(_SHUFFLE_BYTES / self._record_size())
        return min(self.num_examples, max(_MIN_SHUFFLE, fitting))

    def _record_size(self) -> float:
        first = self._parts[0]
        return tf.io.gfile.stat(first.filename).length / first.examples


class _RecordsInMemory(IndexedSource):
    """Some examples of a TFDS data set, in memory as they are encoded."""

    def __init__(self, whole: TFDSSource, records: list[bytes], positions: np.ndarray):
        self.name = f"{whole.name} ({len(records)} images)"
        self.class_names, self.multi_label = whole.class_names, whole.multi_label
        self.image_shape = whole.image_shape
        self._whole, self._positions = whole, positions
        self._records = host_constant(records)
        self._set_rows(np.arange(len(records)))

    def decode(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decodes the example of one row."""
        return self._whole.decode(tf.gather(self._records, record))

    def labels(self) -> np.ndarray:
        """The labels of the rows."""
        return self._whole.labels()[self._positions][self.rows]

    def image_ids(self, positions: np.ndarray) -> list[str]:
        """What the whole calls them."""
        return self._whole.image_ids(self._positions[self.rows[positions]])

    def fingerprint(self) -> str:
        """A digest of the whole, and of what of it is taken."""
        return content_hash(self._whole.fingerprint(), self._positions[self.rows])


def _records_of(filename: tf.Tensor, skip: tf.Tensor, take: tf.Tensor) -> tf.data.Dataset:
    skip, take = tf.cast(skip, tf.int64), tf.cast(take, tf.int64)
    return tf.data.TFRecordDataset(filename).skip(skip).take(take)


def _label(
    features: tfds.features.FeaturesDict,
) -> tuple[tfds.features.ClassLabel | None, tuple[str, ...]]:
    """The classes, and where they are read: `label`, or `labels` where an image has several.

    VOC has `labels_no_difficult` beside `labels`: those of objects that its evaluation counts.
    """
    found = dict(features)
    label = found.get("label")
    keys: tuple[str, ...] = ("label",)
    if not isinstance(label, tfds.features.ClassLabel):
        label = getattr(found.get("labels"), "feature", None)
        keys = tuple(key for key in ("labels", "labels_no_difficult") if key in found)
    if not isinstance(label, tfds.features.ClassLabel) or label.num_classes is None:
        return None, ()
    return label, keys


def _part_of(
    features: tfds.features.FeaturesDict, wanted: dict[str, bool]
) -> tfds.features.FeaturesDict:
    return tfds.decode.PartialDecoding(wanted).extract_features(features)


def _image_key(name: str, features: tfds.features.FeaturesDict) -> str:
    """The name of the image feature: "image" if there is one, otherwise the only one."""
    keys = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
        and not isinstance(feature, tfds.features.LabeledImage)
    ]
    if "image" in keys:
        keys = ["image"]
    if len(keys) != 1:
        raise UserError(
            f"{name} has {'no image' if not keys else 'several images'} to train on: "
            f"its features are {', '.join(features)}"
        )
    dtype = np.dtype(features[keys[0]].np_dtype).name
    if dtype != "uint8":
        raise UserError(f"{name} has images of {dtype}; only uint8 is supported")
    return keys[0]


def open_tfds(
    dataset: str, split: str, data_dir: str | None, storage_size: int | None
) -> TFDSSource:
    """Opens a split of a TFDS data set, which is downloaded and prepared only if it is not there.

    Raises:
      UserError: TFDS does not know the data set or the split, or cannot prepare it.
    """
    builder = load_builder(dataset, data_dir)
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise UserError(
            f"--dataset={dataset} is stored as {builder.info.file_format.value} in "
            f"{builder.data_path}; only tfrecord is supported"
        )
    infos = builder.info.splits
    resolve_split(dataset, split, infos)
    firsts = {
        os.fspath(path): (name, end - length)
        for name, info in infos.items()
        for path, length, end in zip(
            info.filepaths, info.shard_lengths, np.cumsum(info.shard_lengths), strict=True
        )
    }
    parts = [
        _Part(part.filename, part.skip, part.take, part.examples_in_shard, *firsts[part.filename])
        for part in infos[split].file_instructions
    ]
    missing = [part.filename for part in parts if not tf.io.gfile.exists(part.filename)]
    if missing:
        raise UserError(
            f"--dataset={dataset} lacks {len(missing)} of {len(parts)} files, the first is "
            f"{missing[0]}: copy them, or remove {builder.data_path} to prepare it again"
        )
    return TFDSSource(f"{dataset} {split}", builder.info.features, parts, storage_size)
