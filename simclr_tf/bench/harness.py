"""Measurement in fresh processes, and what all benchmarks share: samples and tables.

The command's own process never imports TensorFlow, because the memory and the devices that it would
take are then missing in the processes that measure.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from typing import Any

from simclr_tf.errors import UserError
from simclr_tf.utils.hardware import HardwareInfo, detect_hardware
from simclr_tf.utils.log import show_progress
from simclr_tf.utils.tables import format_table

logger = logging.getLogger(__name__)

# By name: a function or a dataset, and the number of items in a call or a batch.
Works = Mapping[str, tuple[Any, int]]
Columns = Mapping[str, str | Callable[[dict[str, Any]], Any]]


class NotRun(str):
    """The reason why a case was not measured, in place of its outcome."""


def run_in_subprocess(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a module-level function in a fresh process; MemoryError if memory runs out there."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_call, function, args).result()
        except BrokenProcessPool:  # the system kills a process when memory runs out
            raise MemoryError("the measuring process was killed") from None


def _call(function, args):
    with suppress_stderr():  # TensorFlow's startup lines, which every process would repeat
        import tensorflow as tf
    show_progress()
    try:
        return function(*args)
    except tf.errors.ResourceExhaustedError as error:
        # TensorFlow's exceptions cannot be pickled.
        raise MemoryError(str(error).strip().splitlines()[0]) from None


@contextlib.contextmanager
def suppress_stderr() -> Iterator[None]:
    """Discards what C++ and Python write to stderr."""
    original = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
        os.close(null)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Definition of a benchmark: what a module of this package says about itself."""

    # An option group. `cases(hardware)` returns what to measure, by label; `notes(hardware)` the
    # lines below the table.
    options: type
    # Module-level function (options, case) → result for a row, or a list of them.
    measure: Callable[[Any, Any], Any]
    # Heading → key of a result, or a function of a result.
    columns: Columns
    # The option that a UserError names when memory runs out. "": the outcome is `NotRun` instead,
    # and later rounds leave out that case.
    memory_flag: str = ""
    # (options, {label: outcomes of all rounds}) → results. None: each case is measured once, in a
    # process that takes the rounds itself.
    summarize: Callable[[Any, dict[str, list[Any]]], list[dict[str, Any]]] | None = None

    def run(self, options: Any) -> "BenchResult":
        """Measures all cases in fresh processes, in alternating rounds, and logs the progress."""
        hardware = run_in_subprocess(detect_hardware)  # TensorFlow must be imported for this
        logger.info(str(hardware))
        cases = options.cases(hardware)
        outcomes = self.measure_cases(options, cases, options.repeats if self.summarize else 1)
        if self.summarize:
            results = self.summarize(options, outcomes)
        else:
            results = [r for (o,) in outcomes.values() for r in (o if isinstance(o, list) else [o])]
        return BenchResult(hardware, self.columns, results, options.notes(hardware))

    def measure_cases(
        self,
        options: Any,
        cases: Mapping[str, Any],
        rounds: int,
        run: Callable[..., Any] = run_in_subprocess,
    ) -> dict[str, list[Any]]:
        """Returns the outcomes of each case, one for each round; `run` calls a function."""
        outcomes: dict[str, list[Any]] = {label: [] for label in cases}
        for turn in range(1, rounds + 1):
            for label, case in cases.items():
                if any(isinstance(outcome, NotRun) for outcome in outcomes[label]):
                    continue
                try:
                    outcome = run(self.measure, options, case)
                except MemoryError:
                    if self.memory_flag:
                        raise UserError(
                            f"--{self.memory_flag}: out of memory at {label}. Fix: lower "
                            f"--{self.memory_flag}"
                        ) from None
                    outcome = NotRun("out of memory")
                outcomes[label].append(outcome)
                if self.summarize:
                    not_run = isinstance(outcome, NotRun)
                    text = outcome if not_run else f"{format_3_digits(outcome['seconds'])} s"
                    logger.info(f"round {turn} of {rounds}, {label}: {text}")
        return outcomes


