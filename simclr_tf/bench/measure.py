"""What the benches measure with: fresh processes, peak memory, spreads, the machine.

The process of the command never imports TensorFlow: its memory and its devices would be in the way
of those that measure.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from simclr_tf.errors import UserError
from simclr_tf.utils.hardware import HardwareInfo, detect_hardware


class ProcessDiedError(Exception):
    """A measuring process ended without a word, as it does when the system runs out of memory."""


def in_fresh_process(function: Callable[..., Any], *args: Any) -> Any:
    """Returns what a function of a module returns in a process of its own.

    Raises:
        MemoryError: if TensorFlow could not have the memory that it needed.
        ProcessDiedError: if the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_call, function, args).result()
        except BrokenProcessPool:
            raise ProcessDiedError from None


@contextlib.contextmanager
def memory_for(what: str, flag: str) -> Iterator[None]:
    """Turns a fresh process's want of memory into a UserError: `what` takes a smaller `flag`."""
    try:
        yield
    except (MemoryError, ProcessDiedError):
        raise UserError(
            f"{what} did not find the memory for --{flag}: take a smaller one"
        ) from None


def _call(function, args):
    with silent_stderr():  # TensorFlow's lines about what this machine lacks, for every process
        import tensorflow as tf
    try:
        return function(*args)
    except tf.errors.ResourceExhaustedError as error:
        # Its own class does not survive the way back.
        raise MemoryError(str(error).strip().splitlines()[0]) from None


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Drops what C++ and Python write to stderr."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@dataclasses.dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, scale: float = 1.0) -> str:
        """Returns median (min–max), each divided by `scale`."""
        numbers = self.median, min(self.values), max(self.values)
        median, low, high = (significant(value / scale) for value in numbers)
        return f"{median} ({low}–{high})"

    def over(self, other: "Spread") -> "Spread":
        """Returns the ratio to each measurement's counterpart, that of the same round."""
        pairs = zip(self.values, other.values, strict=True)
        return Spread(tuple(mine / theirs for mine, theirs in pairs))

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as JSON's types."""
        return {
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "values": list(self.values),
        }


def spread_text(figures: dict[str, Any], scale: float = 1.0) -> str:
    """Returns `Spread.text` of what `Spread.to_json` made."""
    return Spread(tuple(figures["values"])).text(scale)


def significant(value: float) -> str:
    """Returns a number to three digits, or to its whole ones where these are more."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def byte_text(count: float) -> str:
    """Returns a number of bytes in the unit that suits it."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{significant(count)} {unit}"
        count /= 1024
    return f"{significant(count)} GiB"


class PeakMemory:
    """The most bytes that this process takes, from now on, beyond those it has now.

    Of the first GPU's memory, as its allocator counts them; without one of the machine's, as the
    system counts them, which includes what TensorFlow's allocator holds back for later.
    """

    def __init__(self):
        import tensorflow as tf

        self._on_gpu = bool(tf.config.list_physical_devices("GPU"))
        if self._on_gpu:
            tf.config.experimental.reset_memory_stats("GPU:0")
            self._before = tf.config.experimental.get_memory_info("GPU:0")["current"]
            return
        self._before = _status("VmRSS")
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
        except OSError:  # not Linux, or not all of it
            self._before = None

    def extra(self) -> int | None:
        """Returns the bytes; None where the system does not count them."""
        if self._on_gpu:
            import tensorflow as tf

            return tf.config.experimental.get_memory_info("GPU:0")["peak"] - self._before
        peak = _status("VmHWM")
        return None if self._before is None or peak is None else peak - self._before


def available_memory() -> int | None:
    """Returns the bytes that a process may still take where it computes; None if not known."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        from tensorflow.python.client import device_lib

        devices = device_lib.list_local_devices()
        return next((d.memory_limit for d in devices if d.device_type == "GPU"), None)
    return _field("/proc/meminfo", "MemAvailable")


def _status(name: str) -> int | None:
    return _field("/proc/self/status", name)


def _field(path: str, name: str) -> int | None:
    """A line of a file of /proc that is in kB, in bytes."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) * 1024 if found else None


def this_machine() -> HardwareInfo:
    """Describes the machine; it takes a process, for TensorFlow knows the GPUs."""
    return in_fresh_process(detect_hardware)
