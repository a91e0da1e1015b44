"""Extraction of frozen features, and the cache of features and other arrays."""

import logging
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import __version__
from simclr_tf.augment import eval_transform
from simclr_tf.data import ImageSource, decode_errors_name_image, sequential_batches
from simclr_tf.data.base import content_hash
from simclr_tf.errors import UserError
from simclr_tf.utils.files import atomic_path, directory_lock, save_npz
from simclr_tf.utils.progress import Progress

logger = logging.getLogger(__name__)

# A keras.Model or a loaded SavedModel: called as encoder(images [N, S, S, 3], training=False).
Encoder = Callable[..., tf.Tensor]
ArrayDict = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Features:
    """Features and labels of a split, in the split's order.

    Attributes:
        features: float32 [N, D], possibly memory-mapped.
        labels: int64 [N], -1 for images without a label; or, where images have several classes,
            [N, C] of 1 (present), 0 (absent) and -1 (present but excluded from the metric).

    Example:
    >>> import numpy as np
    >>> from simclr_tf.evaluation import Features
    >>> Features(np.eye(3, dtype=np.float32), np.array([0, 1, 1])).num_examples
    3
    """

    features: np.ndarray
    labels: np.ndarray

    @property
    def num_examples(self) -> int:
        """Number of images N."""
        return len(self.features)


class FeatureExtractor:
    """Computes the features of splits with one graph for all of them.

    >>> import tensorflow as tf
    >>> from simclr_tf.data import open_source
    >>> from simclr_tf.evaluation import FeatureExtractor
    >>> mean_color = lambda images, training: tf.reduce_mean(images, [1, 2])
    >>> extract = FeatureExtractor(mean_color, image_size=16, batch_size=4)
    >>> extract(open_source("shapes", "test[:6]", storage_size=24)).features.shape
    (6, 3)

    Args:
        encoder: called in inference mode on float32 images [batch_size, S, S, 3] in [0, 1]. Its
            weights may change between calls if there is no `cache_dir`.
        image_size: side length S of the images in pixels; `eval_transform` resizes them.
        batch_size: images per call; the last batch is padded.
        cache_dir: directory of the feature cache; None disables it.
        fingerprint: cache key of the encoder, different for encoders with different features.
        flush_interval: seconds between writes to the cache, the most that a kill can cost.
    """

    def __init__(
        self,
        encoder: Encoder,
        image_size: int,
        batch_size: int = 256,
        cache_dir: Path | None = None,
        fingerprint: str = "",
        *,
        flush_interval: float = 60.0,
    ) -> None:
        if cache_dir is not None and not fingerprint:
            raise ValueError("cache_dir requires the fingerprint of the encoder")
        self._image_size, self._batch_size = image_size, batch_size
        self._cache_dir, self._fingerprint = cache_dir, fingerprint
        self._flush_interval = flush_interval

        def embed(images: tf.Tensor, aspect: tf.Tensor | None) -> tf.Tensor:
            outputs = encoder(eval_transform(images, image_size, aspect), training=False)
            if outputs.shape.rank != 2:
                raise UserError(
                    f"encoder: expected one feature vector per image, got outputs of shape "
                    f"{outputs.shape}. Fix: end the encoder with a global pooling"
                )
            return tf.cast(outputs, tf.float32)

        self._embed = trace_per_shape(embed)

    def __call__(self, source: ImageSource) -> Features:
        """Returns the features of all images of `source`, in its order.

        Raises:
            UserError: if the source is empty, an image cannot be read, or the outputs of the
                encoder are not one finite vector per image.
        """
        if not source.num_examples:
            raise UserError(f"{source.name} has no images. Fix: choose another split")
        path = self.cache_path(source)
        wait_message = f"another process computes the features of {source.name}: waiting for it"
        with directory_lock(path, lambda: logger.info(wait_message)) if path else nullcontext():
            store = FeatureStore(path, source.num_examples, flush_interval=self._flush_interval)
            if not store.is_complete:
                with decode_errors_name_image(source):
                    self._extract(source, store)
            return Features(*store.read())

    def cache_path(self, source: ImageSource) -> Path | None:
        """Returns the cache directory for this encoder and source; None without a cache."""
        if self._cache_dir is None:
            return None
        key = content_hash(__version__, self._fingerprint, source.fingerprint(), self._image_size)
        return self._cache_dir / key[:16]

    def _extract(self, source: ImageSource, store: "FeatureStore") -> None:
        with Progress(f"features of {source.name}", source.num_examples) as progress:
            if store.count:
                progress.resume(store.count)
            for batch in sequential_batches(source, self._batch_size, start=store.count):
                images, aspect = batch["image"], batch.get("aspect")
                count, padding = len(images), self._batch_size - len(images)
                images = tf.pad(images, [[0, padding], [0, 0], [0, 0], [0, 0]])
                if aspect is not None:
                    aspect = tf.pad(aspect, [[0, padding]], constant_values=1.0)
                features = self._embed(images, aspect).numpy()[:count]
                require_finite(features, store.count, source)
                labels = batch["label"].numpy() if "label" in batch else np.full(count, -1)
                store.add(features, labels.astype(np.int64))
                progress.update(store.count)
        store.finish()


