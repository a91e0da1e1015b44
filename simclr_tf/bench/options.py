"""Lists as flags have them: words and numbers between commas."""

import math
from collections.abc import Sequence

from simclr_tf.errors import UserError


def integers(name: str, text: str, low: int = 1) -> list[int]:
    """Reads `1,2,4`, each once and in the order given.

    Raises:
        UserError: if there is none, or one is no integer or below `low`.
    """
    words = _split(name, text)
    for word in words:
        if not word.isdecimal() or int(word) < low:
            raise UserError(f"--{name}: {word!r} is not an integer of at least {low}")
    return list(dict.fromkeys(int(word) for word in words))


def numbers(name: str, text: str) -> list[float]:
    """Reads `1,0.25`, each once and in the order given.

    Raises:
        UserError: if there is none, or one is no number above 0.
    """
    try:
        values = [float(word) for word in _split(name, text)]
    except ValueError:
        values = [math.nan]
    if not all(0 < value < math.inf for value in values):
        raise UserError(f"--{name}={text}: must be numbers above 0 with commas between them")
    return list(dict.fromkeys(values))


def choices(name: str, text: str, allowed: Sequence[str]) -> list[str]:
    """Reads some of the allowed words, each once and in the order given.

    Raises:
        UserError: if there is none, or one that is not allowed.
    """
    words = _split(name, text)
    for word in words:
        if word not in allowed:
            raise UserError(f"--{name}: {word!r} is none of {', '.join(allowed)}")
    return list(dict.fromkeys(words))


def _split(name: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UserError(f"--{name} is empty")
    return words
