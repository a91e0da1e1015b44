"""A study's table, files and picture, from results that are made up."""

import csv
import json
import statistics

import pytest
from matplotlib.image import imread

from simclr_tf.config import Data, PretrainConfig
from simclr_tf.study.experiments import STUDIES
from simclr_tf.study.plot import draw
from simclr_tf.study.results import Report, Result
from simclr_tf.study.trial import Judging, trials_of

BASE = PretrainConfig(Data(dataset="shapes"))


def report_of(name, tmp_path, seeds=(0, 1, 2), subset="", **changes):
    """All trials finished with figures that differ, except those that `changes` names."""
    study = STUDIES[name]
    judging = Judging(study.columns, 200, 256, tmp_path)
    results = []
    for n, trial in enumerate(trials_of(study.chosen(subset), BASE, seeds, tmp_path)):
        figures = dict.fromkeys(judging.expected(trial.config), 0.4 + n / 1000)
        figures["knn/random"] = 0.2
        changed = changes.get(trial.name.replace("-", "_").replace(".", "_"), {})
        results.append(Result(trial, **{"figures": figures, **changed}))
    return Report(study, BASE, f"simclr-tf study {name}", results)


def test_mean_and_deviation_over_the_seeds(tmp_path):
    report = report_of("temperature", tmp_path)
    summary = report.summaries[1]
    values = [0.401, 0.407, 0.413]
    assert summary.values("knn") == pytest.approx(values)
    assert summary.mean("knn") == pytest.approx(statistics.fmean(values))
    assert summary.deviation("knn") == pytest.approx(0.006)  # of a sample
    assert summary.text("knn") == "40.7 ± 0.6"
    assert summary.text("contrastive_entropy") == "0.41 ± 0.01"
    single = report_of("temperature", tmp_path, seeds=[5]).summaries[0]
    assert single.deviation("knn") is None and single.text("knn") == "40.0"


def rows_of(report):
    lines = [line for line in report.table().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_table_says_what_was_run_and_what_the_paper_has(tmp_path):
    report = report_of("temperature", tmp_path)
    head, _, *rows = rows_of(report)
    assert head[:4] == ["projections", "τ", "k-NN", "k-NN, untrained"]
    assert head[-2:] == ["seeds", "paper"]
    assert len(rows) == 6
    assert rows[1] == [
        *("normalised", "0.1", "40.7 ± 0.6", "20.0 ± 0.0", "40.7 ± 0.6", "40.7 ± 0.6"),
        *("0.41 ± 0.01", "3", "64.4"),
    ]
    text = report.table()
    assert "simclr-tf study temperature" in text and "Table 5" in text
    assert "†" not in text and "Failed" not in text and "Not finished" not in text


def test_runs_that_learnt_too_little_failed_or_are_missing_are_named(tmp_path):
    report = report_of(
        "temperature",
        tmp_path,
        normalised_0_05_0={"figures": None, "failure": "the loss was not finite at step 3"},
        normalised_0_1_1={"figures": None},
        plain_10_2={
            "figures": {
                **dict.fromkeys(("knn", "logistic", "contrastive_accuracy"), 0.249),
                "contrastive_entropy": 1.0,
                "knn/random": 0.2,
            }
        },
    )
    rows = {tuple(row[:2]): row for row in rows_of(report)}
    assert rows["normalised", "0.05"][-2] == rows["normalised", "0.1"][-2] == "2"
    assert rows["plain", "10"][2].endswith(" †") and rows["plain", "10"][-2] == "3"
    text = report.table()
    assert "Failed: normalised-0.05-0: the loss was not finite at step 3." in text
    assert "Not finished: normalised-0.1-1." in text
    assert "the means include them: of plain-10-2 the k-NN" in text
    by_name = {result.trial.name: result for result in report.results}
    assert not by_name["plain-10-2"].counts and by_name["plain-10-1"].counts
    assert not by_name["normalised-0.1-1"].counts


def test_five_points_are_enough(tmp_path):
    (trial, *_) = trials_of(STUDIES["head"].cells, BASE, [0], tmp_path)
    assert Result(trial, {"knn": 0.25, "knn/random": 0.2}).counts
    assert not Result(trial, {"knn": 0.2499, "knn/random": 0.2}).counts


def test_files_hold_every_run(tmp_path):
    failure = {"figures": None, "failure": "=1+1"}
    report_of("color_strength", tmp_path, SimCLR_1_8_0=failure, SimCLR_1_8_1=failure).write(
        tmp_path
    )
    document = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert len(document["cells"]) == 12 and len(document["runs"]) == 36
    first = document["cells"][0]
    assert first["at"] == {"training": "SimCLR", "policy": "1/8"} and first["paper"] == 59.6
    assert first["num_finished"] == 1 and first["standard_deviation"]["knn"] is None
    assert document["cells"][6]["mean"]["finetune/supervised"] == pytest.approx(0.418)
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36 and rows[0]["failure"] == "'=1+1" and rows[0]["knn"] == ""
    assert float(rows[1]["knn"]) == pytest.approx(0.401) and rows[1]["counts"] == "True"
    assert (tmp_path / "table.md").read_text(encoding="utf-8").count("\n|") == 14


def test_supervised_rows_have_their_own_head_and_no_projection(tmp_path):
    report = report_of("width_depth", tmp_path, subset="")
    head, _, *rows = rows_of(report)
    own = head.index("own head")
    assert [row[own] for row in rows[:15]] == ["–"] * 15
    assert all("±" in row[own] for row in rows[15:])
    assert "paper" not in head


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_drawn(name, tmp_path):
    study = STUDIES[name]
    first = study.cells[0].name.replace("-", "_").replace(".", "_")
    missing = {f"{first}_{seed}": {"figures": None} for seed in (0, 1, 2)}
    draw(report_of(name, tmp_path, **missing), tmp_path / "picture.png")
    height, width, _ = imread(tmp_path / "picture.png").shape
    panels = len({cell.at[:1] for cell in study.cells}) if len(study.axes) == 3 else 1
    assert width >= 600 * (panels if name != "batch_epochs" else 2) and height >= 400


def test_nothing_finished_is_drawn_too(tmp_path):
    report = report_of("augmentations", tmp_path)
    empty = Report(report.study, BASE, "", [Result(r.trial, failure="no") for r in report.results])
    draw(empty, tmp_path / "picture.png")
    assert imread(tmp_path / "picture.png").shape[2] == 4
