"""Contents of a folder: images by split and class, and the files that are not images."""

import dataclasses
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import PurePath

from simclr_tf.utils.files import pluralize
from simclr_tf.utils.paths import printable

SPLITS = ("train", "validation", "test")
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp")

# Folders of storage and operating systems, which hold thumbnails, deleted files and the like.
_SYSTEM_FOLDERS = {
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "@__thumb"),
    *("__macosx", "ipod photo cache", "$recycle.bin", "system volume information", "recycler"),
    *("lost+found", "lost.dir"),
}
# Files that mark a directory as an output of this program, with a key of their JSON.
_OUTPUT_MARKERS = {
    "config.json": "simclr_tf",
    "study.json": "simclr_tf",
    "embedding.json": "representation",
    "evaluations.json": "protocol",
    "state.json": "pid",
}
# Directories of a run or another output next to these files.
_OUTPUT_FOLDERS = {
    *("checkpoints", "embeddings", "evaluations", "export", "features", "projector", "supervised"),
    "tensorboard",
}
_OUTPUT_IMAGES = {"nearest.png", "confusion.png", "sprite.png"}

_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "validate", "valid", "val", "dev", "devel"), "validation"),
    **dict.fromkeys(("eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_SPLIT_FOLDER = re.compile(
    r"(?:(?:seg|public|private|images?|data(?:set)?)[\W_]*)?"
    rf"({'|'.join(sorted(_SPLIT_NAMES, key=len, reverse=True))})"
    r"(?:[\W_]*(?:sets?|images?|imgs?|data(?:set)?|split|photos|pictures|files))?"
    r"(?:[\W_]*(?:19|20)\d\d)?"
)
_WEAK_SPLIT_NAMES = ("valid", "dev", "devel")  # also names of classes
_MAX_SPLIT_DEPTH = 4
_MAX_NAMES = 5


@dataclasses.dataclass
class FolderLayout:
    """Contents of a folder; paths are relative to it and sorted.

    Attributes:
        splits: the images of every split that has any.
        split_folders: the names of the folders of a split, none if there are no split folders.
        class_depth: the position of the class folder in a path.
        ignored: number of other files and folders, by kind.
        unused: number of images outside the split folders, by folder.
        unreadable: the reason why a subfolder cannot be read.
    """

    splits: dict[str, list[str]]
    split_folders: dict[str, list[str]]
    class_depth: int
    ignored: Counter[str]
    unused: Counter[str]
    unreadable: dict[str, str]

    def describe_ignored(self) -> str:
        """Returns what was ignored with counts, such as "; ignored 2 .txt"; empty if nothing."""
        counts = ", ".join(f"{count:,} {kind}" for kind, count in self.ignored.most_common())
        return f"; ignored {counts}" if counts else ""

    def class_folder(self, path: str) -> str:
        """Returns the class folder of a path, "" if the file lies in none."""
        parts = PurePath(path).parts[self.class_depth : -1]
        return parts[0] if parts else ""

    def classes(self, splits: dict[str, list[str]]) -> tuple[dict[str, str], str]:
        """Returns the class of every class folder, and in words why there are none, if so.

        Only splits whose every image lies in a class folder have classes. Names that differ in
        case or in the form of their accents are one class, unless a split has both.
        """
        folders = {s: {self.class_folder(path) for path in paths} for s, paths in splits.items()}
        loose = [path for paths in splits.values() for path in paths if not self.class_folder(path)]
        names = sorted(set().union(*(f for f in folders.values() if "" not in f), ()))
        key: Callable[[str], str] = _normalize
        for found in folders.values():
            if len({_normalize(name) for name in found}) < len(found):
                key = str
        first: dict[str, str] = {}
        for name in names:
            first.setdefault(key(name), name)
        if len(first) < 2:
            if loose:
                return {}, f"{pluralize(len(loose), 'image')} in no subfolder"
            return {}, f"one subfolder, {printable(names[0])}" if names else "no images"
        return {name: printable(first[key(name)]) for name in names}, ""


def read_layout(root: str) -> FolderLayout:
    """Walks a folder, following links to folders once.

    Hidden files, folders of storage systems and outputs of this program are not data. Other images
    next to an output are data.
    """
    images: list[str] = []
    ignored, outputs, unreadable, visited = Counter[str](), set(), {}, set()

    def on_error(error: OSError) -> None:
        unreadable[os.path.relpath(error.filename, root)] = error.strerror or str(error)

    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=on_error):
        real, written = os.path.realpath(folder), _written_images(folder, files)
        if real in visited:
            ignored["links to folders that are used already"] += 1
            subfolders.clear()
            continue
        visited.add(real)
        for name in list(subfolders):
            kind = ""
            if name.casefold() in _SYSTEM_FOLDERS:
                kind = f"{name} folders"
            elif name.startswith("."):
                kind = "hidden folders"
            elif written and name in _OUTPUT_FOLDERS:
                outputs.add(name if folder == root else os.path.relpath(folder, root))
            else:
                continue
            subfolders.remove(name)
            ignored.update([kind] if kind else [])
        subfolders.sort()
        for name in files:
            extension = os.path.splitext(name)[1].lower()
            if name.startswith(".") or name in written:
                ignored["hidden" if name[0] == "." else "written by this program"] += 1
            elif extension in EXTENSIONS:
                images.append(os.path.relpath(os.path.join(folder, name), root))
            elif not written or folder == root:
                ignored[printable(extension) or "without extension"] += 1
    if outputs:
        ignored[f"folders of results ({list_names(outputs)})"] = len(outputs)
    return _split(sorted(images), ignored, unreadable)