@dataclasses.dataclass(frozen=True)
class Samples:
    """Repeated measurements of one quantity, one for each round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def ratio_to(self, other: "Samples") -> "Samples":
        """Returns the ratio of the two values of each round."""
        return Samples(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def to_json(self) -> dict[str, Any]:
        low, high = min(self.values), max(self.values)
        return {"median": self.median, "min": low, "max": high, "values": list(self.values)}


def measure_interleaved(
    quantities: Mapping[str, Callable[[], float]], rounds: int, label: str
) -> dict[str, Samples]:
    """Measures every quantity once in each round, so that other load on the machine meets all."""
    values: dict[str, list[float]] = {name: [] for name in quantities}
    for turn in range(1, rounds + 1):
        for name, measure in quantities.items():
            values[name].append(measure())
        latest = ", ".join(f"{name} {format_3_digits(v[-1])}" for name, v in values.items())
        logger.info(f"{label}, round {turn} of {rounds}: {latest}")
    return {name: Samples(tuple(v)) for name, v in values.items()}


def rates(works: Works, seconds: float) -> dict[str, Callable[[], float]]:
    """Returns functions that measure each workload's items per second for some seconds."""
    return {
        name: functools.partial(
            throughput if callable(work) else dataset_throughput, work, count, seconds
        )
        for name, (work, count) in works.items()
    }


def compare(
    works: Works, options: Any, label: str, numerator: str, denominator: str
) -> dict[str, Any]:
    """Returns interleaved samples by name as JSON, and the "ratio" of two if both are measured."""
    samples = measure_interleaved(rates(works, options.seconds), options.repeats, label)
    if denominator in samples:
        samples["ratio"] = samples[numerator].ratio_to(samples[denominator])
    return {name: values.to_json() for name, values in samples.items()}


def throughput(
    work: Callable[[], Any],
    count: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Returns items per second of calls of `count` items, at least one and for `seconds`."""
    import tensorflow as tf

    start = clock()
    calls = 0
    while not calls or clock() - start < seconds:
        work()
        calls += 1
    tf.test.experimental.sync_devices()
    return calls * count / (clock() - start)


def dataset_throughput(
    batches: Any, count: int, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Returns items per second that a dataset, `count` in a batch, brings to the device."""
    import tensorflow as tf

    # Its threads end with this function and do not disturb the next measurement.
    iterator = iter(batches)
    device = "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"

    def deliver():
        with tf.device(device):
            return tf.nest.map_structure(tf.identity, next(iterator))

    # First without counting, until prefetched batches are used up and AUTOTUNE has settled.
    throughput(deliver, count, seconds / 3, clock)
    return throughput(deliver, count, seconds, clock)


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """Outcome of a benchmark: a JSON-ready result for each row of the table, and notes."""

    hardware: HardwareInfo
    columns: Columns
    results: Sequence[dict[str, Any]]
    notes: Sequence[str]

    def rows(self) -> list[list[str]]:
        """Returns the table's cells."""

        def cell(column, result):
            return _format_cell(column(result) if callable(column) else result.get(column))

        return [[cell(c, result) for c in self.columns.values()] for result in self.results]

    def format(self) -> str:
        """Returns the table, the notes and the machine as text."""
        table = format_table(self.rows(), list(self.columns), align="r" * len(self.columns))
        return "\n".join(["", table, "", *self.notes, str(self.hardware)])

    def to_json(self, name: str, options: Any) -> str:
        """Returns the benchmark's name, its options, the machine, notes and results as JSON."""
        document = {
            "bench": name,
            "options": dataclasses.asdict(options),
            "machine": dataclasses.asdict(self.hardware),
            "notes": list(self.notes),
            "results": list(self.results),
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _format_cell(value):
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return format_samples(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def format_samples(samples: Mapping[str, Any] | None, scale: float = 1.0) -> str:
    """Returns median (min–max) of `Samples.to_json`, each divided by `scale`; "–" for None."""
    if samples is None:
        return "–"
    median, low, high = (format_3_digits(samples[k] / scale) for k in ("median", "min", "max"))
    return f"{median} ({low}–{high})"


def format_3_digits(value: float) -> str:
    """Returns a number with three significant digits, or all digits before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def rounds_footnote(rounds: int) -> str:
    """Returns the note that explains `Samples` of interleaved rounds."""
    return (
        f"Values: median (min–max) of {rounds} interleaved rounds. Ratios: of the two values of "
        "each round."
    )
