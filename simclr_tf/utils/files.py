"""Atomic writes, directory locks, output checks and file names."""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from simclr_tf.errors import UserError

_MAX_SLUG_CHARS = 60
_MAX_NAME_BYTES = 240  # most file systems allow 255, and temporary names are longer
_UNITS = ("B", "kB", "MB", "GB", "TB")
_PROBE_ATTEMPTS = 3


def check_output_path(
    path: str | Path, flag: str, *, is_file: bool = False, has_checkpoints: bool = False
) -> None:
    """Checks that an output directory or file can be created, by creating and removing one.

    Raises UserError, which names the option `flag`, if the path is a URL or cannot be written to,
    or if TensorFlow could not read checkpoints in it.
    """
    if has_checkpoints:
        check_checkpoint_path(path, flag)
    _check_encoding(path, flag)
    expected = f"a {'file' if is_file else 'directory'} that can be created and written to"
    if ":/" in str(path):  # a Path has merged the two slashes
        url = re.sub(":/+", "://", str(path))
        raise UserError(
            f"--{flag}={url}: expected {expected} in a file system, got a URL. "
            "Fix: mount the bucket, or write to a local directory and copy it afterwards"
        )
    path = Path(path)
    for attempt in range(_PROBE_ATTEMPTS):
        try:
            _probe(path, is_file)
            return
        except (OSError, ValueError) as error:
            # Another process that checks the same path may just have removed its directory.
            if isinstance(error, FileNotFoundError) and attempt < _PROBE_ATTEMPTS - 1:
                continue
            raise UserError(
                f"--{flag}={path}: expected {expected}, got: {_reason(error)}. "
                f"Fix: choose another --{flag}"
            ) from None


def check_checkpoint_path(path: str | Path, flag: str) -> None:
    """Raises UserError if TensorFlow, which reads paths of checkpoints as patterns, cannot read it.

    It would also delete old checkpoints in other directories that match.
    """
    _check_encoding(path, flag)
    if found := set("*?[\\") & set(str(path)):
        raise UserError(
            f"--{flag}={path}: expected a path without * ? [ \\, which TensorFlow "
            f"takes for patterns, got {' '.join(sorted(found))}. Fix: choose another name, or give "
            "a path relative to the working directory without them"
        )


def _check_encoding(path: str | Path, flag: str) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"--{flag}={path}: expected a path in UTF-8, which TensorFlow requires. Fix: choose "
            "another name"
        ) from None


def _probe(path: Path, is_file: bool) -> None:
    if is_file and path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    directory = path.parent if is_file else path
    missing = [p for p in (directory, *directory.parents) if not p.exists()]
    created: list[Path] = []
    try:
        for parent in reversed(missing):
            parent.mkdir()
            created.append(parent)
        probe = directory / f".incomplete.{path.name if is_file else os.getpid()}"
        with contextlib.suppress(FileExistsError):  # an interrupted write has created it before
            probe.touch(exist_ok=False)
            probe.unlink()
    finally:
        with contextlib.suppress(OSError):
            for parent in reversed(created):
                parent.rmdir()


@contextlib.contextmanager
def write_errors_name(path: str | Path, *other_errors: type[Exception]) -> Iterator[None]:
    """Turns an OSError or `other_errors` of writing, as on a full disk, into a UserError."""
    errors: tuple[type[Exception], ...] = (OSError, *other_errors)
    try:
        yield
    except errors as error:
        name = getattr(error, "filename", None) or path
        raise UserError(
            f"{name} cannot be written: {_reason(error)}. "
            "Fix: free disk space, change the permissions or choose another directory"
        ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]


def atomic_write(path: str | Path, contents: str | bytes) -> None:
    """Writes a file such that readers see either the old or the new contents; text as UTF-8."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with write_errors_name(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                if isinstance(contents, str):  # perhaps with names that are not UTF-8
                    contents = contents.encode(errors="backslashreplace")
                file.write(contents)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path for a file or directory, which then replaces `path`.

    If writing fails, `path` is unchanged. Files that a killed process leaves, `.incomplete.NAME` or
    `.replaced.NAME`, are removed by the next attempt. An OSError becomes a UserError.
    """
    path = Path(path)
    # The ending is unchanged, because Keras and others depend on it.
    temporary, replaced = (path.with_name(f".{x}.{path.name}") for x in ("incomplete", "replaced"))
    with write_errors_name(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in (temporary, replaced):
            remove(leftover)
        try:
            yield temporary
            if temporary.is_file():
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
            if path.is_dir():  # a directory that is not empty cannot be replaced
                os.replace(path, replaced)
            os.replace(temporary, path)
        finally:
            for leftover in (temporary, replaced):
                remove(leftover)


def save_npz(path: str | Path, **arrays: object) -> None:
    """Writes arrays to an .npz file atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def write_csv(path: str | Path, rows: Iterable[Sequence[object]]) -> None:
    """Writes a table atomically, as UTF-8 with a line feed after each row.

    Text that a spreadsheet would evaluate as a formula is prefixed with an apostrophe; bytes of
    file names that are not UTF-8 are written as backslash escapes.
    """
    text = io.StringIO()
    escaped = ([_escape_formula(value) for value in row] for row in rows)
    csv.writer(text, lineterminator="\n").writerows(escaped)
    atomic_write(path, text.getvalue().encode(errors="backslashreplace"))


def _escape_formula(value: object) -> object:
    is_formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if is_formula else value


@contextlib.contextmanager
def directory_lock(directory: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the exclusive lock of a directory, which is created if absent, without a lock file.

    `on_wait` is called once if another process holds the lock. The operating system releases it
    when the process ends.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def slugify(text: str) -> str:
    """Returns a text as part of a file name: unchanged if possible, else shortened with a hash."""
    plain = re.sub(r"[^\w.]+", "-", text).strip("-")[-_MAX_SLUG_CHARS:]
    return plain if plain == text else f"{plain}-{_short_hash(text)}"


def truncate_filename(name: str) -> str:
    """Returns a file name, cut and marked with a hash if it is too long for file systems."""
    encoded = name.encode(errors="backslashreplace")
    if len(encoded) <= _MAX_NAME_BYTES:
        return name
    return f"{encoded[: _MAX_NAME_BYTES - 7].decode(errors='ignore')}-{_short_hash(name)}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:6]


def remove(path: Path) -> None:
    """Removes a file or a directory if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def format_bytes(count: float) -> str:
    """Returns a size such as "1.23 MB", in the unit that leaves at most three digits before "."."""
    amount, unit = float(count), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.3g} {_UNITS[unit]}" if amount < 999.5 else f"{amount:.0f} {_UNITS[unit]}"


def pluralize(count: int, noun: str) -> str:
    """Returns a count with its noun, such as "1 image" and "1,200 images"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
