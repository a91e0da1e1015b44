"""`folder:PATH`: image files at any depth, with or without classes."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from simclr_tf.data.base import (
    ImageSource,
    IndexedSource,
    content_hash,
    host_constant,
    split_indices,
)
from simclr_tf.data.decoding import decode_rgb, resize_to_square
from simclr_tf.data.file_check import check_files, content_of, find_copies, forget_checks
from simclr_tf.data.folder_layout import (
    EXTENSIONS,
    FolderLayout,
    list_names,
    read_layout,
)
from simclr_tf.errors import UserError
from simclr_tf.options import FOLDER_PREFIX
from simclr_tf.utils.files import pluralize
from simclr_tf.utils.paths import printable

logger = logging.getLogger(__name__)


class FolderSource(IndexedSource):
    """Image files, relative to a root folder, resized to a square when they are read.

    `content` are hashes of all files, uint64.
    """

    def __init__(
        self,
        name: str,
        root: str,
        files: Sequence[str],
        storage_size: int,
        labels: np.ndarray | None = None,
        class_names: tuple[str, ...] | None = None,
        content: Sequence[int] = (),
    ):
        self.name = printable(name)
        self.class_names = class_names
        self.image_shape = (storage_size, storage_size, 3)
        self._root = root
        self.content = np.array(content, np.uint64)
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

    def files(self) -> list[str]:
        """Returns the paths of the images in stored order."""
        return [os.fsdecode(path) for path in self._paths.numpy()[self.indices]]

    def fingerprint(self) -> str:
        paths = self.files()
        root = os.path.commonpath(paths)
        stats = [(os.path.relpath(path, root), os.stat(path)) for path in paths]
        files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
        labels = [] if self._labels is None else [self.labels()]
        return content_hash(files, self.image_shape, *labels)

    def with_storage_size(self, size: int) -> FolderSource:
        source = copy.copy(self)
        source.image_shape = (size, size, 3)
        return source

    def reordered(self, indices: np.ndarray) -> FolderSource:
        """Returns the files at these indices, in this order, as often as they occur."""
        part = copy.copy(self)
        part._set_indices(indices)
        return part

    def forget_checks(self) -> None:
        forget_checks(self._root)

    def describe(self, record: tf.Tensor) -> str:
        return os.fsdecode(self._paths[record].numpy())


def open_folder(
    path: str,
    split: str,
    storage_size: int | None,
    *,
    skip_unreadable: bool,
    max_pixels: int,
    drop_duplicates: bool,
    labels: bool,
) -> FolderSource:
    """Opens a split of a folder of images, as `open_source` describes it.

    `read_layout` finds splits and classes; all splits share one numbering of classes. The images
    have classes if every image of a split lies in a class folder and there are at least two. The
    stored order is a fixed permutation of the sorted paths, so that a slice such as `train[:90%]`
    contains every class.
    """
    dataset, root = FOLDER_PREFIX + path, os.path.expanduser(path)
    if not os.path.isdir(root):
        raise UserError(
            f"--dataset={dataset}: expected a folder, but {root} does not exist. Fix: check the "
            "path"
        )
    if storage_size is None:
        raise UserError(
            f"--dataset={dataset}: expected storage_size, the side to which images are "
            "resized. Fix: pass it"
        )
    layout = read_layout(root)
    ignored = layout.describe_ignored()
    if layout.unreadable and not skip_unreadable:
        first = min(layout.unreadable)
        raise UserError(
            f"{os.path.normpath(os.path.join(root, first))} cannot be opened "
            f"({layout.unreadable[first]}); {pluralize(len(layout.unreadable), 'subfolder')} of "
            f"--dataset={dataset} cannot be read. Fix: change the permissions or pass "
            "--skip_unreadable"
        )
    if not layout.splits:
        raise UserError(
            f"--dataset={dataset} contains no images: expected files that end in "
            f"{', '.join(EXTENSIONS)}{ignored}. Fix: choose the folder that contains them"
        )
    splits = {name: _shuffled(paths) for name, paths in layout.splits.items()}

    # Resolved twice, because percentages refer to the files that are used.
    used = dict.fromkeys(
        name for name, _ in split_indices(dataset, split, _split_sizes(splits), ignored)
    )
    checked = [file for name in used for file in splits[name]]
    checks = check_files(root, checked, skip_unreadable, max_pixels)
    unreadable = {file: check.reason for file, check in checks.items() if check.reason}
    if unreadable and not skip_unreadable:
        first = min(unreadable)
        raise UserError(
            f"{os.path.join(root, first)} {unreadable[first]}; {len(unreadable)} of {len(checked)} "
            f"files cannot be read{ignored}. Fix: remove them or pass --skip_unreadable."
        )
    copies: dict[str, str] = {}
    for name in used:
        splits[name] = [file for file in splits[name] if file not in unreadable]
        found = find_copies(root, {file: checks[file] for file in splits[name]})
        copies |= found
        if drop_duplicates:
            splits[name] = [file for file in splits[name] if file not in found]
    classes, no_classes = layout.classes(splits) if labels else ({}, "--labels=none")
    names = list_names(set(classes.values()))
    found_classes = (
        f"{len(set(classes.values())):,} classes from subfolders ({names})"
        if classes
        else f"no classes ({no_classes})"
    )
    _log_summary(dataset, layout, splits, found_classes, unreadable, copies, drop_duplicates)
    parts = split_indices(dataset, split, _split_sizes(splits), ignored)
    files = [splits[name][index] for name, indices in parts for index in indices]

    folders = [layout.class_folder(file) for file in files]
    content = [checks[file].content for file in files]
    source_name = f"{dataset} {split}"
    if not set(folders) <= set(classes):
        return FolderSource(source_name, root, files, storage_size, content=content)
    class_names = tuple(dict.fromkeys(classes.values()))
    class_index = {name: class_names.index(classes[name]) for name in classes}
    numbers = np.array([class_index[folder] for folder in folders])
    return FolderSource(source_name, root, files, storage_size, numbers, class_names, content)


def log_shared_images(train: ImageSource | None, test: ImageSource | None) -> None:
    """Logs how many test images are copies of, or links to, training images in other files."""
    if not isinstance(train, FolderSource) or not isinstance(test, FolderSource):
        return
    files = [
        dict(zip(source.files(), source.content[source.indices].tolist(), strict=True))
        for source in (train, test)
    ]
    both = set(files[0].values()) & set(files[1].values())
    train_files, test_files = ([f for f, c in part.items() if c in both] for part in files)
    contents = {content_of(file) for file in train_files}
    shared = [f for f in test_files if f not in files[0] and content_of(f) in contents]
    if shared:
        logger.warning(
            f"note: {len(shared):,} of the {pluralize(len(files[1]), 'image')} of {test.name} are "
            f"also in {train.name}, such as {printable(min(shared))}"
        )


def _shuffled(paths: list[str]) -> list[str]:
    order = np.random.Generator(np.random.Philox(0)).permutation(len(paths))
    return [paths[i] for i in order]


def _split_sizes(splits: dict[str, list[str]]) -> dict[str, int]:
    return {name: len(paths) for name, paths in splits.items()}


def _log_summary(
    dataset: str,
    layout: FolderLayout,
    splits: dict[str, list[str]],
    classes: str,
    unreadable: dict[str, str],
    copies: dict[str, str],
    drop_duplicates: bool,
) -> None:
    parts = []
    for name, files in splits.items():
        folders = layout.split_folders.get(name, [])
        origin = "" if folders in ([], [name]) else f" (folder {list_names(folders)})"
        parts.append(f"{pluralize(len(files), 'image')} in {name}{origin}")
    line = f"{printable(dataset)}: {', '.join(parts)}; {classes}"
    if unreadable:
        first = min(unreadable)
        line += (
            f"; skipped {len(unreadable):,} unreadable, the first: {printable(first)} "
            f"{unreadable[first]}"
        )
    if layout.unreadable:
        count = pluralize(len(layout.unreadable), "unreadable subfolder")
        line += f"; skipped {count}: {list_names(layout.unreadable)}"
    if copies:
        first = min(copies)
        verb = "dropped" if drop_duplicates else "found"
        line += f"; {verb} {pluralize(len(copies), 'duplicate')}, links and exact copies such as "
        line += f"{printable(first)} of {printable(copies[first])}"
        line += "" if drop_duplicates else " (--duplicates=drop drops them)"
    line += layout.describe_ignored()
    if unused := layout.unused.total():
        line += f"; not used: {pluralize(unused, 'image')} outside the split folders, in "
        line += list_names(layout.unused)
    logger.info(line)
