"""A curve of dots, and runs in lines."""

import numpy as np
import pytest

from simclr_tf.runs.curve import curve
from simclr_tf.runs.listing import table
from simclr_tf.runs.summary import Probe, Summary
from simclr_tf.utils.files import format_bytes


def dots(lines):
    """The dots of a plot, (column, row), from the left and from below."""
    found = set()
    for y, line in enumerate(lines[:-2]):
        for x, character in enumerate(line.partition("┤")[2]):
            for bit in range(8):
                if ord(character) >= 0x2800 and ord(character) - 0x2800 >> bit & 1:
                    # Unicode numbers the upper six downwards, then the lowest two.
                    column, row = divmod(bit, 3) if bit < 6 else (bit - 6, 3)
                    found.add((2 * x + column, 4 * (len(lines) - 3 - y) + 3 - row))
    return found


def test_a_line_is_a_diagonal_from_corner_to_corner():
    lines = curve([0, 1], [5.0, 7.0], width=27, height=6)
    found = dots(lines)
    assert lines[0].startswith("7 ┤") and lines[5].startswith("5 ┤")
    assert lines[-1].split() == ["0", "1"] and max(map(len, lines)) == 27
    assert all(abs(y - 23 * x / 47) <= 0.51 for x, y in found)
    assert {x for x, _ in found} == set(range(48))


def test_many_points_are_means_and_steep_ones_are_joined():
    steps = np.arange(10_000)
    noisy = np.where(steps < 5000, 0.0, 10.0) + np.where(steps % 2, 1.0, -1.0)
    found = dots(curve(list(steps), list(noisy), width=60))
    # Between −1 and 11, of 40 rows: the means 0 and 10 lie at 3 and 36.
    rows = [{y for x, y in found if x == column} for column in range(2 * 55)]
    assert rows[10] == {3} and rows[-10] == {36}
    assert {y for _, y in found} >= set(range(3, 37))


@pytest.mark.parametrize("ys", [[3.0], [2.0, 2.0]])
def test_one_point_and_a_level_line_are_drawn(ys):
    assert dots(curve(list(range(len(ys))), ys, width=30))


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_345_678, "12.3 MB"), (999_999, "1 MB")],
)
def test_sizes_have_three_digits(count, text):
    assert format_bytes(count) == text


def test_the_table_says_why_a_run_ended_and_what_is_not_certain():
    text = table(
        [
            Summary("a", "failed", "the disk", step=5, total_steps=10, size=10),
            Summary("bb", "running", "elsewhere", False, total_steps=3),
            Summary("c", "running", "process 3", step=1, total_steps=3),
            Summary("d", "done", best_probe=Probe("knn_top1", 0.1234, 7)),
        ]
    )
    head, *lines, reason, other = [line for line in text.splitlines() if line]
    assert [line.split()[:5] for line in lines] == [
        ["a", "failed", "5", "10", "50"],
        ["bb", "running?", "0", "3", "0"],
        ["c", "running", "1", "3", "33"],
        ["d", "done", "–", "–", "–"],
    ]
    assert "knn_top1 12.3        7" in lines[3] and head.startswith("run  state")
    assert reason == "a: failed: the disk" and other == "bb: running: elsewhere"
