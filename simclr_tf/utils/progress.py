"""Progress of a long pass over images, files or steps."""

import logging
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

logger = logging.getLogger(__name__)

_FIRST_LOG_AFTER, _LOG_INTERVAL = 2.0, 10.0  # seconds


class Progress:
    """Progress bar on a terminal; elsewhere log lines, first after 2 s, then every 10 s.

    `description` is that of the pass, such as "features of shapes train", and `clock` returns
    seconds.
    """

    def __init__(
        self,
        description: str,
        total: int,
        unit: str = "images",
        *,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._description, self._total, self._unit = description, total, unit
        self._clock = clock
        self._next_log = clock() + _FIRST_LOG_AFTER
        self._start: tuple[float, int] | None = None
        self._bar: tqdm | None = None
        if sys.stderr.isatty() and logger.isEnabledFor(logging.INFO):
            self._bar = tqdm(
                total=total, desc=description, unit=f" {unit}", leave=False, dynamic_ncols=True
            )

    @property
    def has_bar(self) -> bool:
        """True on a terminal, where no lines are logged."""
        return self._bar is not None

    def resume(self, done: int) -> None:
        """Logs the number of items that an earlier, interrupted pass has finished."""
        logger.info(
            f"{self._description}: {done:,} of {self._total:,} {self._unit} are already cached"
        )
        self.restart(done)

    def restart(self, done: int) -> None:
        """Restarts the estimate of the remaining time, as after compilation."""
        self._start = self._clock(), done
        if self._bar is not None:
            self._bar.initial = self._bar.n = done
            self._bar.start_t = self._bar.last_print_t = self._bar._time()

    def update(self, done: int, details: str = "") -> None:
        """Shows the number of finished items, the rate and the remaining time.

        The first call starts the clock, because the first batch is mostly compilation. `details`
        are shown at the end, such as the current loss.
        """
        if self._bar is not None:
            if details:
                self._bar.set_postfix_str(details, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        now = self._clock()
        if self._start is None:
            self._start = now, done
        if now < self._next_log or done >= self._total:
            return
        self._next_log = now + _LOG_INTERVAL
        line = f"{self._description}: {done:,} of {self._total:,} {self._unit}"
        if rate := self._rate(now, done):
            left = tqdm.format_interval((self._total - done) / rate)
            line += f", {rate:,.1f} {self._unit}/s, {left} left"
        logger.info(f"{line}, {details}" if details else line)

    def time_left(self, done: int) -> str:
        """Returns the estimated remaining time as minutes:seconds, "?" before the second update."""
        rate = self._rate(self._clock(), done)
        return tqdm.format_interval((self._total - done) / rate) if rate else "?"

    def _rate(self, now: float, done: int) -> float:
        if self._start is None or now <= self._start[0]:
            return 0.0
        return (done - self._start[1]) / (now - self._start[0])

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
