"""Which images lie in a folder, and what its subfolders say about splits and classes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import PurePath
from typing import NamedTuple

SPLITS = ("train", "validation", "test")
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp")


class Layout(NamedTuple):
    """What lies in a folder.

    Attributes:
      splits: the sorted paths, relative to the folder, of every split that has files.
      ignored: how many files have which other extension.
      has_split_folders: whether the splits are subfolders.
      outside: how many images lie beside the folders of the splits.
    """

    splits: dict[str, list[str]]
    ignored: Counter[str]
    has_split_folders: bool = False
    outside: int = 0


def read_layout(root: str) -> Layout:
    """Walks a folder, following links once; hidden files and folders are passed over."""
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
    if not any(os.path.isdir(os.path.join(root, split)) for split in SPLITS):
        return Layout({"train": images} if images else {}, ignored)
    splits = {split: [path for path in images if _top(path) == split] for split in SPLITS}
    splits = {split: paths for split, paths in splits.items() if paths}
    return Layout(splits, ignored, True, len(images) - sum(map(len, splits.values())))


def class_folder(path: str, split_folders: bool) -> str | None:
    """The class folder of a relative path, None if the file lies in none."""
    parts = PurePath(path).parts[split_folders:]
    return parts[0] if len(parts) > 1 else None


def class_names(splits: dict[str, list[str]], split_folders: bool) -> tuple[str, ...] | None:
    """The names of all class folders, of those splits whose every image lies in one."""
    names: set[str] = set()
    for paths in splits.values():
        folders = {class_folder(path, split_folders) for path in paths}
        if None not in folders:
            names.update(folder for folder in folders if folder is not None)
    return tuple(sorted(names)) if len(names) > 1 else None


def _top(path: str) -> str:
    return PurePath(path).parts[0]
