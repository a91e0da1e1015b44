"""Table, files and plot of a study, from synthetic results."""

import csv
import json
import statistics

import pytest
from matplotlib.image import imread

from simclr_tf.config import PretrainConfig
from simclr_tf.option_groups import Data
from simclr_tf.study.experiments import STUDIES
from simclr_tf.study.plot import plot_study
from simclr_tf.study.results import StudyResults, TrialResult
from simclr_tf.study.trial import TrialEvaluation, make_trials

BASE = PretrainConfig(Data(dataset="shapes"))


def make_results(name, tmp_path, seeds=(0, 1, 2), subset="", **changes):
    """Finished trials with different values, except for the trials in `changes`."""
    study = STUDIES[name]
    evaluation = TrialEvaluation(study.columns, 200, 256, tmp_path)
    results = []
    for n, trial in enumerate(make_trials(study.select_cells(subset), BASE, seeds, tmp_path)):
        values = dict.fromkeys(evaluation.expected_results(trial.config), 0.4 + n / 1000)
        values["knn/random"] = 0.2
        changed = changes.get(trial.name.replace("-", "_").replace(".", "_"), {})
        results.append(TrialResult(trial, **{"values": values, **changed}))
    return StudyResults(study, BASE, f"simclr-tf study {name}", results)


def test_summary_has_mean_and_sample_deviation_over_seeds(tmp_path):
    study_results = make_results("temperature", tmp_path)
    summary = study_results.summaries[1]
    values = [0.401, 0.407, 0.413]
    assert summary.values("knn") == pytest.approx(values)
    assert summary.mean("knn") == pytest.approx(statistics.fmean(values))
    assert summary.std("knn") == pytest.approx(0.006)  # of a sample
    assert summary.format("knn") == "40.7 ± 0.6"
    assert summary.format("contrastive_entropy") == "0.41 ± 0.01"
    single = make_results("temperature", tmp_path, seeds=[5]).summaries[0]
    assert single.std("knn") is None and single.format("knn") == "40.0"


def rows_of(study_results):
    lines = [line for line in study_results.table().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_table_has_command_results_and_paper_values(tmp_path):
    study_results = make_results("temperature", tmp_path)
    head, _, *rows = rows_of(study_results)
    assert head[:4] == ["projections", "τ", "k-NN", "k-NN, untrained"]
    assert head[-2:] == ["seeds", "paper"]
    assert len(rows) == 6
    assert rows[1] == [
        *("normalized", "0.1", "40.7 ± 0.6", "20.0 ± 0.0", "40.7 ± 0.6", "40.7 ± 0.6"),
        *("0.41 ± 0.01", "3", "64.4"),
    ]
    text = study_results.table()
    assert "simclr-tf study temperature" in text and "Table 5" in text
    assert "†" not in text and "Failed" not in text and "Not finished" not in text


def test_table_names_runs_that_failed_learned_nothing_or_are_missing(tmp_path):
    study_results = make_results(
        "temperature",
        tmp_path,
        normalized_0_05_0={"values": None, "failure": "the loss was not finite at step 3"},
        normalized_0_1_1={"values": None},
        plain_10_2={"values": {"knn": 0.249, "knn/random": 0.2}},
    )
    rows = {tuple(row[:2]): row for row in rows_of(study_results)}
    assert rows["normalized", "0.05"][-2] == rows["normalized", "0.1"][-2] == "2"
    assert rows["plain", "10"][2].endswith(" †") and rows["plain", "10"][-2] == "3"
    text = study_results.table()
    assert "Failed: normalized-0.05-0: the loss was not finite at step 3." in text
    assert "Not finished: normalized-0.1-1." in text
    assert "untrained encoder's: plain-10-2." in text
    by_name = {result.trial.name: result for result in study_results.results}
    assert not by_name["plain-10-2"].has_learned and by_name["plain-10-1"].has_learned
    assert not by_name["normalized-0.1-1"].has_learned


def test_run_counts_from_5_points_of_knn(tmp_path):
    (trial, *_) = make_trials(STUDIES["head"].cells, BASE, [0], tmp_path)
    assert TrialResult(trial, {"knn": 0.25, "knn/random": 0.2}).has_learned
    assert not TrialResult(trial, {"knn": 0.2499, "knn/random": 0.2}).has_learned


def test_files_contain_every_run(tmp_path):
    failure = {"values": None, "failure": "=1+1"}
    results = make_results("color_strength", tmp_path, SimCLR_1_8_0=failure, SimCLR_1_8_1=failure)
    results.write(tmp_path)
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


def test_supervised_rows_have_the_accuracy_of_their_head(tmp_path):
    study_results = make_results("width_depth", tmp_path, subset="")
    head, _, *rows = rows_of(study_results)
    own = head.index("own head")
    assert [row[own] for row in rows[:15]] == ["–"] * 15
    assert all("±" in row[own] for row in rows[15:])
    assert "paper" not in head


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_plotted(name, tmp_path):
    study = STUDIES[name]
    first = study.cells[0].name.replace("-", "_").replace(".", "_")
    missing = {f"{first}_{seed}": {"values": None} for seed in (0, 1, 2)}
    plot_study(make_results(name, tmp_path, **missing), tmp_path / "plot.png")
    height, width, _ = imread(tmp_path / "plot.png").shape
    panels = len({cell.coordinates[:1] for cell in study.cells}) if len(study.axes) == 3 else 1
    assert width >= 600 * (panels if name != "batch_epochs" else 2) and height >= 400


def test_study_without_results_is_plotted(tmp_path):
    trials = make_trials(STUDIES["augmentations"].cells, BASE, [0], tmp_path)
    results = [TrialResult(trial, failure="no") for trial in trials]
    plot_study(StudyResults(STUDIES["augmentations"], BASE, "", results), tmp_path / "plot.png")
    assert imread(tmp_path / "plot.png").shape[2] == 4
