"""Flags made from the config's dataclasses, and the help and flagfiles of the commands."""

import dataclasses
import os
import textwrap
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from absl import flags

from simclr_tf.errors import UserError
from simclr_tf.options import option_fields

_DEFINE: dict[Any, Any] = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def define_section(values: flags.FlagValues, section: type, **defaults: Any) -> list[str]:
    """Defines a flag for every option of a dataclass, with other defaults where named.

    Returns:
        The flags' names.
    """
    names = []
    for field in option_fields(section):
        default = defaults.get(field.name, field.default)
        _DEFINE[field.type](field.name, default, field.metadata["help"], flag_values=values)
        names.append(field.name)
    return names


def read_section(values: flags.FlagValues, section: type, base: Any = None) -> Any:
    """Builds the dataclass, which validates it, from the flags that were given.

    All else is as in `base`, an instance of it, or has the dataclass's own default.
    """
    given = {
        field.name: values[field.name].value
        for field in option_fields(section)
        if values[field.name].present
    }
    return section(**given) if base is None else dataclasses.replace(base, **given)


def listed(value: str) -> list[str]:
    """Returns the parts of a value that has commas between them."""
    return [name.strip() for name in value.split(",") if name.strip()]


def names_among(flag: str, value: str, allowed: Sequence[str]) -> list[str]:
    """Returns the names that a flag's value lists.

    Raises:
        UserError: if one is not among those allowed.
    """
    names = listed(value)
    for name in names:
        if name not in allowed:
            raise UserError(f"--{flag}: {name!r} is none of {', '.join(allowed)}")
    return list(dict.fromkeys(names))


def note_no_effect(values: flags.FlagValues, names: Iterable[str]) -> None:
    """Says of flags that were given which have no effect."""
    for name in names:
        if values[name].present:
            print(f"note: --{name} has no effect here")


def read_flagfiles(arguments: Sequence[str]) -> list[str]:
    """Replaces the name of a shipped flagfile by its place; leaves all else as it is.

    `--flagfile=flags/NAME.flags` works in a checkout and, where no such file lies in the working
    directory, finds the installed one.

    Raises:
        UserError: if there is no such file, in the directory or among the shipped ones.
    """
    replaced = []
    for argument in arguments:
        flag, equals, path = argument.partition("=")
        path = os.path.expanduser(path)
        if flag in ("--flagfile", "-flagfile") and equals and not os.path.exists(path):
            directory, name = os.path.split(path)
            shipped = resources.files("simclr_tf.flags") / name
            if directory not in ("", "flags") or not shipped.is_file():
                names = sorted(f.name for f in resources.files("simclr_tf.flags").iterdir())
                recipes = ", ".join(name for name in names if name.endswith(".flags"))
                raise UserError(f"--flagfile={path}: no such file; shipped are {recipes}")
            argument = f"{flag}={shipped}"
        replaced.append(argument)
    return replaced


def help_text(
    command: str, document: str | None, values: flags.FlagValues, groups: dict[str, list[str]]
) -> str:
    """Returns a command's help: what it does, then its flags by group."""
    lines = [f"simclr-tf {command}", "", (document or "").strip(), ""]
    for heading, names in groups.items():
        lines += [f"{heading}:"]
        for name in names:
            flag = values[name]
            default = "" if flag.default in (None, "") else f" (default {flag.default})"
            lines += textwrap.wrap(
                f"{flag.help}{default}",
                width=98,
                initial_indent=f"  --{name}  ".ljust(32),
                subsequent_indent=" " * 32,
            )
        lines.append("")
    lines.append("  --flagfile=FILE".ljust(32) + "Read flags from a file; later flags override it.")
    return "\n".join(lines)
