"""The bench of the loss: its order, what it leaves out, its sums. Its figures: tests/cli."""

import pytest

from simclr_tf.bench import loss
from simclr_tf.bench.measure import HardwareInfo, ProcessDiedError
from simclr_tf.losses.nt_xent import choose_block_size


@pytest.fixture
def measured(monkeypatch):
    """Outcomes instead of processes: what is asked for, and by case the answers in turn."""
    asked, answers = [], {}

    def in_fresh_process(function, size, dim, form):
        asked.append((size, form))
        answer = answers[size, form].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(loss, "in_fresh_process", in_fresh_process)
    monkeypatch.setattr(loss, "this_machine", lambda: HardwareInfo("CPU", 2, "2", []))
    return asked, answers


def outcome(seconds, mib, rows=0):
    return {"seconds": seconds, "extra_bytes": mib * 2**20, "block_rows": rows}


def test_rounds_alternate_and_medians_are_compared(measured):
    asked, answers = measured
    answers[8, "dense"] = [outcome(s, mib) for s, mib in ((2.0, 100), (4.0, 300), (9.0, 200))]
    answers[8, "blocks"] = [outcome(s, mib, 16) for s, mib in ((1.0, 50), (3.0, 10), (2.0, 20))]
    report = loss.run(loss.Options(batch_sizes="8"), lambda line: None)
    assert asked == [(8, "dense"), (8, "blocks")] * 3
    assert report.rows == [
        ["8", "dense", "–", "4 (2–9)", "200 (100–300)", "–", "–"],
        ["8", "blocks", "16", "2 (1–3)", "20 (10–50)", "0.50 ×", "0.10 ×"],
    ]


def test_ratios_are_of_blocks_to_dense_in_any_order(measured):
    _, answers = measured
    answers[8, "dense"], answers[8, "blocks"] = [outcome(4.0, 100)], [outcome(1.0, 10, 16)]
    options = loss.Options(batch_sizes="8", forms="blocks,dense", repeats=1)
    blocks, dense = loss.run(options, lambda line: None).results
    assert (blocks["seconds_ratio"], blocks["extra_bytes_ratio"]) == (0.25, 0.1)
    assert "seconds_ratio" not in dense


@pytest.mark.parametrize("error", [MemoryError("OOM"), ProcessDiedError()])
def test_what_does_not_fit_is_told_and_not_tried_again(measured, error):
    asked, answers = measured
    answers[8, "dense"] = [{"not_run": "not run: needs about 9 GiB"}]
    answers[8, "blocks"] = [outcome(1.0, 10, 16), error]
    said = []
    report = loss.run(loss.Options(batch_sizes="8"), said.append)
    assert asked == [(8, "dense"), (8, "blocks"), (8, "blocks")]
    assert "round 1 of 3, N = 8, dense: not run: needs about 9 GiB" in said
    assert report.rows == [
        ["8", "dense", "", "not run: needs about 9 GiB"],
        ["8", "blocks", "", "ended for want of memory"],
    ]
    assert [result["not_run"] for result in report.results] == [row[-1] for row in report.rows]


def test_a_size_that_does_not_fit_is_not_run(monkeypatch):
    monkeypatch.setattr(loss, "available_memory", lambda: 64 * 2**20)
    # [2N, 2N] of 4 bytes are 16 MiB. Small, for if this fails it runs.
    told = loss._measure(1024, 8, "dense")
    assert told == {"not_run": "not run: needs about 145 MiB, 64 MiB are free"}
    assert "seconds" in loss._measure(64, 8, "dense")


def test_machine_without_memory_counts(measured):
    _, answers = measured
    answers[8, "dense"] = [outcome(1.0, 1) | {"extra_bytes": None}]
    answers[8, "blocks"] = [outcome(1.0, 1, 16)]
    report = loss.run(loss.Options(batch_sizes="8", repeats=1), lambda line: None)
    assert report.rows[0][4] == "–" and report.rows[1][5:] == ["1.00 ×", "–"]


def test_blocks_are_those_that_the_loss_takes():
    for size in (4096, 8192, 16384):
        assert loss.block_rows(size, "blocks") == choose_block_size(2 * size, 2 * size) > 0
    assert loss.block_rows(256, "blocks") == 512  # all rows in one
    assert loss.block_rows(4096, "dense") == 0
