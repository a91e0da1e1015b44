"""The images of a run, by which it recognizes them when it is resumed."""

import hashlib
import logging
from pathlib import Path

import numpy as np

from simclr_tf.data.folder import FolderSource
from simclr_tf.errors import UserError
from simclr_tf.utils.files import pluralize, save_npz

_MAX_CHANGED = 0.1  # fraction of the images that may be missing or replaced

logger = logging.getLogger(__name__)


def save_image_list(path: Path, source: FolderSource) -> None:
    """Writes the contents and names of a folder's images, as hashes in stored order."""
    save_npz(path, content=source.content, name=_name_hashes(source))


def match_images(path: Path, source: FolderSource, *, may_lack: bool) -> FolderSource:
    """Returns the images in the order of a run's list, wherever the folder is now.

    An image with the name of another one in the list replaces it. With `may_lack`, other images
    take the place of missing ones, so that all others keep their place in every epoch.

    Raises:
        UserError: other images are missing or new.
    """
    with np.load(path) as file:
        contents, names = file["content"], file["name"]
    if np.array_equal(contents, source.content):
        return source
    rows = _match(contents, source.content)
    new = np.setdiff1d(np.arange(len(source.content)), rows)
    missing = np.flatnonzero(rows < 0)
    replaced = _match(names[missing], _name_hashes(source)[new]) if len(new) else missing * 0 - 1
    rows[missing[replaced >= 0]] = new[replaced[replaced >= 0]]
    lost, num_new = np.flatnonzero(rows < 0), len(new) - np.count_nonzero(replaced >= 0)
    differences = [
        f"{count:,} {word}"
        for count, word in (
            (len(missing) - len(lost), "replaced"),
            (len(lost), "missing or unreadable"),
            (num_new, "new"),
        )
        if count
    ]
    problem = ""
    if len(missing) > max(1, _MAX_CHANGED * len(rows)) or len(lost) == len(rows):
        problem = "Fix: choose the folder of this run, or another --model_dir"
    elif num_new:
        problem = "Fix: remove the new ones, or choose another --model_dir"
    elif len(lost) and not may_lack:
        problem = "Fix: restore them, or continue without them: --skip_unreadable"
    of = f"of {pluralize(len(rows), 'image')}"
    if problem:
        raise UserError(
            f"{path.parent} holds a run with other images: {', '.join(differences)}, {of}. "
            f"{problem} (with --checkpoint to keep the weights)"
        )
    if differences:
        place = "; others take their place" if len(lost) else ""
        logger.warning(f"note: continuing with {', '.join(differences)} {of}{place}")
    present = rows[rows >= 0]
    rows[lost] = present[lost % len(present)]
    return source.reordered(rows)


def _match(wanted: np.ndarray, available: np.ndarray) -> np.ndarray:
    """Returns the index in `available` of every wanted value, each used once, or -1."""
    places: dict[int, list[int]] = {}
    for index, value in reversed(list(enumerate(available.tolist()))):
        places.setdefault(value, []).append(index)
    found = [places[value].pop() if places.get(value) else -1 for value in wanted.tolist()]
    return np.array(found, np.int64)


def _name_hashes(source: FolderSource) -> np.ndarray:
    digests = [
        hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8]
        for name in source.image_ids(np.arange(source.num_examples))
    ]
    return np.frombuffer(b"".join(digests), np.uint64)
