"""Lines that say how far a pass over many images is."""

import time
from collections.abc import Callable

from tqdm import tqdm

_FIRST, _EVERY = 2.0, 10.0  # seconds


class Progress:
    """Says a line within seconds, and then one every ten.

    Args:
        what: is being made, such as "features of shapes train".
        total: images.
        say: takes a line.
    """

    def __init__(self, what: str, total: int, say: Callable[[str], None]):
        self._what, self._total, self._say = what, total, say
        self._due = time.monotonic() + _FIRST
        self._began: float | None = None
        self._first = 0

    def resume(self, done: int) -> None:
        """Say that so many images were done before."""
        self._say(f"{self._what}: {done:,} of {self._total:,} images are there already")

    def show(self, done: int) -> None:
        """Say how many images are done, how fast, and for how long still, if a line is due."""
        now = time.monotonic()
        if self._began is None:  # the first batch was mostly compilation
            self._began, self._first = now, done
        if now < self._due or done >= self._total:
            return
        self._due = now + _EVERY
        line = f"{self._what}: {done:,} of {self._total:,} images"
        if done > self._first and now > self._began:
            rate = (done - self._first) / (now - self._began)
            left = tqdm.format_interval((self._total - done) / rate)
            line += f", {rate:,.1f} images/s, {left} left"
        self._say(line)
