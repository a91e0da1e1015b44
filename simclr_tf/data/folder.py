"""`folder:PATH`: image files in any depth, with or without classes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from simclr_tf.data.base import IndexedSource, content_hash, host_constant
from simclr_tf.data.decoding import decode_rgb, resize_to_square
from simclr_tf.data.folder_layout import (
    EXTENSIONS,
    Layout,
    class_folder,
    class_names,
    read_layout,
)
from simclr_tf.data.image_headers import UnreadableImageError, read_header
from simclr_tf.data.splits import split_indices
from simclr_tf.errors import UserError

FOLDER_PREFIX = "folder:"

# Reading headers waits for the disk or the network, not for the processor.
_THREADS = 4 * (os.cpu_count() or 1)
_CHUNK = 16


class FolderSource(IndexedSource):
    """Image files, resized to a square as they are read.

    Args:
      name: for messages.
      root: the folder.
      files: the path of every image, relative to it.
      storage_size: the side of the square in pixels.
      labels: int64, one for every path, or None.
      class_names: their names, or None.
    """

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
        self._set_rows(np.arange(len(files)))

    def decode(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads and decodes the file of one row."""
        image = decode_rgb(tf.io.read_file(tf.gather(self._paths, record)))
        square, aspect = resize_to_square(image, self.image_shape[0])
        decoded = {"image": square, "aspect": aspect}
        if self._labels is not None:
            decoded["label"] = tf.gather(self._labels, record)
        return decoded

    def labels(self) -> np.ndarray:
        """The classes of the rows' folders."""
        self._require_labels()
        assert self._labels is not None
        return self._labels.numpy()[self.rows]

    def image_ids(self, positions: np.ndarray) -> list[str]:
        """The paths within the folder."""
        paths = tf.gather(self._paths, self.rows[positions]).numpy()
        return [os.path.relpath(os.fsdecode(path), self._root) for path in paths]

    def fingerprint(self) -> str:
        """A digest of the rows' paths, sizes and times of change."""
        paths = [os.fsdecode(path) for path in self._paths.numpy()[self.rows]]
        root = os.path.commonpath(paths)
        files = [(os.path.relpath(path, root), os.stat(path)) for path in paths]
        found = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]
        return content_hash(
            found, self.image_shape, *([] if self._labels is None else [self.labels()])
        )

    def describe(self, record: tf.Tensor) -> str:
        """The file's path."""
        return os.fsdecode(self._paths[record].numpy())


def open_folder(
    path: str, split: str, storage_size: int | None, skip_unreadable: bool
) -> FolderSource:
    """Opens a split of a folder of images.

    Subfolders `train`, `validation` and `test` are the splits; without any, everything is
    `train`. Files are taken by their extension and checked by their first bytes. The images have
    classes where every one of a split lies in a subfolder of it, and there are at least two; the
    classes are numbered alike in all splits. The stored order is one fixed permutation of the
    sorted paths, so that a slice such as `train[:90%]` holds every class.

    Args:
      path: the folder.
      split: a split, slice or sum, in TFDS's syntax.
      storage_size: the side of the square to which images are resized.
      skip_unreadable: leave out files that cannot be read, after decoding every file once.

    Raises:
      UserError: no such folder or split, no images, or a file that cannot be read.
    """
    dataset, root = FOLDER_PREFIX + path, os.path.expanduser(path)
    if not os.path.isdir(root):
        raise UserError(f"--dataset={dataset}: there is no folder {root}")
    if storage_size is None:
        raise UserError(f"--dataset={dataset} needs storage_size, the side to resize images to")
    layout = read_layout(root)
    if not layout.splits:
        raise UserError(f"--dataset={dataset} holds no images: looked for {', '.join(EXTENSIONS)}")
    splits = {name: _shuffled(paths) for name, paths in layout.splits.items()}

    # Resolved twice, because a percentage is one of the files that can be read.
    used = dict.fromkeys(name for name, _ in split_indices(dataset, split, _sizes(splits)))
    checked = [file for name in used for file in splits[name]]
    unreadable = _unreadable(root, checked, skip_unreadable)
    if unreadable and not skip_unreadable:
        first = min(unreadable)
        raise UserError(
            f"{os.path.join(root, first)} {unreadable[first]}; {len(unreadable)} of {len(checked)} "
            "files cannot be read: remove them, or pass --skip_unreadable"
        )
    for name in used:
        splits[name] = [file for file in splits[name] if file not in unreadable]
    _report(dataset, layout, _sizes(splits), unreadable)
    rows = split_indices(dataset, split, _sizes(splits))
    files = [splits[name][row] for name, rows_of_split in rows for row in rows_of_split]

    split_folders = layout.has_split_folders
    names = class_names(splits, split_folders)
    folders = [class_folder(file, split_folders) for file in files]
    labels = None
    if names is None or not set(folders) <= set(names):
        names = None
    else:
        number = {name: i for i, name in enumerate(names)}
        labels = np.array([number[folder] for folder in folders if folder is not None])
    return FolderSource(f"{dataset} {split}", root, files, storage_size, labels, names)


def _shuffled(paths: list[str]) -> list[str]:
    order = np.random.Generator(np.random.Philox(0)).permutation(len(paths))
    return [paths[i] for i in order]


def _sizes(splits: dict[str, list[str]]) -> dict[str, int]:
    return {name: len(paths) for name, paths in splits.items()}


def _unreadable(root: str, files: list[str], decode: bool) -> dict[str, str]:
    """The files that cannot be read, with the reason; by their headers alone or decoded too."""

    def check(chunk: list[str]) -> list[tuple[str, str]]:
        reasons = ((file, _reason(os.path.join(root, file), decode)) for file in chunk)
        return [(file, reason) for file, reason in reasons if reason is not None]

    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    found: dict[str, str] = {}
    description = "decoding every image" if decode else "reading image headers"
    # The bar shows on a terminal only.
    bar = tqdm(total=len(files), desc=description, unit=" files", disable=None, leave=False)
    with ThreadPoolExecutor(_THREADS) as pool, bar:
        for chunk, unreadable in zip(chunks, pool.map(check, chunks), strict=True):
            found.update(unreadable)
            bar.update(len(chunk))
    return found


def _reason(path: str, decode: bool) -> str | None:
    """Why a file cannot be read, None if it can."""
    try:
        read_header(path)
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


def _report(
    dataset: str, layout: Layout, sizes: dict[str, int], unreadable: dict[str, str]
) -> None:
    """One line: what was found and what was left out."""
    line = f"{dataset}: " + ", ".join(f"{size:,} images in {name}" for name, size in sizes.items())
    if unreadable:
        first = min(unreadable)
        line += f"; skipped {len(unreadable):,} unreadable, the first: {first} {unreadable[first]}"
    if layout.ignored:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in layout.ignored.most_common())
        line += f"; ignored {kinds}"
    if layout.outside:
        line += f"; {layout.outside:,} images outside the folders of the splits are not used"
    print(line, file=sys.stderr, flush=True)
