"""Progress lines."""

import logging

import pytest

from simclr_tf.utils.progress import Progress


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "simclr_tf")
    return lambda: caplog.messages


def test_progress_logs_rate_and_remaining_time_at_intervals(lines):
    clock = iter([0.0, 5.0, 6.0, 15.5, 16.0, 99.0])
    progress = Progress("features of x", 4_000, clock=lambda: next(clock))
    for done in (100, 200, 1_100, 2_000, 4_000):
        progress.update(done)
    assert lines() == [
        "features of x: 100 of 4,000 images",
        "features of x: 1,100 of 4,000 images, 95.2 images/s, 00:30 left",
    ]


def test_progress_does_not_count_earlier_items_in_the_rate(lines):
    clock = iter([0.0, 1.0, 11.0, 11.0])
    progress = Progress("training", 100, "steps", clock=lambda: next(clock))
    progress.resume(50)
    progress.update(60, "loss 1.5")
    assert lines() == [
        "training: 50 of 100 steps are already cached",
        "training: 60 of 100 steps, 1.0 steps/s, 00:40 left, loss 1.5",
    ]
    assert progress.time_left(60) == "00:40"


def test_progress_draws_a_bar_on_a_terminal(lines, monkeypatch, capsys):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("features of x", 10) as progress:
        assert progress.has_bar
        progress.update(10, "loss 1.5")
    assert "features of x" in capsys.readouterr().err and lines() == []
