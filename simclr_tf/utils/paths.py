"""Paths as users write them, and commands as a shell reads them."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PREFIXES = ("", "folder:", "keras_cv:")  # of values that contain a path


def expand_user(path: str) -> str:
    """Returns a path, or `folder:PATH`, with a leading `~` or `~USER` replaced by the home."""
    prefix, tilde, rest = path.partition("~")
    return prefix + os.path.expanduser(tilde + rest) if prefix in _PREFIXES else path


def user_path(path: str | os.PathLike[str]) -> Path:
    """Returns a path with `~` expanded."""
    return Path(expand_user(os.fspath(path)))


def expand_paths(value: Any) -> Any:
    """Returns a path, or each one of a sequence, with `~` expanded; other values unchanged."""
    if isinstance(value, list | tuple):
        return [expand_paths(item) for item in value]
    if isinstance(value, str):
        return expand_user(value)
    if isinstance(value, os.PathLike) and os.fspath(value).startswith("~"):
        return user_path(value)
    return value


def split_paths(value: str) -> list[str]:
    """Returns the paths in a comma-separated list, with `~` expanded.

    A comma belongs to a name if the name with it exists, such as `runs/lr=0.1,epochs=9`; of several
    possible names the longest is taken.
    """
    parts, paths = value.split(","), []
    while parts:
        names = [",".join(parts[:count]).strip() for count in range(len(parts), 0, -1)]
        name = next(filter(_exists, names), names[-1])
        del parts[: len(parts) - names.index(name)]
        paths.append(expand_user(name))
    return list(filter(None, paths))


def _exists(name: str) -> bool:
    path = expand_user(name).removeprefix("folder:")
    return bool(path) and "\0" not in path and os.path.exists(path)


def printable(name: str) -> str:
    r"""Returns a name with bytes that are not UTF-8 as escapes: "caf\xe9"."""
    return os.fsencode(name).decode(errors="backslashreplace")


def shell_join(words: Iterable[object]) -> str:
    """Returns a command whose words are quoted for a shell, names of any bytes included."""
    return " ".join(_shell_quote(str(word)) for word in words)


def _shell_quote(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    safe = (chr(b) if chr(b).isalnum() and b < 128 else f"\\{b:03o}" for b in os.fsencode(word))
    return f"$'{''.join(safe)}'"
