"""Options: fields of frozen dataclasses, each with its default, help text and limits.

An option group is the only definition of a setting: command-line flags, keyword arguments of the
Python API, validation, config.json and the documentation are generated from it.
"""

import dataclasses
import math
import numbers
import operator
import os
import sys
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from simclr_tf.errors import UserError
from simclr_tf.utils.paths import expand_paths
from simclr_tf.utils.suggestions import suggest

MAX_INT = 2**31 - 1
FOLDER_PREFIX = "folder:"


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    min: float | None = None,
    max: float | None = None,
    exclusive_min: float | None = None,
    exclusive_max: float | None = None,
    heading: str = "",
    is_path: bool = False,
    added_in_later_version: bool = False,
) -> Any:
    """Returns a dataclass field that is an option, listed in `--help` under a heading.

    The annotation of the field is its type: bool, int, float or str, or one of these `| None`. A
    list is a comma-separated str; Python callers may pass a sequence. Integers are at most
    `MAX_INT` without a `max`. With `is_path`, for a path or a value that may contain one, such as
    `folder:PATH`, a leading `~` is the home directory. A config.json may lack an option that was
    `added_in_later_version`, whose default must reproduce the earlier behavior.
    """
    limits = {"min": min, "max": max}
    limits |= {"exclusive_min": exclusive_min, "exclusive_max": exclusive_max}
    metadata = {
        **{"help": help, "choices": choices, "limits": limits, "heading": heading},
        **{"is_path": is_path, "added_in_later_version": added_in_later_version},
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class OptionGroup:
    """Base class: every option is converted to its type and validated on construction.

    The first line of the docstring of a subclass is the heading of the group in `--help`.
    """

    def __post_init__(self):
        for field in option_fields(self):
            value = convert(field, getattr(self, field.name))
            validate(field, value)
            if field.name in ("dataset", "probe_dataset"):
                value = absolute_dataset(value)
            object.__setattr__(self, field.name, value)


class OptionSet(NamedTuple):
    """An option group as a function or command takes it.

    By option, some defaults (None: depends on other options) and help texts may differ from the
    group's. The heading is that of the group in `--help` and in the documentation.
    """

    heading: str
    group: type[OptionGroup]
    defaults: Mapping[str, Any] = types.MappingProxyType({})
    help: Mapping[str, str] = types.MappingProxyType({})

    @classmethod
    def of(
        cls,
        group: type[OptionGroup],
        defaults: Mapping[str, Any] = types.MappingProxyType({}),
        help: Mapping[str, str] = types.MappingProxyType({}),
    ) -> "OptionSet":
        """Returns the set of a group under its own heading."""
        return cls((group.__doc__ or "").strip().splitlines()[0], group, defaults, help)


def option_fields(group: Any) -> list[dataclasses.Field]:
    """Returns the fields of an option group that users set; other fields are computed."""
    return [field for field in dataclasses.fields(group) if "help" in field.metadata]


def make_group(group: Any, options: Mapping[str, Any], base: Any = None) -> Any:
    """Returns an option group (a class) with those values of `options` that belong to it.

    Values of omitted options, or None, are those of the instance `base`, or the defaults.
    """
    given = {
        field.name: options[field.name]
        for field in option_fields(group)
        if options.get(field.name) is not None
    }
    return group(**given) if base is None else dataclasses.replace(base, **given)


def option_type(field: dataclasses.Field) -> type:
    """Returns bool, int, float or str: the type of an option, without `| None`."""
    members = [t for t in typing.get_args(field.type) or (field.type,) if t is not types.NoneType]
    return typing.cast(type, members[0])


def convert(field: dataclasses.Field, value: Any) -> Any:
    """Returns a value as the type of its option: paths and sequences as str, no NumPy scalars."""
    kind = option_type(field)
    if field.metadata["is_path"]:
        value = expand_paths(value)
    if value is None and types.NoneType in typing.get_args(field.type):
        return None
    is_bool = isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    if kind is bool and is_bool:
        return bool(value)
    if kind is int and isinstance(value, numbers.Integral) and not is_bool:
        return int(value)
    if kind is float and isinstance(value, numbers.Real) and not is_bool:
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if kind is str:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, list | tuple):
            return ",".join(str(os.fspath(v) if isinstance(v, os.PathLike) else v) for v in value)
        if isinstance(value, str | numbers.Real) and not is_bool:
            return str(value)
    expected = {bool: "True or False", int: "an integer", float: "a number", str: "text"}[kind]
    raise UserError(f"--{field.name}={value}: expected {expected}, got {type(value).__name__}")


