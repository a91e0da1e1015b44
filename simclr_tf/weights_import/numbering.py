"""Keras's numbers in variable names: `conv2d_17` of a file ↔ the model's fifth `conv2d`."""

import re
from collections.abc import Callable, Iterable

_KINDS = (
    *("conv2d_fixed_padding", "conv2d", "batch_norm_relu", "batch_normalization", "dense"),
    *("bottleneck_block", "residual_block", "sk__conv2d", "se__layer"),
)
_COUNTED = re.compile(rf"(sync_)?({'|'.join(_KINDS)})(?:_([1-9]\d{{0,8}}))?")


WAYS = ("as it is", "from the first", "by rank")


class Numbering:
    """Takes the names of a file to those of `Variable.name`, and back.

    Keras counts each kind of layer through a whole process, so that a model that is not the
    process's first starts above 0.

    Args:
        names: all names of the file.
        way: what a number means. "as it is"; "from the first" number of its kind, where one that
            is left out is a layer that is missing; or "by rank" among those of its kind.
    """

    def __init__(self, names: Iterable[str], way: str):
        found: dict[str, set[int]] = {}
        self._sync = False
        for name in names:
            for part in name.split("/"):
                if match := _COUNTED.fullmatch(part):
                    self._sync |= match[1] is not None
                    found.setdefault(match[2], set()).add(int(match[3] or 0))
        self._first = {
            kind: 0 if way == "as it is" else min(numbers) for kind, numbers in found.items()
        }
        self._ours = {
            kind: {
                n: rank if way == "by rank" else n - self._first[kind]
                for rank, n in enumerate(sorted(numbers))
            }
            for kind, numbers in found.items()
        }
        self._theirs = {
            kind: {ours: n for n, ours in numbers.items()} for kind, numbers in self._ours.items()
        }

    def ours(self, name: str) -> str:
        """Returns the name with numbers from 0, and batch norm without its `sync_`."""
        return _replace(name, lambda kind, number: (kind, self._ours[kind][number]))

    def theirs(self, name: str) -> str:
        """Returns such a name as the file has it, or would have it."""

        def back(kind: str, number: int) -> tuple[str, int]:
            other = self._theirs.get(kind, {}).get(number, number + self._first.get(kind, 0))
            return ("sync_" * (self._sync and kind == "batch_normalization") + kind, other)

        return _replace(name, back)


def _replace(name: str, numbered: Callable[[str, int], tuple[str, int]]) -> str:
    parts = []
    for part in name.split("/"):
        if match := _COUNTED.fullmatch(part):
            kind, number = numbered(match[2], int(match[3] or 0))
            part = f"{kind}_{number}" if number else kind
        parts.append(part)
    return "/".join(parts)
