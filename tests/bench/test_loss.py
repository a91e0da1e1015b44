"""Benchmark of the loss: memory, block sizes, ratios. Real values: tests/cli."""

import os

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.bench import loss
from simclr_tf.bench.harness import BenchResult, NotRun
from simclr_tf.losses.nt_xent import choose_block_size


def outcome(seconds, mib, rows=0):
    return {"seconds": seconds, "extra_bytes": mib * 2**20, "block_rows": rows}


def rows_of(options, *outcomes):
    results = loss.summarize(options, dict(enumerate(outcomes)))
    return BenchResult(None, loss.BENCHMARK.columns, results, []).rows()


def test_medians_are_compared():
    dense = [outcome(s, mib) for s, mib in ((2.0, 100), (4.0, 300), (9.0, 200))]
    blocks = [outcome(s, mib, 16) for s, mib in ((1.0, 50), (3.0, 10), (2.0, 20))]
    assert rows_of(loss.Options(batch_sizes="8"), dense, blocks) == [
        ["8", "dense", "–", "4 (2–9)", "200 (100–300)", "–", "–"],
        ["8", "blocks", "16", "2 (1–3)", "20 (10–50)", "0.50 ×", "0.10 ×"],
    ]
    options = loss.Options(batch_sizes="8", forms="blocks,dense")
    blocks, dense = loss.summarize(options, {"b": blocks, "d": dense})
    assert (blocks["seconds_ratio"], blocks["extra_bytes_ratio"]) == (0.5, 0.1)
    assert "seconds_ratio" not in dense


def test_missing_measurements_are_shown():
    options, blocks = loss.Options(batch_sizes="8"), [outcome(1.0, 10, 16)]
    dense, compared = rows_of(options, [NotRun("requires 9 GiB")], blocks)
    assert dense == ["8", "dense", "–", "not run: requires 9 GiB", "–", "–", "–"]
    assert compared[5:] == ["–", "–"]
    dense, compared = rows_of(options, [outcome(1.0, 1) | {"extra_bytes": None}], blocks)
    assert dense[4] == "–" and compared[5:] == ["1.00 ×", "–"]


def test_size_that_does_not_fit_is_not_run():
    options = loss.Options(dim=8)
    # [2N, 2N] of 4 bytes are 16 MiB. Small, because it runs if this fails.
    reason = loss.measure(options, (1024, "dense"), available=64 * 2**20)
    assert reason == NotRun("requires about 152 MB, 67.1 MB are free")
    assert "seconds" in loss.measure(options, (64, "dense"), available=64 * 2**20)


def test_blocks_are_those_of_the_loss():
    for size in (4096, 8192, 16384):
        assert loss.block_rows(size, "blocks") == choose_block_size(2 * size, 2 * size) > 0
    assert loss.block_rows(256, "blocks") == 512  # all rows in one
    assert loss.block_rows(4096, "dense") == 0


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux")
def test_peak_memory_is_measured_beyond_the_current_one():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("counts the GPU's memory")
    np.ones(2**27, np.uint8)  # an earlier and higher peak, which must not count
    memory = loss.PeakMemory()
    np.ones(2**26, np.uint8)
    assert 2**26 <= memory.increase() + 2**20 < 1.2 * 2**26
