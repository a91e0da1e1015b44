"""Rates of what is compared, taken by turns in one process.

A round takes each rate once, so that what else the machine does meets all alike; a ratio is that of
two rates of one round.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from simclr_tf.bench.measure import Spread, significant


def by_turns(
    rates: Mapping[str, Callable[[], float]], repeats: int, say: Callable[[str], None], what: str
) -> dict[str, Spread]:
    """Takes every rate once a round, in the order given, and says what came out.

    Args:
        rates: by name; each takes one measurement.
        repeats: rounds.
        say: takes a line for each round.
        what: is measured, and the unit, for these lines: "width 1, views/s".
    """
    taken: dict[str, list[float]] = {name: [] for name in rates}
    for turn in range(1, repeats + 1):
        for name, take in rates.items():
            taken[name].append(take())
        found = ", ".join(f"{name} {significant(values[-1])}" for name, values in taken.items())
        say(f"{what}, round {turn} of {repeats}: {found}")
    return {name: Spread(tuple(values)) for name, values in taken.items()}


def rate(work: Callable[[], Any], count: int, seconds: float) -> float:
    """Returns how many a second `work` makes, which makes `count` a call.

    It is called once, and then until so many seconds have passed.
    """
    start = time.perf_counter()
    calls = 0
    while not calls or time.perf_counter() - start < seconds:
        work()
        calls += 1
    tf.test.experimental.sync_devices()
    return calls * count / (time.perf_counter() - start)


def delivery_rate(batches: tf.data.Dataset, count: int, seconds: float) -> float:
    """Returns how many a second a dataset, `count` a batch, brings to the device.

    Its threads run no longer than that, so that they are in nobody's way.
    """
    iterator = iter(batches)
    device = "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"

    def deliver():
        with tf.device(device):
            return tf.nest.map_structure(tf.identity, next(iterator))

    rate(deliver, count, seconds / 3)  # what was read ahead is gone, and AUTOTUNE has settled
    return rate(deliver, count, seconds)
