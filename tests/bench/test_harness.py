"""Measurement harness: processes, rounds, samples, tables and list options."""

import functools
import json
import logging
import os
import types

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.bench import harness
from simclr_tf.bench.harness import Benchmark, BenchResult, NotRun, Samples, SubprocessCrashedError
from simclr_tf.bench.workload import parse_choices, parse_floats, parse_ints
from simclr_tf.errors import UserError
from simclr_tf.options import OptionGroup
from simclr_tf.utils.hardware import HardwareInfo


def test_killed_process_is_an_error():
    # In this process it would end the tests.
    with pytest.raises(SubprocessCrashedError):
        harness.run_in_subprocess(os._exit, 0)


def test_exhausted_memory_becomes_a_memory_error():
    def function(size):
        raise tf.errors.ResourceExhaustedError(None, None, f"OOM with {size}\nand much more")

    with pytest.raises(MemoryError, match=r"^OOM with 7$"):
        harness._call(function, [7])


def call(function, *args):
    return function(*args)


def make_benchmark(outcomes, calls, memory_flag=""):
    """A benchmark whose measurements are taken from lists of outcomes, by case."""

    def measure(options, case):
        calls.append(case)
        outcome = outcomes[case].pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return Benchmark(OptionGroup, measure, {}, memory_flag, summarize=lambda options, outcomes: [])


def test_rounds_alternate_between_cases_and_are_logged(caplog):
    caplog.set_level(logging.INFO)
    calls = []
    outcomes = {case: [{"seconds": s} for s in (1.0, 2.0)] for case in "ab"}
    benchmark = make_benchmark(outcomes, calls)
    measured = benchmark.measure_cases(None, {"case a": "a", "case b": "b"}, 2, run=call)
    assert calls == ["a", "b", "a", "b"]
    assert measured["case b"] == [{"seconds": 1.0}, {"seconds": 2.0}]
    assert caplog.messages[2] == "round 2 of 2, case a: 2 s"


@pytest.mark.parametrize("error", [MemoryError("OOM"), SubprocessCrashedError()])
def test_case_without_memory_is_not_repeated(error, caplog):
    caplog.set_level(logging.INFO)
    calls = []
    outcomes = {"a": [NotRun("requires 9 GiB")], "b": [{"seconds": 1.0}, error]}
    benchmark = make_benchmark(outcomes, calls)
    measured = benchmark.measure_cases(None, {"a": "a", "b": "b"}, 3, run=call)
    assert calls == ["a", "b", "b"]
    assert measured == {"a": ["requires 9 GiB"], "b": [{"seconds": 1.0}, "out of memory"]}
    assert "round 1 of 3, a: requires 9 GiB" in caplog.messages


@pytest.mark.parametrize("error", [MemoryError("OOM"), SubprocessCrashedError()])
def test_case_without_memory_names_the_flag_to_lower(error):
    benchmark = make_benchmark({2: [error]}, [], memory_flag="batch_size")
    with pytest.raises(UserError, match="--batch_size: out of memory at 2 replicas"):
        benchmark.measure_cases(None, {"2 replicas": 2}, 1, run=call)


class Clock:
    """A clock that advances by a given time with each call of `work`."""

    def __init__(self, seconds):
        self.now, self.calls, self._seconds = 100.0, 0, seconds

    def __call__(self):
        return self.now

    def work(self):
        self.calls += 1
        self.now += self._seconds


def test_throughput_repeats_work_until_the_time_is_up():
    clock = Clock(2.0)
    assert harness.throughput(clock.work, 10, 5.0, clock) == pytest.approx(10 / 2.0)
    assert clock.calls == 3
    clock = Clock(9.0)
    assert harness.throughput(clock.work, 18, 5.0, clock) == pytest.approx(2.0)
    assert clock.calls == 1


def test_dataset_throughput_does_not_count_prefetched_batches():
    clock = types.SimpleNamespace(now=100.0)
    read = []

    def batches():  # a dataset has threads, which this clock would not wait for
        for i in range(99):
            read.append(i)
            clock.now += 0.0 if i < 3 else 1.0
            yield {"image": np.uint8([i])}

    rate = harness.dataset_throughput(batches(), 4, 6.0, lambda: clock.now)
    assert rate == pytest.approx(4 / 1.0)
    assert len(read) == 3 + 2 + 6  # a third of the time passes before


def test_quantities_are_measured_in_turn(caplog):
    caplog.set_level(logging.INFO)
    taken = []

    def take(name, values):
        taken.append(name)
        return values.pop(0)

    values = {"a": [4.0, 9.0], "b": [2.0, 3.0]}
    quantities = {name: functools.partial(take, name, values[name]) for name in values}
    samples = harness.measure_interleaved(quantities, 2, "case, views/s")
    assert samples == {"a": Samples((4.0, 9.0)), "b": Samples((2.0, 3.0))}
    assert taken == ["a", "b", "a", "b"]
    assert caplog.messages == [
        "case, views/s, round 1 of 2: a 4, b 2",
        "case, views/s, round 2 of 2: a 9, b 3",
    ]


def test_samples_have_median_range_and_ratios_of_each_round():
    values = [0.3, 0.1, 0.2, 0.9]
    json_values = Samples(tuple(values)).to_json()
    assert json_values == {"median": 0.25, "min": 0.1, "max": 0.9, "values": values}
    assert harness.format_samples(json_values, 0.001) == "250 (100–900)"
    # Of the medians the ratio would be 1; the machine was half as fast in the second round.
    a, b = Samples((4.0, 2.0, 6.0)), Samples((8.0, 1.0, 3.0))
    assert a.ratio_to(b) == Samples((0.5, 2.0, 2.0))
    with pytest.raises(ValueError):
        a.ratio_to(Samples((1.0,)))


def test_result_is_a_table_and_json():
    hardware = HardwareInfo("Some CPU", 1, "2.0", ["Some GPU"])
    columns = {"N": "n", "fast": "fast", "s": "seconds", "2 N": lambda result: 2 * result["n"]}
    results = [{"n": 3, "fast": True, "seconds": Samples((0.5, 1234.0)).to_json()}]
    result = BenchResult(hardware, columns, [*results, {"n": 4, "fast": None}], ["A note."])
    assert result.rows() == [["3", "yes", "617 (0.5–1234)", "6"], ["4", "–", "–", "8"]]
    lines = result.format().splitlines()
    assert lines[1].split() == ["N", "fast", "s", "2", "N"]
    assert lines[-2:] == ["A note.", "Some CPU, 1 core, Some GPU, TensorFlow 2.0"]
    document = json.loads(result.to_json("any", hardware))
    assert document["bench"] == "any" and document["options"]["cores"] == 1
    assert document["results"][0] == results[0]


def test_lists_are_parsed_without_duplicates():
    assert parse_ints("n", "4, 1,4") == [4, 1]
    assert parse_floats("n", "1,0.25") == [1.0, 0.25]
    assert parse_choices("n", "b,a", ("a", "b")) == ["b", "a"]
    for parse, wrong in (
        (parse_ints, ("", "1,many", "0", "99999999999999999999")),
        (parse_floats, (",", "1,wide", "0", "inf", "nan")),
        (lambda name, text: parse_choices(name, text, ("a",)), ("a,c", "")),
    ):
        for text in wrong:
            with pytest.raises(UserError, match=f"--n={text}: expected"):
                parse("n", text)
