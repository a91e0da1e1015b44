"""Files that are either old or new, never half written."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
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
