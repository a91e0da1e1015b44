"""`folder:PATH`: image files at any depth, with or without classes."""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from simclr_tf.data.base import IndexedSource, content_hash, host_constant, split_indices
from simclr_tf.data.decoding import (
    UnreadableImageError,
    check_image_header,
    decode_rgb,
    resize_to_square,
)
from simclr_tf.errors import UserError
from simclr_tf.utils.progress import Progress

FOLDER_PREFIX = "folder:"
SPLITS = ("train", "validation", "test")
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp")

# Reading headers waits for the disk or the network, not for the processor.
_THREADS = 4 * (os.cpu_count() or 1)

logger = logging.getLogger(__name__)


class FolderSource(IndexedSource):
    """Image files, relative to a root folder, resized to a square when they are read."""

    def __init__(
        self,
        name: str,
        root: str,
        files: Sequence[str],
        storage_size: int,
        labels: np.ndarray | None = None,
        class_names: tuple[str, ...] | None = None,
    ):
        self.name = name
        self.class_names = class_names
        self.image_shape = (storage_size, storage_size, 3)
        self._root = root
        self._paths = host_constant([os.fsencode(os.path.join(root, file)) for file in files])
        self._labels = None if labels is None else host_constant(labels)
        self._set_indices(np.arange(len(files)))

    def decode(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        image = decode_rgb(tf.io.read_file(tf.gather(self._paths, record)))
        square, aspect = resize_to_square(image, self.image_shape[0])
        decoded = {"image": square, "aspect": aspect}
        if self._labels is not None:
            decoded["label"] = tf.gather(self._labels, record)
        return decoded

    def labels(self) -> np.ndarray:
        self._require_labels()
        assert self._labels is not None
        return self._labels.numpy()[self.indices]

    def image_ids(self, positions: np.ndarray) -> list[str]:
        paths = tf.gather(self._paths, self.indices[positions]).numpy()
        return [os.path.relpath(os.fsdecode(path), self._root) for path in paths]

    def fingerprint(self) -> str:
        paths = [os.fsdecode(path) for path in self._paths.numpy()[self.indices]]
        root = os.path.commonpath(paths)
        stats = [(os.path.relpath(path, root), os.stat(path)) for path in paths]
        files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
        labels = [] if self._labels is None else [self.labels()]
        return content_hash(files, self.image_shape, *labels)

    def with_storage_size(self, size: int) -> FolderSource:
        source = copy.copy(self)
        source.image_shape = (size, size, 3)
        return source

    def describe(self, record: tf.Tensor) -> str:
        return os.fsdecode(self._paths[record].numpy())


def open_folder(
    path: str, split: str, storage_size: int | None, skip_unreadable: bool
) -> FolderSource:
    """Opens a split of a folder of images, as `open_source` describes it.

    Subfolders `train`, `validation` and `test` are the splits; without any of them, everything is
    `train`. The images have classes if every image of a split lies in a subfolder of it and there
    are at least two; all splits share one numbering of classes. The stored order is a fixed
    permutation of the sorted paths, so that a slice such as `train[:90%]` contains every class.
    """
    dataset, root = FOLDER_PREFIX + path, os.path.expanduser(path)
    if not os.path.isdir(root):
        raise UserError(f"--dataset={dataset}: expected a folder, but {root} does not exist")
    if storage_size is None:
        raise UserError(
            f"--dataset={dataset}: expected storage_size, the side to which images are resized"
        )
    layout = _read_layout(root)
    if not layout.splits:
        raise UserError(
            f"--dataset={dataset} contains no images: expected files that end in "
            f"{', '.join(EXTENSIONS)}"
        )
    splits = {name: _shuffled(paths) for name, paths in layout.splits.items()}

    # Resolved twice, because percentages refer to the readable files.
    used = dict.fromkeys(name for name, _ in split_indices(dataset, split, _split_sizes(splits)))
    checked = [file for name in used for file in splits[name]]
    unreadable = _find_unreadable(root, checked, skip_unreadable)
    if unreadable and not skip_unreadable:
        first = min(unreadable)
        raise UserError(
            f"{os.path.join(root, first)} {unreadable[first]}; {len(unreadable)} of {len(checked)} "
            "files cannot be read. Fix: remove them or pass --skip_unreadable."
        )
    for name in used:
        splits[name] = [file for file in splits[name] if file not in unreadable]
    _log_summary(dataset, layout, _split_sizes(splits), unreadable)
    parts = split_indices(dataset, split, _split_sizes(splits))
    files = [splits[name][index] for name, indices in parts for index in indices]

    class_index = {name: i for i, name in enumerate(_class_names(layout, splits))}
    folders = [_class_folder(layout, file) for file in files]
    labels, names = None, None
    if set(folders) <= set(class_index):
        labels = np.array([class_index[folder] for folder in folders])
        names = tuple(class_index)
    return FolderSource(f"{dataset} {split}", root, files, storage_size, labels, names)


class _Layout(NamedTuple):
    """Contents of a folder."""

    splits: dict[str, list[str]]  # sorted paths, relative to the folder, if a split has any
    ignored: Counter[str]  # number of files of every other extension
    has_split_folders: bool
    num_outside_splits: int  # number of images


def _read_layout(root: str) -> _Layout:
    """Walks a folder, following links once; hidden files and folders are skipped."""
    images, ignored, visited = [], Counter[str](), set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in files:
            extension = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if extension in EXTENSIONS:
                images.append(os.path.relpath(os.path.join(folder, name), root))
            else:
                ignored[extension or "without extension"] += 1
    images.sort()
    splits = {split: [p for p in images if PurePath(p).parts[0] == split] for split in SPLITS}
    has_split_folders = any(os.path.isdir(os.path.join(root, split)) for split in SPLITS)
    if not has_split_folders:
        splits = {"train": images}
    splits = {split: paths for split, paths in splits.items() if paths}
    num_outside = len(images) - sum(map(len, splits.values()))
    return _Layout(splits, ignored, has_split_folders, num_outside)


def _class_folder(layout: _Layout, path: str) -> str:
    """Returns the class folder of a relative path, "" if the file lies in none."""
    parts = PurePath(path).parts[layout.has_split_folders : -1]
    return parts[0] if parts else ""


def _class_names(layout: _Layout, splits: dict[str, list[str]]) -> list[str]:
    """Returns the names of all class folders of splits whose every image lies in one."""
    names: set[str] = set()
    for paths in splits.values():
        folders = {_class_folder(layout, path) for path in paths}
        if "" not in folders:
            names |= folders
    return sorted(names) if len(names) > 1 else []


def _shuffled(paths: list[str]) -> list[str]:
    order = np.random.Generator(np.random.Philox(0)).permutation(len(paths))
    return [paths[i] for i in order]


def _split_sizes(splits: dict[str, list[str]]) -> dict[str, int]:
    return {name: len(paths) for name, paths in splits.items()}


def _find_unreadable(root: str, files: list[str], decode: bool) -> dict[str, str]:
    """Returns the files that cannot be read, with the reason; checks headers or decodes too."""

    def check(file: str) -> str | None:
        return _unreadable_reason(os.path.join(root, file), decode)

    unreadable: dict[str, str] = {}
    description = "decoding every image" if decode else "reading image headers"
    with (
        ThreadPool(_THREADS) as pool,
        Progress(description, len(files), "files") as progress,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # Pillow's, of damaged metadata and large images
        for i, reason in enumerate(pool.imap(check, files, chunksize=16)):
            if reason:
                unreadable[files[i]] = reason
            progress.update(i + 1)
    return unreadable


def _unreadable_reason(path: str, decode: bool) -> str | None:
    try:
        check_image_header(path)
        if decode:
            with tf.device("CPU:0"):
                decode_rgb(tf.io.read_file(os.fsencode(path)))
    except UnreadableImageError as error:
        return str(error)
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    except tf.errors.InvalidArgumentError:
        return "has the header of an image but cannot be decoded"
    return None


def _log_summary(
    dataset: str, layout: _Layout, sizes: dict[str, int], unreadable: dict[str, str]
) -> None:
    line = f"{dataset}: " + ", ".join(f"{size:,} images in {name}" for name, size in sizes.items())
    if unreadable:
        first = min(unreadable)
        line += f"; skipped {len(unreadable):,} unreadable, the first: {first} {unreadable[first]}"
    if layout.ignored:
        ignored = ", ".join(f"{count:,} {kind}" for kind, count in layout.ignored.most_common())
        line += f"; ignored {ignored}"
    if layout.num_outside_splits:
        line += f"; {layout.num_outside_splits:,} images outside the split folders are not used"
    logger.info(line)
