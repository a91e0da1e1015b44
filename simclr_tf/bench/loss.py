"""Time and memory of NT-Xent: the dense form against blocks.

Times the loss of N images with its gradient, in graph mode, and takes the most memory that it
needs beyond its inputs, each form and size in a fresh process. The rounds alternate between the
forms. A size that would not fit into the memory is not run, and the table says so.

  simclr-tf bench loss --batch_sizes=1024,8192 --output=loss.json
"""

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable
from typing import Any

from simclr_tf.bench.measure import (
    PeakMemory,
    ProcessDiedError,
    Spread,
    available_memory,
    byte_text,
    in_fresh_process,
    significant,
    spread_text,
    this_machine,
)
from simclr_tf.bench.options import choices, integers
from simclr_tf.bench.report import Report
from simclr_tf.options import OptionGroup, option

FORMS = ("dense", "blocks")
_COLUMNS = ("N", "form", "block rows", "seconds, median (min–max)", "extra MiB", "time", "memory")
_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Options(OptionGroup):
    """What is measured"""

    batch_sizes: str = option(
        "256,512,1024,2048,4096,8192,16384", "Images N; each gives two of the 2N views."
    )
    dim: int = option(128, "Width of the projections.", min=1)
    forms: str = option("dense,blocks", "dense, blocks or both.")
    repeats: int = option(3, "Rounds; each measures every size and form once.", min=1)

    def __post_init__(self):
        super().__post_init__()
        integers("batch_sizes", self.batch_sizes, low=2)
        choices("forms", self.forms, FORMS)


def run(options: Options, say: Callable[[str], None]) -> Report:
    """Measures what the options ask for; `say` takes a line of progress."""
    machine = this_machine()
    say(str(machine))
    sizes = integers("batch_sizes", options.batch_sizes, low=2)
    cases = list(itertools.product(sizes, choices("forms", options.forms, FORMS)))
    taken: dict[tuple[int, str], list[dict[str, Any]]] = {case: [] for case in cases}
    not_run: dict[tuple[int, str], str] = {}
    for turn in range(1, options.repeats + 1):
        for case in cases:
            if case in not_run:
                continue
            size, form = case
            try:
                outcome = in_fresh_process(_measure, size, options.dim, form)
            except (MemoryError, ProcessDiedError):
                outcome = {"not_run": "ended for want of memory"}
            head = f"round {turn} of {options.repeats}, N = {size}, {form}:"
            if "not_run" in outcome:
                not_run[case] = outcome["not_run"]
                say(f"{head} {not_run[case]}")
                continue
            taken[case].append(outcome)
            say(f"{head} {significant(outcome['seconds'])} s, {_mib(outcome['extra_bytes'])} MiB")
    results = [_result(*case, taken[case], not_run.get(case)) for case in cases]
    _compare(results)
    notes = [
        f"Projections of width {options.dim}; time and memory of blocks as multiples of dense.",
        "Extra memory is the peak beyond the inputs, some MiB of compiled graph in it.",
    ]
    return Report(machine, _COLUMNS, [_row(result) for result in results], notes, results)


def block_rows(batch_size: int, form: str) -> int:
    """Returns the `block_size` of nt_xent: 0 for dense, for blocks what it takes itself if large.

    At sizes where nt_xent itself would be dense, blocks are as large as its rule for large logits
    makes them, up to all 2N rows in one.
    """
    from simclr_tf.losses.nt_xent import choose_block_size

    if form == "dense":
        return 0
    return min(2 * batch_size, choose_block_size(sys.maxsize, 2 * batch_size))


def needed_bytes(batch_size: int, dim: int, rows: int) -> int:
    """Returns a generous estimate of the peak: that of the logits that are there at once.

    Forward and backward hold up to eight arrays of the logits' size at a time.
    """
    logits = (rows or 2 * batch_size) * 2 * batch_size
    return 4 * (9 * logits + 16 * 2 * batch_size * dim)


def _measure(batch_size, dim, form):
    """In a process of its own: {"seconds", "extra_bytes", "block_rows"} or {"not_run": why}."""
    import tensorflow as tf

    from simclr_tf.losses import nt_xent

    rows = block_rows(batch_size, form)
    need, there = needed_bytes(batch_size, dim, rows), available_memory()
    if there is not None and need > there:
        return {"not_run": f"not run: needs about {byte_text(need)}, {byte_text(there)} are free"}

    @tf.function
    def value_and_gradient(z_a, z_b):
        with tf.GradientTape() as tape:
            tape.watch((z_a, z_b))
            loss, accuracy, entropy = nt_xent(z_a, z_b, block_size=rows)
        return loss, accuracy, entropy, tape.gradient(loss, (z_a, z_b))

    def views(n):
        return [tf.random.stateless_normal([n, dim], [view, 0]) for view in (0, 1)]

    def timed(inputs):
        start = time.perf_counter()
        value_and_gradient(*inputs)
        tf.test.experimental.sync_devices()
        return time.perf_counter() - start

    # Another size first, that what TensorFlow starts once is not counted; then the trace.
    timed(views(2 if batch_size != 2 else 3))
    inputs = views(batch_size)
    value_and_gradient.get_concrete_function(*inputs)
    memory = PeakMemory()
    # The first call must be counted in memory (the allocator gives nothing back, so that a later
    # one may seem to need nothing) but not in time, for it compiles.
    timed(inputs)
    seconds: list[float] = []
    while not seconds or (len(seconds) < 9 and sum(seconds) < 2.0):
        seconds.append(timed(inputs))
    return {
        "seconds": Spread(tuple(seconds)).median,
        "extra_bytes": memory.extra(),
        "block_rows": rows,
    }


def _result(size, form, taken, not_run):
    result = {"batch_size": size, "form": form, "not_run": not_run}
    if not_run:
        return result
    seconds = Spread(tuple(outcome["seconds"] for outcome in taken))
    result |= {"block_rows": taken[0]["block_rows"], "seconds": seconds.to_json()}
    extra = [outcome["extra_bytes"] for outcome in taken]
    result["extra_bytes"] = None if None in extra else Spread(tuple(extra)).to_json()
    return result


def _compare(results):
    """Adds to each result of blocks its time and memory as multiples of those of dense."""
    ran = {(r["batch_size"], r["form"]): r for r in results if not r["not_run"]}
    for (size, form), result in ran.items():
        dense = ran.get((size, "dense"))
        if form == "dense" or dense is None:
            continue
        for key in ("seconds", "extra_bytes"):
            if result[key] and dense[key] and dense[key]["median"] > 0:
                result[f"{key}_ratio"] = result[key]["median"] / dense[key]["median"]


def _row(result):
    row = [str(result["batch_size"]), result["form"]]
    if result["not_run"]:
        return [*row, "", result["not_run"]]
    extra = result["extra_bytes"]
    return [
        *row,
        str(result["block_rows"] or "–"),
        spread_text(result["seconds"]),
        spread_text(extra, _MIB) if extra else "–",
        *(
            f"{result[f'{key}_ratio']:.2f} ×" if f"{key}_ratio" in result else "–"
            for key in ("seconds", "extra_bytes")
        ),
    ]


def _mib(count):
    return "–" if count is None else significant(count / _MIB)
