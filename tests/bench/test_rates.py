"""Rates by turns, and their ratios."""

import types

import numpy as np
import pytest

from simclr_tf.bench import rates
from simclr_tf.bench.measure import Spread
from simclr_tf.bench.rates import by_turns, delivery_rate, rate


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests move: `clock.now`, in seconds."""
    clock = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(rates, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def worker(clock, seconds):
    """Work that takes so long, and a list with an entry for each call."""
    calls = []

    def work():
        calls.append(1)
        clock.now += seconds

    return work, calls


def test_work_is_repeated_until_the_time_is_up(clock):
    work, calls = worker(clock, 2.0)
    assert rate(work, 10, seconds=5.0) == pytest.approx(10 / 2.0)
    assert len(calls) == 3


def test_work_that_takes_longer_is_done_once(clock):
    work, calls = worker(clock, 9.0)
    assert rate(work, 18, seconds=5.0) == pytest.approx(2.0)
    assert len(calls) == 1


def test_what_was_read_ahead_does_not_count(clock):
    read = []

    def batches():  # a dataset has threads, which the clock would not wait for
        for i in range(99):
            read.append(i)
            clock.now += 0.0 if i < 3 else 1.0
            yield {"image": np.uint8([i])}

    assert delivery_rate(batches(), 4, seconds=6.0) == pytest.approx(4 / 1.0)
    assert len(read) == 3 + 2 + 6  # a third of the time goes by before


def test_rounds_take_each_in_turn_and_say_so():
    taken, said = [], []

    def taking(name, values):
        def take():
            taken.append(name)
            return values.pop(0)

        return take

    answers = {"a": taking("a", [4.0, 9.0]), "b": taking("b", [2.0, 3.0])}
    assert by_turns(answers, 2, said.append, "case, views/s") == {
        "a": Spread((4.0, 9.0)),
        "b": Spread((2.0, 3.0)),
    }
    assert taken == ["a", "b", "a", "b"]
    assert said == [
        "case, views/s, round 1 of 2: a 4, b 2",
        "case, views/s, round 2 of 2: a 9, b 3",
    ]


def test_ratios_are_those_of_each_round():
    # Of the medians it would be 1; the machine was half as fast in the second round.
    ours, theirs = Spread((4.0, 2.0, 6.0)), Spread((8.0, 1.0, 3.0))
    assert ours.over(theirs) == Spread((0.5, 2.0, 2.0))
    with pytest.raises(ValueError):
        ours.over(Spread((1.0,)))
