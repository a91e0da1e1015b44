"""Checks of image files at the start, remembered for files that do not change."""

import contextlib
import hashlib
import logging
import multiprocessing
import os
import time
import warnings
from collections.abc import Iterable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from simclr_tf.data.decoding import (
    UnreadableImageError,
    check_image_header,
    decode_rgb,
    has_end,
)
from simclr_tf.errors import UserError
from simclr_tf.utils.files import save_npz
from simclr_tf.utils.progress import Progress

# Reading headers waits for the disk or the network, not for the processor.
_THREADS = 4 * (os.cpu_count() or 1)
_END_BYTES = 4096  # read at the beginning and at the end of a file
_SLOW_READ = 5.0  # seconds
_STORE_VERSION = b"1"  # changes with the checks

logger = logging.getLogger(__name__)


class FileCheck(NamedTuple):
    """Result of the check of one file.

    `content` is a hash of its size, beginning and end: equal files have equal ones, and different
    images almost never. `key` changes when the file is written.
    """

    content: int
    pixels: int = 0
    is_decoded: bool = False
    key: int = 0
    reason: str = ""  # why it cannot be read


def check_files(
    root: str, files: Sequence[str], decode: bool, max_pixels: int
) -> dict[str, FileCheck]:
    """Checks header and end of image files below a folder, or decodes them.

    A file without an end is decoded in any case. Results are stored in the user's cache.
    """
    store = _Store(root)
    began: dict[str, float] = {}  # by file that is being read

    def check(file: str) -> FileCheck:
        began[file] = time.monotonic()
        try:
            return _check_file(os.path.join(root, file), file, decode, max_pixels, store)
        finally:
            del began[file]

    checks: dict[str, FileCheck] = {}
    description = "decoding every image" if decode else "reading image headers"
    with (
        ThreadPool(_THREADS) as pool,
        Progress(description, len(files), "files") as progress,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # Pillow's, of damaged metadata and large images
        results, reported = pool.imap(check, files), set[str]()
        while len(checks) < len(files):
            try:
                result = results.next(timeout=_SLOW_READ)
            except multiprocessing.TimeoutError:
                _report_slow_reads(began, reported)
                continue
            checks[files[len(checks)]] = result
            progress.update(len(checks))
    store.save(checks.values())
    return checks


def find_copies(root: str, checks: dict[str, FileCheck]) -> dict[str, str]:
    """Returns the links to and exact copies of other files, with the first of them by path."""
    groups: dict[int, list[str]] = {}
    for file in sorted(checks):
        groups.setdefault(checks[file].content, []).append(file)
    copies = {}
    for group in groups.values():
        if len(group) > 1:
            first: dict[object, str] = {}
            for file in group:
                original = first.setdefault(content_of(os.path.join(root, file)), file)
                if original != file:
                    copies[file] = original
    return copies


def forget_checks(root: str) -> None:
    """Removes the stored results of a folder."""
    with contextlib.suppress(OSError):
        _store_path(root).unlink()


def content_of(path: str) -> bytes:
    """Returns a hash of all bytes of a file."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}). Fix: change its permissions, or remove it"
        ) from None


def _report_slow_reads(began: dict[str, float], reported: set[str]) -> None:
    for file, start in list(began.items()):
        if time.monotonic() - start >= _SLOW_READ and file not in reported:
            reported.add(file)
            logger.warning(f"note: reading {file} takes longer than {_SLOW_READ:g} s")


def _check_file(path: str, file: str, decode: bool, max_pixels: int, store: "_Store") -> FileCheck:
    key = content = 0
    try:
        stat = os.stat(path)
        key = _hash(os.fsencode(file) + b"\0%d %d" % (stat.st_size, stat.st_mtime_ns))
        known = store.checks.get(key)
        if known and known.pixels <= max_pixels and known.is_decoded >= decode:
            return known
        pixels = check_image_header(path, max_pixels)
        with open(path, "rb") as opened:
            beginning = opened.read(_END_BYTES)
            opened.seek(max(0, stat.st_size - _END_BYTES))
            end = opened.read()
        content = _hash(b"%d " % stat.st_size + beginning + end)
        decode = decode or not has_end(beginning, end, stat.st_size)
        if decode:
            with tf.device("CPU:0"):
                decode_rgb(tf.io.read_file(os.fsencode(path)))
    except UnreadableImageError as error:
        return FileCheck(content, reason=str(error))
    except OSError as error:
        return FileCheck(content, reason=f"cannot be opened ({error.strerror})")
    except (tf.errors.OpError, MemoryError):
        is_cut = not has_end(beginning, end, stat.st_size)
        return FileCheck(
            content,
            reason="has the header of an image but cannot be decoded"
            + (": its end is missing" if is_cut else ""),
        )
    return FileCheck(content, pixels, decode, key)


def _hash(contents: bytes) -> int:
    return int.from_bytes(hashlib.sha256(contents).digest()[:8], "little")


class _Store:
    """Results for the readable files of a folder in the user's cache, by their key."""

    def __init__(self, root: str):
        self._path = _store_path(root)
        self.checks: dict[int, FileCheck] = {}
        with contextlib.suppress(Exception), np.load(self._path) as file:
            rows = zip(*(file[name].tolist() for name in FileCheck._fields[:4]), strict=True)
            self.checks = {row[3]: FileCheck(*row) for row in rows}

    def save(self, checks: Iterable[FileCheck]) -> None:
        """Adds results, and keeps others; a cache that cannot be written is not an error."""
        new = {check.key: check for check in checks if not check.reason}
        if new.items() <= self.checks.items():
            return
        columns = zip(*(check[:4] for check in (self.checks | new).values()), strict=True)
        types = (np.uint64, np.int64, bool, np.uint64)
        arrays = zip(FileCheck._fields, columns, types, strict=False)
        with contextlib.suppress(UserError):
            save_npz(self._path, **{name: np.array(x, dtype) for name, x, dtype in arrays})


def _store_path(root: str) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = _hash(os.fsencode(os.path.realpath(root)) + _STORE_VERSION)
    return Path(cache) / "simclr_tf" / "files" / f"{name:016x}.npz"
