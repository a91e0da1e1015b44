"""Flagfiles: text files with one option per line, such as the recipes in flags/."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from simclr_tf.errors import UserError
from simclr_tf.options import option_type
from simclr_tf.utils.paths import user_path

_SWITCHES = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def read_options(path: str, options: Mapping[str, dataclasses.Field]) -> dict[str, Any]:
    """Returns the values of a flagfile by name; those of `options` have the options' types."""
    values: dict[str, Any] = {}
    for line in read_flagfiles([f"--flagfile={path}"]):
        name, equals, text = line.lstrip("-").partition("=")
        if not equals:  # a switch
            name, text = (name[2:], "false") if name.startswith("no") else (name, "true")
        values[name] = _parse(options[name], text) if name in options else text
    return values


def _parse(option: dataclasses.Field, text: str) -> Any:
    kind = option_type(option)
    try:
        return _SWITCHES[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        expected = {bool: "True or False", int: "an integer", float: "a number"}[kind]
        raise UserError(f"--{option.name}={text}: expected {expected}, got {text!r}") from None


def read_flagfiles(arguments: Sequence[str], outer: tuple[Path, ...] = ()) -> list[str]:
    """Replaces `--flagfile=FILE` by the flags in the file, which may name other files.

    `--flagfile=flags/NAME.flags` works in a checkout and, where the working directory has no such
    file, finds the installed one. `outer` are the files in which the arguments are.
    """
    result, remaining = [], list(arguments)
    while remaining and remaining[0] != "--":
        argument = remaining.pop(0)
        flag, equals, path = argument.partition("=")
        if flag not in ("--flagfile", "-flagfile"):
            result.append(argument)
            continue
        if not equals:
            path = remaining.pop(0) if remaining else ""
        file = _find_flagfile(path)
        if file in outer:
            raise UserError(f"--flagfile={path}: includes itself. Fix: remove the line in {file}")
        result += read_flagfiles(_read_flagfile(file), (*outer, file))
    return result + remaining


def _find_flagfile(path: str) -> Path:
    file = user_path(path)
    if path and file.exists():
        return file.resolve()
    folder: Any = resources.files("simclr_tf.flags")
    if str(file.parent) not in (".", "flags") or not (folder / file.name).is_file():
        recipes = ", ".join(sorted(f.name for f in folder.iterdir() if f.name.endswith(".flags")))
        raise UserError(
            f"--flagfile={path}: expected an existing file or one of {recipes}, got {path!r}"
        )
    return Path(folder / file.name)


def _read_flagfile(file: Path) -> list[str]:
    """Returns the flags in a file; Windows writes UTF-8 with a byte-order mark, or UTF-16."""
    expected = f"--flagfile={file}: expected a text file with a --name=value in each line, got"
    try:
        data = file.read_bytes()
        # Without a byte-order mark, text in UTF-16 begins with an ASCII character and a zero byte.
        codec = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}.get(data[:2], "utf-8")
        codec = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be" if data[:1] == b"\0" else codec
        # Names of files need not be UTF-8.
        text = data.decode(codec, "surrogateescape" if codec == "utf-8" else "strict")
    except OSError as error:
        raise UserError(f"{expected}: {error.strerror}. Fix: choose another file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{expected}: {error}. Fix: save it as UTF-8") from None
    if "\0" in text:
        raise UserError(f"{expected}: a zero byte. Fix: save it as UTF-8")
    lines = (line.strip() for line in re.split(r"[\r\n]", text.replace("\ufeff", "")))
    return [line for line in lines if line and not line.startswith(("#", "//"))]