_LIMITS = {
    "min": ("of at least", operator.ge),
    "max": ("of at most", operator.le),
    "exclusive_min": ("above", operator.gt),
    "exclusive_max": ("below", operator.lt),
}


def validate(field: dataclasses.Field, value: Any) -> None:
    """Raises UserError naming the option if the value is not allowed."""
    if value is None:
        return
    kind = "an integer" if option_type(field) is int else "a number"
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--{field.name}={value}: expected a finite number, got {value}")
    choices, limits = field.metadata["choices"], dict(field.metadata["limits"])
    if choices and value not in choices:
        expected = ", ".join(choice or "''" for choice in choices)
        raise UserError(
            f"--{field.name}={value}: expected one of {expected}, got {value!r}"
            f"{suggest(str(value), choices)}"
        )
    if kind == "an integer" and limits["max"] is None:
        limits["max"] = MAX_INT
    for key, (words, holds) in _LIMITS.items():
        limit = limits[key]
        if limit is not None and not holds(value, limit):
            shown = limit if isinstance(limit, int) else f"{limit:g}"
            raise UserError(f"--{field.name}={value}: expected {kind} {words} {shown}, got {value}")


def absolute_dataset(dataset: str) -> str:
    """Returns `folder:PATH` with an absolute path, which is valid everywhere; others unchanged."""
    path = dataset.removeprefix(FOLDER_PREFIX)
    if path in ("", dataset):
        return dataset
    return FOLDER_PREFIX + os.path.abspath(os.path.expanduser(path))


def split_commas(value: str) -> list[str]:
    """Returns the parts of a value between commas, without empty ones."""
    return [part.strip() for part in value.split(",") if part.strip()]


def parse_choices(
    name: str, value: str, choices: Collection[str], *, required: bool = False
) -> list[str]:
    """Returns the different parts of the comma-separated value of an option; checks them."""
    parts = split_commas(value)
    for part in parts or [""] * required:
        if part not in choices:
            raise UserError(
                f"--{name}={value}: expected any of {', '.join(choices)}, got {part!r}"
                f"{suggest(part, choices)}"
            )
    return list(dict.fromkeys(parts))


def parse_ints(name: str, value: str, min: int = 1) -> list[int]:
    """Returns the different integers of a comma-separated option, such as 1,2,4."""
    return _parse_numbers(name, value, int, f"integers from {min} to 2^31 - 1", min)


def parse_floats(name: str, value: str) -> list[float]:
    """Returns the different positive numbers of a comma-separated option, such as 1,0.25."""
    return _parse_numbers(name, value, float, "positive numbers", math.ulp(0))


def _parse_numbers(name: str, value: str, kind: type, expected: str, min: float) -> list[Any]:
    numbers = []
    for part in split_commas(value) or [""]:
        try:
            numbers.append(kind(part))
        except ValueError:
            numbers.append(math.nan)
        if not min <= numbers[-1] <= (MAX_INT if kind is int else sys.float_info.max):
            raise UserError(
                f"--{name}={value}: expected {expected}, separated by commas, got {part!r}"
            )
    return list(dict.fromkeys(numbers))


def check_known(names: Collection[str], known: Collection[str], owner: str) -> None:
    """Raises UserError naming the closest options if one of the names is no option of `owner`."""
    for name in names:
        if name not in known:
            hint = suggest(name, known, "--") or f". Fix: see the options of {owner}"
            raise UserError(f"--{name}: {owner} has no such option{hint}")
