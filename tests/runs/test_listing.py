"""Summaries of runs."""

from simclr_tf.runs.listing import Probe, RunDetails, RunSummary, format_run_details, format_runs


def test_format_runs_shows_progress_probe_and_the_reason_of_failures():
    text = format_runs(
        [
            RunSummary("a", "failed", "the disk", step=5, total_steps=10, size=10),
            RunSummary("c", "running", "process 3", step=1, total_steps=3),
            RunSummary("d", "done", best_probe=Probe("knn_top1", 0.1234, 7)),
        ]
    )
    head, *lines, reason = [line for line in text.splitlines() if line]
    assert [line.split()[:5] for line in lines] == [
        ["a", "failed", "5", "10", "50"],
        ["c", "running", "1", "3", "33"],
        ["d", "done", "–", "–", "–"],
    ]
    assert "knn_top1 12.3" in lines[2] and head.startswith("run")
    assert reason == "a: failed: the disk"


def test_format_run_details_shows_the_range_of_the_metric():
    details = RunDetails(
        RunSummary("a", "running", step=3, total_steps=4, epoch=1.5),
        "loss",
        [1, 2, 3],
        [2.0, 0.5, 1.25],
        {"step": 3, "epoch": 1.5, "loss": 1.25, "weight_norm": None},
        [],
    )
    lines = [line.split() for line in format_run_details(details).splitlines()]
    assert ["step", "3:", "loss", "1.25", "weight_norm", "not", "finite"] in lines
    for row in (["first", "2", "1"], ["last", "1.25", "3"], ["min", "0.5", "2"], ["max", "2", "1"]):
        assert row in lines
    assert details.to_json()["state"] == "running" and details.to_json()["values"][1] == 0.5
