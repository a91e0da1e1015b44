"""Files that are either old or new, never half written, and written by one process at a time."""

import contextlib
import csv
import fcntl
import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

_LONGEST = 60  # characters that a file's name takes of a text
_MOST_BYTES = 240  # of a file's name; most file systems end at 255, and writing adds to it


def write_atomically(path: str | Path, contents: str | bytes) -> None:
    """Writes a file beside `path` and moves it into place; text as UTF-8."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(contents.encode() if isinstance(contents, str) else contents)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_csv(path: str | Path, rows: Iterable[Sequence[object]]) -> None:
    """Writes a table atomically, as UTF-8 with a line feed after each row.

    Text that a spreadsheet would take for a formula has an apostrophe before it; bytes of a file's
    name that are no UTF-8 are written as backslash escapes.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    write_atomically(path, text.getvalue().encode(errors="backslashreplace"))


def _cell(value: object) -> object:
    formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if formula else value


@contextlib.contextmanager
def locked(directory: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds what one process at a time can hold of a directory, which is made if absent.

    The lock ends with the process, however that ends.

    Args:
        directory: needs no file for it.
        waiting: called once if another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def file_name(text: str) -> str:
    """Returns a text as part of a file's name: itself, or what is left of it and a digest.

    `train` stays, `train[:50%]` and `train[:50]` become two names.
    """
    plain = re.sub(r"[^\w.]+", "-", text).strip("-")[-_LONGEST:]
    return plain if plain == text else f"{plain}-{_digest(text)}"


def bounded_name(name: str) -> str:
    """Returns a file's name, cut where it is longer than file systems take, with a digest then."""
    encoded = name.encode(errors="backslashreplace")
    if len(encoded) <= _MOST_BYTES:
        return name
    return f"{encoded[: _MOST_BYTES - 7].decode(errors='ignore')}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:6]


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a place beside `path` to write a file or directory to, and moves it there once whole.

    Where writing fails, what was there stays. What a kill leaves, `.incomplete.NAME` or
    `.replaced.NAME`, the next attempt removes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays: Keras and others go by it.
    unfinished, replaced = (path.with_name(f".{x}.{path.name}") for x in ("incomplete", "replaced"))
    for leftover in (unfinished, replaced):
        remove(leftover)
    try:
        yield unfinished
        if unfinished.is_file():
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
        if path.is_dir():  # cannot be replaced while it holds anything
            os.replace(path, replaced)
        os.replace(unfinished, path)
    finally:
        for leftover in (unfinished, replaced):
            remove(leftover)


def remove(path: Path) -> None:
    """Removes a file or a directory, where there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