def list_names(names: Iterable[str]) -> str:
    """Returns the first names, printable, and the number of others."""
    names = sorted(names)
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(map(printable, names[:_MAX_NAMES])) + more


def _written_images(folder: str, files: list[str]) -> set[str]:
    """Returns names of images that this program writes to a folder, empty if it holds no output."""
    written = set(_OUTPUT_IMAGES) if "saved_model.pb" in files else set()
    for name in _OUTPUT_MARKERS.keys() & set(files):
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                document = json.load(file)
        except (OSError, ValueError):
            continue
        document = document[0] if isinstance(document, list) and document else document
        if isinstance(document, dict) and _OUTPUT_MARKERS[name] in document:
            written |= {*_OUTPUT_IMAGES, f"{document.get('study')}.png"}
    return written


def _split(images: list[str], ignored: Counter[str], unreadable: dict[str, str]) -> FolderLayout:
    """Assigns sorted images to splits and finds where their class folders are."""
    parts = [PurePath(path).parts for path in images]
    depth, split_of = _find_split_folders(parts)
    if not split_of:
        splits = {"train": images} if images else {}
        depth = _class_depth([parts], 0)
        return FolderLayout(splits, {}, depth, ignored, Counter(), unreadable)
    found: dict[str, list[str]] = {}
    unused = Counter[str]()
    for path, names in zip(images, parts, strict=True):
        if split := split_of.get(names[depth] if len(names) > depth + 1 else ""):
            found.setdefault(split, []).append(path)
        else:
            unused[names[depth] if len(names) > depth + 1 else "no folder"] += 1
    splits = {split: found[split] for split in SPLITS if split in found}
    folders = {split: sorted(f for f, s in split_of.items() if s == split) for split in splits}
    if len({names[:depth] for names in parts}) > 1:  # inside class folders
        class_depth = _class_depth([parts], 0)
    else:
        by_split = [[PurePath(path).parts for path in paths] for paths in splits.values()]
        class_depth = _class_depth(by_split, depth + 1)
    return FolderLayout(splits, folders, class_depth, ignored, unused, unreadable)


def _class_depth(splits: list[list[tuple[str, ...]]], depth: int) -> int:
    """Returns the depth of the class folders: the first where a split has several folders.

    Folders that contain a whole split, as in `seg_train/seg_train/cat`, are no classes.
    """
    while all(
        len({path[depth] for path in paths}) == 1 and all(len(path) > depth + 2 for path in paths)
        for paths in splits
    ):
        depth += 1
    return depth


def _find_split_folders(paths: list[tuple[str, ...]]) -> tuple[int, dict[str, str]]:
    """Returns the depth of the split folders and the split of each of their names.

    They lie at the top, in one folder that contains everything (`archive/train`), or in every
    class folder (`cat/train`).
    """
    for depth in range(_MAX_SPLIT_DEPTH):
        names = {path[depth] if len(path) > depth + 1 else "" for path in paths}
        matches = {name: match for name in names if (match := _match_split(name))}
        splits = {name: _SPLIT_NAMES[match] for name, match in matches.items()}
        is_complete = len(splits) == len(names)
        has_several = len(set(splits.values())) > 1
        is_canonical = depth == 0 and any(name.casefold() in SPLITS for name in splits)
        is_certain = any(match not in _WEAK_SPLIT_NAMES for match in matches.values())
        if len({path[:depth] for path in paths}) > 1:
            if splits and is_complete and is_certain:
                return depth, splits
        elif is_canonical or (has_several and is_certain) or (is_complete and is_certain):
            return depth, splits
        if any(len(path) <= depth + 1 for path in paths):
            break
    return 0, {}


def _match_split(name: str) -> str:
    """Returns the word for a split that names a folder, "" if none does."""
    match = _SPLIT_FOLDER.fullmatch(unicodedata.normalize("NFKC", name).casefold())
    return match[1] if match else ""


def _normalize(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
