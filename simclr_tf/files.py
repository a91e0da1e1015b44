"""Files that are either old or new, never half written."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


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


@contextlib.contextmanager
def streamed(path: str | Path) -> Iterator[Path]:
    """Gives a place to write a large file to, and moves it to `path` once it is whole.

    What a kill leaves, `.NAME.incomplete`, is overwritten by the next attempt.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.incomplete")
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def streamed_directory(path: str | Path) -> Iterator[Path]:
    """Gives an empty directory to write to, and lets it take the place of `path` once it is whole.

    What a kill leaves, `.NAME.incomplete` or `.NAME.replaced`, the next attempt removes.
    """
    path = Path(path)
    unfinished, replaced = (path.with_name(f".{path.name}.{x}") for x in ("incomplete", "replaced"))
    for leftover in (unfinished, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        if path.exists():
            os.replace(path, replaced)  # a directory that holds anything cannot be replaced
        os.replace(unfinished, path)
    finally:
        for leftover in (unfinished, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
