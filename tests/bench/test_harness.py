"""Measurement harness: processes, rounds, samples, tables and list options."""

import logging
import os

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.bench import harness
from simclr_tf.bench.harness import Benchmark, BenchResult, NotRun, Samples
from simclr_tf.errors import UserError
from simclr_tf.options import OptionGroup, parse_choices, parse_floats, parse_ints
from simclr_tf.utils.hardware import HardwareInfo


@pytest.mark.slow
def test_killed_process_is_an_error():
    # In this process it would end the tests.
    with pytest.raises(MemoryError, match="killed"):
        harness.run_in_subprocess(os._exit, 0)


def test_exhausted_memory_becomes_a_memory_error():
    def function(size):
        raise tf.errors.ResourceExhaustedError(None, None, f"OOM with {size}\nand much more")

    with pytest.raises(MemoryError, match=r"^OOM with 7$"):
        harness._call(function, [7])


def call(function, *args):
    return function(*args)


def measure_cases(outcomes, rounds, memory_flag=""):
    """Measures with the outcomes of each case in place of work; returns the calls too."""
    calls, left = [], {case: list(values) for case, values in outcomes.items()}

    def measure(options, case):
        calls.append(case)
        outcome = left[case].pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    benchmark = Benchmark(OptionGroup, measure, {}, memory_flag, summarize=lambda *_: [])
    cases = {f"case {case}": case for case in outcomes}
    return benchmark.measure_cases(None, cases, rounds, run=call), calls


def test_rounds_alternate_between_cases_and_are_logged(caplog):
    caplog.set_level(logging.INFO)
    outcomes = [{"seconds": 1.0}, {"seconds": 2.0}]
    measured, calls = measure_cases({"a": outcomes, "b": outcomes}, 2)
    assert calls == ["a", "b", "a", "b"] and measured["case b"] == outcomes
    assert caplog.messages[2] == "round 2 of 2, case a: 2 s"


def test_case_without_memory_is_not_repeated(caplog):
    caplog.set_level(logging.INFO)
    outcomes = {"a": [NotRun("requires 9 GiB")], "b": [{"seconds": 1.0}, MemoryError("OOM")]}
    measured, calls = measure_cases(outcomes, 3)
    assert calls == ["a", "b", "b"]
    assert measured == {
        "case a": ["requires 9 GiB"],
        "case b": [{"seconds": 1.0}, "out of memory"],
    }
    assert "round 1 of 3, case a: requires 9 GiB" in caplog.messages


def test_case_without_memory_names_the_flag_to_lower():
    with pytest.raises(UserError, match="--batch_size: out of memory at case a"):
        measure_cases({"a": [MemoryError("OOM")]}, 1, memory_flag="batch_size")


@pytest.mark.parametrize(("duration", "expected_calls"), [(2.0, 3), (9.0, 1)])
def test_throughput_repeats_work_until_the_time_is_up(duration, expected_calls):
    calls = []  # each takes `duration` by this clock
    rate = harness.throughput(lambda: calls.append(0), 10, 5.0, lambda: duration * len(calls))
    assert rate == pytest.approx(10 / duration) and len(calls) == expected_calls


def test_dataset_throughput_does_not_count_prefetched_batches():
    read = []

    def batches():  # a dataset has threads, which the clock would not wait for
        for i in range(99):
            read.append(i)
            yield {"image": np.uint8([i])}

    # The first three take no time, the others a second each.
    rate = harness.dataset_throughput(batches(), 4, 6.0, lambda: max(0.0, len(read) - 3.0))
    assert rate == pytest.approx(4 / 1.0)
    assert len(read) == 3 + 2 + 6  # a third of the time passes before


def test_quantities_are_measured_in_turn(caplog):
    caplog.set_level(logging.INFO)
    values = iter([4.0, 2.0, 9.0, 3.0])
    quantities = dict.fromkeys("ab", lambda: next(values))
    samples = harness.measure_interleaved(quantities, 2, "case, views/s")
    assert samples == {"a": Samples((4.0, 9.0)), "b": Samples((2.0, 3.0))}
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


def test_table_has_notes_and_the_machine_below_it():
    hardware = HardwareInfo("Some CPU", 1, "2.0", ["Some GPU"])
    results = [{"n": 3, "fast": True}, {"n": 4, "fast": None}]
    result = BenchResult(hardware, {"N": "n", "fast": "fast"}, results, ["A note."])
    assert result.rows() == [["3", "yes"], ["4", "–"]]
    last = ["A note.", "Some CPU, 1 core, Some GPU, TensorFlow 2.0"]
    assert result.format().splitlines()[-2:] == last


def test_lists_are_parsed_without_duplicates():
    assert parse_ints("n", "4, 1,4") == [4, 1]
    assert parse_floats("n", "1,0.25") == [1.0, 0.25]
    assert parse_choices("n", "b,a", ("a", "b")) == ["b", "a"]
    for parse, wrong in (
        (parse_ints, ("", "1,many", "0", "99999999999999999999")),
        (parse_floats, (",", "1,wide", "0", "inf", "nan")),
        (lambda name, text: parse_choices(name, text, ("a",), required=True), ("a,c", "")),
    ):
        for text in wrong:
            with pytest.raises(UserError, match=f"--n={text}: expected"):
                parse("n", text)
