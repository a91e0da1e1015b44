"""Images in memory: a decoded copy of another source, or arrays and datasets from Python."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf.data.base import ArraySource, ImageSource, decode_records, split_indices
from simclr_tf.data.decoding import decode_errors_name_image
from simclr_tf.errors import UserError
from simclr_tf.utils.files import format_bytes

ARRAY_PREFIX = "array:"

_MAX_CLASSES = 100_000


def max_bytes_in_memory() -> int:
    """Returns half of this machine's memory, the limit for images that are held in memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def load_into_memory(source: ImageSource) -> ArraySource:
    """Decodes a source once into an array (`--cache_dataset`)."""
    shape = (source.num_examples, *source.image_shape)
    required, limit = int(np.prod(shape)), max_bytes_in_memory()
    if required > limit:
        raise UserError(
            f"--cache_dataset: {source.name} takes {format_bytes(required)} decoded, more than "
            f"half of this machine's memory ({format_bytes(limit)}). Fix: remove --cache_dataset."
        )
    images = np.empty(shape, np.uint8)
    columns: dict[str, list[np.ndarray]] = {}
    start = 0
    with decode_errors_name_image(source):
        for batch in decode_records(source, source.records_in_order(), 256).as_numpy_iterator():
            stop = start + len(batch["image"])
            images[start:stop] = batch.pop("image")
            start = stop
            for key, values in batch.items():
                columns.setdefault(key, []).append(values)
    merged = {key: np.concatenate(parts) for key, parts in columns.items()}
    cached = ArraySource(
        source.name,
        images,
        merged.get("label"),
        source.class_names,
        merged.get("aspect"),
        image_ids=source.image_ids,
    )
    cached.multi_label = source.multi_label
    return cached


def from_python(
    images: Any,
    labels: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
) -> ArraySource:
    """Creates an image source from an array or a `tf.data.Dataset`.

    An array is not copied; a dataset is read once into memory.

    Args:
        images: uint8 [N, H, W, 3], or a finite dataset of uint8 images [H, W, 3] of one size
            (batches [B, H, W, 3] are accepted): images alone, (image, label) pairs, or dicts with
            "image" and optionally "label".
        labels: int [N] from 0, or None; for arrays only.
        class_names: name of each label; default: "0", "1", ….
        name: for messages; default: `array:` and the first 12 digits of the content hash, which
            also identifies the images in a run's config.json.

    Returns:
        A source like that of `open_source`.

    Raises:
        UserError: the images or labels have another type, shape or range.

    Example:
        >>> import numpy as np
        >>> import simclr_tf as st
        >>> source = st.data.from_python(np.zeros((4, 8, 8, 3), np.uint8), labels=[0, 1, 1, 0])
        >>> source.num_examples, source.class_names, source.name
        (4, ('0', '1'), 'array:0f166d42bbd4')
    """
    if isinstance(images, tf.data.Dataset):
        if labels is not None:
            raise UserError(
                "labels: not supported next to a tf.data.Dataset. Fix: let the dataset yield "
                "(image, label) pairs."
            )
        images, labels = _read_dataset(images)
    images = _check_images(_to_array(images, "images"))
    names = None
    if labels is not None:
        labels = _check_labels(_to_array(labels, "labels"), len(images))
        names = _check_class_names(class_names, int(labels.max()) + 1)
    elif class_names is not None:
        raise UserError("class_names: given without labels. Fix: pass labels, too.")
    source = ArraySource(name or ARRAY_PREFIX, images, labels, names)
    if name is None:
        source.name = config_name(source)
    return source


@contextlib.contextmanager
def available(sources: Iterable[ArraySource]) -> Iterator[None]:
    """Makes `open_source` find sources from Python by their names within the block."""
    before = dict(_available)
    _available.update((source.name, source) for source in sources)
    try:
        yield
    finally:
        _available.clear()
        _available.update(before)


_available: dict[str, ArraySource] = {}


def open_array(name: str, split: str) -> ImageSource:
    """Opens images from Python, whose only split is `train`; slices are allowed."""
    if name not in _available:
        raise UserError(
            f"--dataset={name}: these images were passed from Python and are not stored. Fix: "
            "pass them from Python again or choose another dataset"
        )
    source = _available[name]
    parts = split_indices(name, split, {"train": source.num_examples})
    indices = np.concatenate([indices for _, indices in parts])
    return source if len(indices) == source.num_examples else source.subset(indices)


