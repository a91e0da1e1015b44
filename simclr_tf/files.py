"""Files that are either old or new, never half written."""

import os
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
