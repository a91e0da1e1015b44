"""What the benches measure with."""

import os

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.bench import measure
from simclr_tf.bench.measure import PeakMemory, ProcessDiedError, Spread, in_fresh_process


def test_a_process_that_dies_is_an_error():
    # In this process it would end the tests.
    with pytest.raises(ProcessDiedError):
        in_fresh_process(os._exit, 0)


def test_want_of_memory_comes_back_as_such():
    def function(size):
        raise tf.errors.ResourceExhaustedError(None, None, f"OOM with {size}\nand much more")

    with pytest.raises(MemoryError, match=r"^OOM with 7$"):
        measure._call(function, [7])


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux")
def test_peak_memory_is_what_was_taken_and_given_back():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("counts the GPU's memory")
    np.ones(2**27, np.uint8)  # an earlier and higher peak, which must not count
    memory = PeakMemory()
    np.ones(2**26, np.uint8)
    assert 2**26 <= memory.extra() + 2**20 < 1.2 * 2**26


def test_spread_is_median_and_range():
    spread = Spread((0.3, 0.1, 0.2, 0.9))
    assert spread.text() == "0.25 (0.1–0.9)"
    assert spread.text(0.001) == "250 (100–900)"
    values = [0.3, 0.1, 0.2, 0.9]
    assert spread.to_json() == {"median": 0.25, "min": 0.1, "max": 0.9, "values": values}


def test_numbers_and_bytes_are_told_briefly():
    numbers = (0.0123456, 1.5, 12.345, 123.45, 12345.6)
    assert [measure.significant(n) for n in numbers] == ["0.0123", "1.5", "12.3", "123", "12346"]
    counts = (12, 1536, 3 * 2**20, 2.5 * 2**40)
    assert [measure.byte_text(n) for n in counts] == ["12 B", "1.5 KiB", "3 MiB", "2560 GiB"]