def config_name(source: ImageSource) -> str:
    """Returns the name of a source from Python in a run's config.json, made from its content."""
    return f"{ARRAY_PREFIX}{source.fingerprint()[:12]}"


def _to_array(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{name}: expected an array, got {type(values).__name__} ({error})"
        ) from None


def _check_images(images: np.ndarray) -> np.ndarray:
    expected = "images: expected uint8 [N, H, W, 3]"
    if images.dtype != np.uint8:
        fix = ""
        if np.issubdtype(images.dtype, np.floating):
            fix = " Fix: for values in [0, 1], np.round(255 * images).astype(np.uint8)."
        raise UserError(f"{expected}, got {images.dtype}.{fix}")
    if images.ndim != 4 or images.shape[-1] != 3:
        is_gray = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 1)
        fix = " Fix: repeat gray images in three channels." if is_gray else ""
        raise UserError(f"{expected}, got shape {list(images.shape)}.{fix}")
    if not images.size:
        raise UserError(f"{expected} with at least one pixel, got shape {list(images.shape)}.")
    return images


def _check_labels(labels: np.ndarray, count: int) -> np.ndarray:
    if labels.shape != (count,):
        raise UserError(
            f"labels: expected one for each of {count} images, got {list(labels.shape)}."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels: expected integers, got {labels.dtype}.")
    extreme = labels.min() if labels.min() < 0 else labels.max()
    if not 0 <= extreme < _MAX_CLASSES:
        raise UserError(
            f"labels: expected class numbers from 0 to {_MAX_CLASSES - 1}, got {extreme}."
        )
    return labels.astype(np.int64)


def _check_class_names(names: Sequence[str] | None, num_classes: int) -> tuple[str, ...]:
    if names is None:
        return tuple(map(str, range(num_classes)))
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise UserError(f"class_names: expected a list of strings, got {names!r}.")
    if len(names) < num_classes or len(set(names)) < len(names):
        raise UserError(
            f"class_names: expected at least {num_classes} different names, got {len(names)} of "
            f"which {len(set(names))} differ."
        )
    return tuple(names)


def _read_dataset(dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads images and, if the elements have them, labels."""
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise UserError("images: expected a finite tf.data.Dataset. Fix: dataset.take(steps).")
    specs = _image_and_label(dataset.element_spec)
    is_pair = len(specs) == 2 and isinstance(specs[1], tf.TensorSpec | None)
    if not is_pair or not isinstance(specs[0], tf.TensorSpec):
        raise UserError(
            'images: expected a dataset of images, (image, label) pairs or dicts with "image" and '
            f'"label", got {dataset.element_spec}.'
        )
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    size, limit = 0, max_bytes_in_memory()
    for image, label in map(_image_and_label, dataset.as_numpy_iterator()):
        image = np.asarray(image)
        is_batch = image.ndim == 4
        if image.ndim not in (3, 4) or (images and image.shape[-3:] != images[0].shape[1:]):
            raise UserError(
                "images: expected a dataset of images [H, W, 3] of one size, got shape "
                f"{list(image.shape)}. Fix: resize them."
            )
        images.append(image if is_batch else image[np.newaxis])
        if label is not None:
            labels.append(np.asarray(label) if is_batch else np.asarray(label)[np.newaxis])
        size += image.nbytes
        if size > limit:
            raise UserError(
                f"images: the dataset takes more than {format_bytes(limit)}, half of this "
                "machine's memory. Fix: write the images to files and use folder:PATH."
            )
    if not images:
        raise UserError("images: expected at least one image, got an empty tf.data.Dataset.")
    try:
        return np.concatenate(images), np.concatenate(labels) if labels else None
    except ValueError as error:
        raise UserError(
            f"labels: expected one integer per image, got other shapes ({error})."
        ) from None


def _image_and_label(element: Any) -> tuple[Any, ...]:
    """Returns (image, label or None) of an element or its specification."""
    if isinstance(element, dict):
        return element.get("image"), element.get("label")
    return element if isinstance(element, tuple) else (element, None)