def extract_features(
    encoder: Encoder, source: ImageSource, image_size: int, batch_size: int = 256
) -> Features:
    """Computes the features of one split; arguments and errors are those of `FeatureExtractor`.

    >>> import tensorflow as tf
    >>> from simclr_tf.data import open_source
    >>> from simclr_tf.evaluation import extract_features
    >>> images = open_source("shapes", "test[:6]", storage_size=24)
    >>> extract_features(lambda x, training: tf.reduce_max(x, [1, 2]), images, 16).labels.shape
    (6,)
    """
    return FeatureExtractor(encoder, image_size, batch_size)(source)


class FeatureStore:
    """Rows of features and labels in a directory, or in memory if it is None.

    While rows are added, the directory contains part-START-features.npy and part-START-labels.npy;
    afterwards it contains features.npy and labels.npy, which are memory-mapped. Complete parts of
    an interrupted extraction are reused, damaged ones are computed again. A part is written after
    `flush_interval` seconds, 16,384 rows or 64 MiB.
    """

    _MAX_PART_BYTES = 2**26
    _MAX_PART_ROWS = 2**14

    def __init__(self, directory: Path | None, num_rows: int, *, flush_interval: float = 60.0):
        self._directory, self._num_rows = directory, num_rows
        self._flush_interval = flush_interval
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._starts: list[int] = []
        self.count = 0  # rows added so far
        if directory is not None and not self.is_complete:
            while (rows := self._load_part(self.count)) is not None:
                self._starts.append(self.count)
                self.count += len(rows[1])
        self._num_flushed, self._flushed_at = self.count, time.monotonic()

    @property
    def is_complete(self) -> bool:
        """True if the directory contains all rows."""
        return self._directory is not None and self._path("labels").exists()

    def add(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Adds the next rows: float32 [n, D] and int64 [n] or [n, C]."""
        self._pending.append((features, labels))
        self.count += len(features)
        pending = self.count - self._num_flushed
        if (
            pending >= self._MAX_PART_ROWS
            or pending * features[0].nbytes >= self._MAX_PART_BYTES
            or time.monotonic() - self._flushed_at > self._flush_interval
        ):
            self.flush()

    def flush(self) -> None:
        """Writes the rows that are not written yet."""
        if self._directory is None or not self._pending:
            return
        features, labels = zip(*self._pending, strict=True)
        for kind, rows in (("features", features), ("labels", labels)):
            path = self._path(kind, self._num_flushed)
            with atomic_path(path) as temporary:
                np.save(temporary, np.concatenate(rows), allow_pickle=False)
        self._starts.append(self._num_flushed)
        self._num_flushed, self._pending, self._flushed_at = self.count, [], time.monotonic()

    def finish(self) -> None:
        """Joins the parts after all rows have been added."""
        if self._directory is None:
            return
        self.flush()
        for kind in ("features", "labels"):  # labels.npy marks the directory as complete
            final = self._path(kind)
            temporary = final.with_suffix(".incomplete")
            first = _open_npy(self._path(kind, 0))
            shape = (self._num_rows, *first.shape[1:])
            joined = np.lib.format.open_memmap(temporary, "w+", first.dtype, shape)
            for start in self._starts:
                part = _open_npy(self._path(kind, start))
                joined[start : start + len(part)] = part
            joined.flush()
            del joined
            temporary.replace(final)
        for start in self._starts:
            for kind in ("features", "labels"):
                self._path(kind, start).unlink()

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns (features [N, D], labels [N] or [N, C]) after all rows have been added."""
        if self._directory is None:
            features, labels = zip(*self._pending, strict=True)
            return np.concatenate(features), np.concatenate(labels)
        features = _open_npy(self._path("features"))
        return features, np.array(_open_npy(self._path("labels")))

    def _load_part(self, start: int) -> tuple[np.ndarray, np.ndarray] | None:
        paths = [self._path(kind, start) for kind in ("features", "labels")]
        if not all(path.exists() for path in paths):
            return None
        try:
            features, labels = map(_open_npy, paths)
        except (ValueError, EOFError):  # damaged
            return None
        return (features, labels) if len(features) == len(labels) else None

    def _path(self, kind: str, start: int | None = None) -> Path:
        """Returns the path of a part, or without `start` of all rows."""
        assert self._directory is not None
        return self._directory / (f"{kind}.npy" if start is None else f"part-{start:09}-{kind}.npy")


def _open_npy(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def load_or_compute(path: Path | None, compute: Callable[[], ArrayDict]) -> ArrayDict:
    """Returns the arrays of an .npz file, or computes arrays and writes them if `path` is not None.

    The name of the file is a hash of all inputs of the computation; a damaged file is replaced.
    """
    if path is not None and path.exists():
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except (ValueError, EOFError, zipfile.BadZipFile):
            pass
    arrays = {name: np.asarray(value) for name, value in compute().items()}
    if path is not None:
        save_npz(path, **arrays)
    return arrays


def sample_evenly(source: ImageSource, max_count: int) -> ImageSource:
    """Returns a source with at most `max_count` evenly spaced images of `source`."""
    if source.num_examples <= max_count:
        return source
    return source.subset(np.linspace(0, source.num_examples - 1, max_count).astype(np.int64))


def require_finite(features: np.ndarray, start: int, source: ImageSource) -> None:
    """Raises UserError if features [n, D] of the images from index `start` are not all finite."""
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        first = start + int(np.argmin(finite))
        raise UserError(
            f"encoder: its features are not finite (first for image {first} of {source.name}), "
            "because its weights have diverged. "
            "Fix: evaluate an earlier checkpoint, or train with a lower --learning_rate"
        )


def trace_per_shape(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function of tensors (or None): one graph for all calls with the same shapes.

    Unlike a `tf.function`, it causes no retracing warnings when several encoders are compiled.
    """
    trace = tf.function(function, autograph=False).get_concrete_function
    graphs: dict[Any, Callable[..., Any]] = {}

    def call(*arguments: Any) -> Any:
        tensors = [argument for argument in arguments if argument is not None]
        specs = [None if x is None else tf.TensorSpec(x.shape, x.dtype) for x in arguments]
        key = str(specs)
        if key not in graphs:
            graphs[key] = trace(*specs)
        return graphs[key](*tensors)

    return call


def hash_weights(variables: Iterable[Any]) -> str:
    """Returns a hash of the values of variables, for the fingerprint of an encoder."""
    return content_hash(*(variable.numpy() for variable in variables))
