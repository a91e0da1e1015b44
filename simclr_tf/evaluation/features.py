"""Features on their way to a file: in parts, so that what is cut short goes on from the last."""

import io
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
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
from simclr_tf.utils.files import atomic_write, directory_lock
from simclr_tf.utils.progress import LineProgress

_PART_BYTES = 2**26
_PART_ROWS = 2**14
_PART_SECONDS = 60.0  # what a kill costs at most


class FeatureStore:
    """Rows of features and labels, in memory or in a directory.

    The directory holds part-START-features.npy and part-START-labels.npy while rows are added, and
    in the end features.npy and labels.npy, which are read memory-mapped. A part that is there in
    full is not asked for again; one that was cut short is.

    Args:
        directory: where the rows are kept; None: in memory.
        num_rows: N, how many there will be.
    """

    def __init__(self, directory: Path | None, num_rows: int):
        self._directory, self._num_rows = directory, num_rows
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._starts: list[int] = []
        self.count = 0  # rows so far
        if directory is not None and not self.is_complete:
            while (rows := self._part(self.count)) is not None:
                self._starts.append(self.count)
                self.count += len(rows[1])
        self._kept, self._kept_at = self.count, time.monotonic()

    @property
    def is_complete(self) -> bool:
        """Whether all rows are there already."""
        return self._directory is not None and self._final("labels").exists()

    def add(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Add the next rows: float32 [n, D] and int64 [n] or [n, C]."""
        self._pending.append((features, labels))
        self.count += len(features)
        pending = self.count - self._kept
        full = pending >= _PART_ROWS or pending * features[0].nbytes >= _PART_BYTES
        full = full or time.monotonic() - self._kept_at > _PART_SECONDS
        if self._directory is not None and full:
            self._keep()

    def finish(self) -> None:
        """Put the parts together, once all rows are there."""
        if self._directory is None:
            return
        self._keep()
        for kind in ("features", "labels"):  # the labels last: they say that all is there
            final = self._final(kind)
            unfinished = final.with_suffix(".incomplete")
            first = _read(self._name(kind, 0))
            whole = np.lib.format.open_memmap(
                unfinished, "w+", first.dtype, (self._num_rows, *first.shape[1:])
            )
            for start in self._starts:
                part = _read(self._name(kind, start))
                whole[start : start + len(part)] = part
            whole.flush()
            del whole
            unfinished.replace(final)
        for start in self._starts:
            for kind in ("features", "labels"):
                self._name(kind, start).unlink()

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [N, D], labels [N] or [N, C]), once all rows are there."""
        if self._directory is None:
            features, labels = zip(*self._pending, strict=True)
            return np.concatenate(features), np.concatenate(labels)
        return _read(self._final("features")), np.array(_read(self._final("labels")))

    def _keep(self) -> None:
        if not self._pending:
            return
        features, labels = zip(*self._pending, strict=True)
        for kind, rows in (("features", features), ("labels", labels)):
            atomic_write(self._name(kind, self._kept), _npy(np.concatenate(rows)))
        self._starts.append(self._kept)
        self._kept, self._pending, self._kept_at = self.count, [], time.monotonic()

    def _part(self, start: int) -> tuple[np.ndarray, np.ndarray] | None:
        if not all(self._name(kind, start).exists() for kind in ("features", "labels")):
            return None
        try:
            features, labels = (_read(self._name(kind, start)) for kind in ("features", "labels"))
        except (ValueError, EOFError):  # damaged: made again
            return None
        return (features, labels) if len(features) == len(labels) else None

    def _name(self, kind: str, start: int) -> Path:
        assert self._directory is not None
        return self._directory / f"part-{start:09}-{kind}.npy"

    def _final(self, kind: str) -> Path:
        assert self._directory is not None
        return self._directory / f"{kind}.npy"


def _npy(rows: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, rows, allow_pickle=False)
    return file.getvalue()


def _read(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


Arrays = Mapping[str, np.ndarray]


def kept(path: Path | None, compute: Callable[[], Arrays]) -> Arrays:
    """Return what an earlier call with this path computed, or else compute and keep it.

    Args:
        path: an .npz file, named by the content of all that the arrays depend on; None: nothing is
            kept. A damaged one is made again.
        compute: returns arrays of numbers or strings, by name.
    """
    if path is not None and path.exists():
        try:
            with np.load(path, allow_pickle=False) as found:
                return dict(found)
        except (ValueError, EOFError, zipfile.BadZipFile):
            pass
    arrays = {name: np.asarray(value) for name, value in compute().items()}
    if path is not None:
        file = io.BytesIO()
        # Told not to pickle, NumPy before 2.2 would keep `allow_pickle` as one more array.
        np.savez(file, **arrays)  # type: ignore[arg-type]
        atomic_write(path, file.getvalue())
    return arrays


# A keras.Model or a loaded SavedModel: called as encoder(images [N, S, S, 3], training=False).
Encoder = Callable[..., tf.Tensor]


@dataclass(frozen=True)
class Features:
    """What an encoder says about a split, in the split's order.

    `features` is float32 [N, D], perhaps mapped from a file; `labels` is int64 [N], -1 where an
    image has none, or where an image has any number of classes [N, C] of 1 (there), 0 (not there)
    and -1 (present but excluded from the metric).
    """

    features: np.ndarray
    labels: np.ndarray

    @property
    def num_examples(self) -> int:
        """Return N."""
        return len(self.features)


class FeatureExtractor:
    """Turns splits into features with one graph, however many splits and however often.

    Args:
        encoder: called in inference mode on float32 images [batch_size, S, S, 3] in [0, 1]; its
            weights may change between calls, where there is no `cache_dir`.
        image_size: S, the side in pixels to which `eval_transform` brings the images.
        batch_size: images per call; the last batch is padded.
        cache_dir: where features are kept, and found again by content; None: nowhere.
        identity: of the encoder, for the cache: another one for other features.
        say: takes the lines of progress.
    """

    def __init__(
        self,
        encoder: Encoder,
        image_size: int,
        batch_size: int = 256,
        cache_dir: Path | None = None,
        identity: str = "",
        say: Callable[[str], None] = print,
    ) -> None:
        if cache_dir is not None and not identity:
            raise ValueError("a cache needs the identity of the encoder")
        self._image_size, self._batch_size = image_size, batch_size
        self._cache_dir, self._identity, self._say = cache_dir, identity, say

        def embed(images: tf.Tensor, aspect: tf.Tensor | None) -> tf.Tensor:
            outputs = encoder(eval_transform(images, image_size, aspect), training=False)
            if outputs.shape.rank != 2:
                raise UserError(
                    f"the encoder gives outputs of shape {outputs.shape}, and evaluation needs "
                    "one vector per image: let it end in a global pooling"
                )
            return tf.cast(outputs, tf.float32)

        self._embed = trace_per_shape(embed)

    def __call__(self, source: ImageSource) -> Features:
        """Return the features of every example of `source`, in the source's order.

        Raises:
            UserError: the source is empty, an image cannot be read, or the encoder gives something
                other than one vector per image, or a feature that is not finite.
        """
        if not source.num_examples:
            raise UserError(f"{source.name} holds no images; choose another split")
        place = self.cache_path(source)
        if place is None:
            return self._stored(source, FeatureStore(None, source.num_examples))
        wait = f"another process is at the features of {source.name}: waiting for it"
        with directory_lock(place, lambda: self._say(wait)):
            return self._stored(source, FeatureStore(place, source.num_examples))

    def cache_path(self, source: ImageSource) -> Path | None:
        """Return the directory of this encoder and source in the cache, None without one."""
        if self._cache_dir is None:
            return None
        key = content_hash(__version__, self._identity, source.fingerprint(), self._image_size)
        return self._cache_dir / key[:16]

    def _stored(self, source: ImageSource, store: FeatureStore) -> Features:
        if not store.is_complete:
            with decode_errors_name_image(source):
                self._extract(source, store)
        return Features(*store.read())

    def _extract(self, source: ImageSource, store: FeatureStore) -> None:
        progress = LineProgress(f"features of {source.name}", source.num_examples, self._say)
        if store.count:
            progress.resume(store.count)
        for batch in sequential_batches(source, self._batch_size, start=store.count):
            images, aspect = batch["image"], batch.get("aspect")
            count = len(images)
            missing = self._batch_size - count
            images = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
            if aspect is not None:
                aspect = tf.pad(aspect, [[0, missing]], constant_values=1.0)
            block = self._embed(images, aspect).numpy()[:count]
            require_finite(block, store.count, source)
            labels = batch["label"].numpy() if "label" in batch else np.full(count, -1)
            store.add(block, labels.astype(np.int64))
            progress.show(store.count)
        store.finish()


def require_finite(features: np.ndarray, start: int, source: ImageSource) -> None:
    """Raise UserError if features [n, D] of the images from `start` on are not all finite."""
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        first = start + int(np.argmin(finite))
        raise UserError(
            f"the encoder gives features that are not finite (first for image {first} of "
            f"{source.name}): its weights have diverged; evaluate an earlier checkpoint, or train "
            "again with a lower --learning_rate"
        )


def trace_per_shape(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of tensors (or None) as graphs, one for all calls of the same shapes.

    TensorFlow warns of functions that are traced again and again, and takes those of several
    encoders for one; it does not look at graphs that were asked for.
    """
    trace = tf.function(function, autograph=False).get_concrete_function
    graphs: dict[Any, Callable[..., Any]] = {}

    def call(*arguments: Any) -> Any:
        given = [argument for argument in arguments if argument is not None]
        specs = [None if x is None else tf.TensorSpec(x.shape, x.dtype) for x in arguments]
        key = str(specs)
        if key not in graphs:
            graphs[key] = trace(*specs)
        return graphs[key](*given)

    return call


def extract_features(
    encoder: Encoder, source: ImageSource, image_size: int, batch_size: int = 256
) -> Features:
    """Return the features of one split, as `FeatureExtractor` does for several."""
    return FeatureExtractor(encoder, image_size, batch_size)(source)


def hash_weights(variables: Iterable[Any]) -> str:
    """Return a digest of variables' values, for a FeatureExtractor's `identity`."""
    return content_hash(*(variable.numpy() for variable in variables))
