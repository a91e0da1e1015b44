"""Options: fields of frozen dataclasses, each with its default, help text and limits.

An option group is the only definition of a setting: command-line flags, keyword arguments of the
Python API, validation, config.json and the documentation are generated from it.
"""

import dataclasses
import math
import operator
from typing import Any

from simclr_tf.errors import UserError

MAX_INT = 2**31 - 1


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    min: float | None = None,
    max: float | None = None,
    exclusive_min: float | None = None,
    exclusive_max: float | None = None,
    added_in_later_version: bool = False,
) -> Any:
    """Returns a dataclass field that is an option.

    Args:
        default: the default value. Its type is the annotation of the field.
        help: a sentence for `--help` and the documentation.
        choices: allowed values; None allows all.
        min, max: inclusive limits. Integers are at most `MAX_INT` without a `max`.
        exclusive_min, exclusive_max: limits that are themselves not allowed.
        added_in_later_version: accept a config.json without this option, which was written
            before the option existed. The default must reproduce the earlier behavior.
    """
    limits = {
        "min": min,
        "max": max,
        "exclusive_min": exclusive_min,
        "exclusive_max": exclusive_max,
    }
    metadata = {
        "help": help,
        "choices": choices,
        "limits": limits,
        "added_in_later_version": added_in_later_version,
    }
    return dataclasses.field(default=default, metadata=metadata)


_LIMITS = {
    "min": ("at least", operator.ge),
    "max": ("at most", operator.le),
    "exclusive_min": ("above", operator.gt),
    "exclusive_max": ("below", operator.lt),
}


def validate(name: str, value: Any, metadata: Any) -> None:
    """Raises UserError naming the option if the value is not allowed."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--{name}={value}: must be a finite number")
    choices, limits = metadata["choices"], metadata["limits"]
    if choices and value not in choices:
        raise UserError(f"--{name}={value}: must be one of {', '.join(choices)}")
    for key, (words, holds) in _LIMITS.items():
        limit = limits[key]
        if limit is not None and not holds(value, limit):
            raise UserError(f"--{name}={value}: must be {words} {limit:g}")


@dataclasses.dataclass(frozen=True)
class OptionGroup:
    """Base class: every option is validated on construction.

    The first line of the docstring of a subclass is the heading of the group in `--help`.
    """

    def __post_init__(self):
        for field in option_fields(self):
            validate(field.name, getattr(self, field.name), field.metadata)


def option_fields(group: Any) -> list[dataclasses.Field]:
    """Returns the fields of an option group that users set; other fields are computed."""
    return [field for field in dataclasses.fields(group) if "help" in field.metadata]
