"""Time and memory of NT-Xent: the dense form against blocks.

Times the loss of N images with its gradient, in graph mode, and measures the peak memory beyond its
inputs, each form and size in a fresh process. The rounds alternate between sizes and forms. A size
that would not fit into memory is not run, and the table says so.

  simclr-tf bench loss --batch_sizes=1024,8192 --output=loss.json
"""

import dataclasses
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from simclr_tf.bench import harness
from simclr_tf.options import OptionGroup, option, parse_choices, parse_ints
from simclr_tf.utils.files import format_bytes
from simclr_tf.utils.hardware import HardwareInfo


@dataclasses.dataclass(frozen=True)
class Options(OptionGroup):
    """Measurement"""

    batch_sizes: str = option(
        "256,512,1024,2048,4096,8192,16384", "Images N; each gives two of the 2N views."
    )
    dim: int = option(128, "Width of the projections.", min=1)
    forms: str = option("dense,blocks", "dense, blocks or both.")
    repeats: int = option(3, "Rounds; each measures every size and form once.", min=1)

    def __post_init__(self):
        super().__post_init__()
        self.sizes_and_forms()

    def sizes_and_forms(self) -> list[tuple[int, str]]:
        sizes = parse_ints("batch_sizes", self.batch_sizes, min=2)
        forms = parse_choices("forms", self.forms, ("dense", "blocks"), required=True)
        return list(itertools.product(sizes, forms))

    def cases(self, hardware: HardwareInfo) -> dict[str, tuple[int, str]]:
        return {f"N = {size}, {form}": (size, form) for size, form in self.sizes_and_forms()}

    def notes(self, hardware: HardwareInfo) -> list[str]:
        return [
            f"Projections of width {self.dim}; time and memory of blocks as multiples of dense.",
            "Extra memory is the peak beyond the inputs, including some MiB of compiled graph.",
        ]


def block_rows(batch_size: int, form: str) -> int:
    """Returns the `block_size` of nt_xent: 0 for dense, for blocks its own choice."""
    from simclr_tf.losses.nt_xent import choose_block_size

    if form == "dense":
        return 0
    # Where nt_xent itself would be dense, as its rule for large logits makes them.
    return min(2 * batch_size, choose_block_size(sys.maxsize, 2 * batch_size))


def measure(
    options: Options, case: tuple[int, str], available: int | None = None
) -> dict[str, Any] | harness.NotRun:
    """Measures the case (N, form) if it fits into `available` bytes; None: the free memory."""
    import tensorflow as tf

    from simclr_tf.losses import nt_xent

    batch_size, form = case
    dim, rows = options.dim, block_rows(batch_size, form)
    # At most: forward and backward pass hold up to eight arrays of the logits' size at a time.
    logits = (rows or 2 * batch_size) * 2 * batch_size
    required = 4 * (9 * logits + 16 * 2 * batch_size * dim)
    available = available_memory() if available is None else available
    if available is not None and required > available:
        return harness.NotRun(
            f"requires about {format_bytes(required)}, {format_bytes(available)} are free"
        )

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

    # Another size first, so that TensorFlow's one-time initialization is not counted.
    timed(views(2 if batch_size != 2 else 3))
    inputs = views(batch_size)
    value_and_gradient.get_concrete_function(*inputs)
    memory = PeakMemory()
    # The first call must be counted in memory (the allocator gives nothing back, so that a later
    # one may seem to need nothing) but not in time, because it compiles.
    timed(inputs)
    seconds: list[float] = []
    while not seconds or (len(seconds) < 9 and sum(seconds) < 2.0):
        seconds.append(timed(inputs))
    return {
        "seconds": harness.Samples(tuple(seconds)).median,
        "extra_bytes": memory.increase(),
        "block_rows": rows,
    }


def summarize(options: Options, outcomes: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Returns a result for each size and form, with ratios of blocks to dense."""
    results, dense = [], {}
    for (size, form), taken in zip(options.sizes_and_forms(), outcomes.values(), strict=True):
        result: dict[str, Any] = {"batch_size": size, "form": form, "not_run": None}
        results.append(result)
        if isinstance(taken[-1], harness.NotRun):
            result["not_run"] = str(taken[-1])
            continue
        extra = tuple(outcome["extra_bytes"] for outcome in taken)
        result["block_rows"] = taken[0]["block_rows"]
        result["seconds"] = harness.Samples(tuple(o["seconds"] for o in taken)).to_json()
        result["extra_bytes"] = None if None in extra else harness.Samples(extra).to_json()
        if form == "dense":
            dense[size] = result
    for result in results:
        base = dense.get(result["batch_size"])
        if base is None or result["form"] == "dense" or result["not_run"]:
            continue
        for key in ("seconds", "extra_bytes"):
            if result[key] and base[key] and base[key]["median"] > 0:
                result[f"{key}_ratio"] = result[key]["median"] / base[key]["median"]
    return results


class PeakMemory:
    """Peak memory of this process from now on, relative to its current memory.

    On the first GPU, as its allocator counts it; without a GPU the resident memory, which includes
    what TensorFlow's allocator holds back for later.
    """

    def __init__(self):
        import tensorflow as tf

        self._on_gpu = bool(tf.config.list_physical_devices("GPU"))
        try:
            self._before = self._read("current", "VmRSS")
            if self._on_gpu:
                tf.config.experimental.reset_memory_stats("GPU:0")
            else:
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
        except (OSError, IndexError):  # not Linux, or not all of it
            self._before = None

    def increase(self) -> int | None:
        """Returns bytes; None where the system does not count them."""
        if self._before is None:
            return None
        try:
            return self._read("peak", "VmHWM") - self._before
        except IndexError:  # a /proc without this field
            return None

    def _read(self, of_gpu, of_process):
        import tensorflow as tf

        if self._on_gpu:
            return tf.config.experimental.get_memory_info("GPU:0")[of_gpu]
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition(f"{of_process}:")[2].split()[0])


def available_memory() -> int | None:
    """Returns the bytes that a process can still allocate on its device; None if unknown."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        from tensorflow.python.client import device_lib

        devices = device_lib.list_local_devices()
        return next((d.memory_limit for d in devices if d.device_type == "GPU"), None)
    return psutil.virtual_memory().available


def _format_multiple(value):
    return None if value is None else f"{value:.2f} ×"


BENCHMARK = harness.Benchmark(
    Options,
    measure,
    columns={
        "N": "batch_size",
        "form": "form",
        "block rows": lambda result: result.get("block_rows") or None,
        "seconds, median (min–max)": lambda r: (
            f"not run: {r['not_run']}" if r["not_run"] else r["seconds"]
        ),
        "extra MiB": lambda r: harness.format_samples(r.get("extra_bytes"), 2**20),
        "time": lambda result: _format_multiple(result.get("seconds_ratio")),
        "memory": lambda result: _format_multiple(result.get("extra_bytes_ratio")),
    },
    summarize=summarize,
)
