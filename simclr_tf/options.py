"""What a user may set: fields of frozen dataclasses, each with its help, default and limits."""

import dataclasses
import math
import operator
from typing import Any

from simclr_tf.errors import UserError


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    later: bool = False,
) -> Any:
    """A dataclass field with its help and limits; `above` and `below` themselves are outside.

    `later` marks what was added after runs had been written: their config.json may lack it.
    """
    limits = {"low": low, "high": high, "above": above, "below": below}
    metadata = {"help": help, "choices": choices, "limits": limits, "later": later}
    return dataclasses.field(default=default, metadata=metadata)


def check(name: str, value: Any, metadata: Any) -> None:
    """Raises UserError naming the option if a value is not among the allowed ones."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--{name}={value}: must be a finite number")
    choices, limits = metadata["choices"], metadata["limits"]
    if choices and value not in choices:
        raise UserError(f"--{name}={value}: must be one of {', '.join(choices)}")
    for key, (words, holds) in _LIMITS.items():
        limit = limits[key]
        if limit is not None and not holds(value, limit):
            raise UserError(f"--{name}={value}: must be {words} {limit:g}")


_LIMITS = {
    "low": ("at least", operator.ge),
    "high": ("at most", operator.le),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
}


@dataclasses.dataclass(frozen=True)
class Section:
    """A group of options; its docstring's first line heads the group in `--help`."""

    def __post_init__(self):
        for field in options(self):
            check(field.name, getattr(self, field.name), field.metadata)


def options(section: Any) -> list[dataclasses.Field]:
    """Returns the fields of a section that are a user's choice; others are found out and kept."""
    return [field for field in dataclasses.fields(section) if "help" in field.metadata]
