"""`simclr-tf report` on runs of every kind, whole and cut off; the command it shows; mistakes."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from simclr_tf.cli.main import main
from simclr_tf.reporting.run_info import load_run_info, recorded_command, training_seconds
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.tasks import pretrain
from tests.reporting.tiny_runs import picture, tiny


def _report(run, *flags) -> str:
    assert main(["report", f"--model_dir={run}", *flags]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert len(page) < 12_000_000
    return re.sub(r"<script.*?</script>|<style>.*?</style>", "", page, flags=re.DOTALL)


def _sections(page: str) -> set[str]:
    return set(re.findall(r'<section id="([\w-]+)"', page))


ALL = {"headline", "curves", "views", "map", "neighbours", "positives-section", "duplicates", "run"}


def test_a_run_with_evaluations_shows_them(shapes_runs, capsys):
    page = _report(shapes_runs[0], "--images=50", "--map_images=20")
    assert _sections(page) == ALL | {"classes"}
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith(f"report: {shapes_runs[0] / 'report.html'} (")
    best = max(
        record["value"]
        for record in json.loads((shapes_runs[0] / "evaluations.json").read_text())
        if record["protocol"] == "knn"
    )
    assert f"<b>{100 * best:.1f} %</b>" in page
    assert "20 of 60 images of test[:60], by their features" in page
    assert "50 of 120 images of train[:120] and 50 of 60 images of test[:60]" in page
    assert "--width_multiplier" in page and "TensorFlow 2" in page


@pytest.mark.slow
def test_a_folder_without_labels_has_clusters_and_no_classes(tmp_path):
    draw = np.random.default_rng(0)
    for i in range(30):
        picture(draw, tmp_path / "photos" / f"{i}.png", i % 3)
    run = tmp_path / "run"
    pretrain(tiny(f"folder:{tmp_path / 'photos'}", steps=1), run)
    page = _report(run)
    assert _sections(page) == ALL
    assert "10 clusters of k-means" in page
    assert "The images of &#39;validation&#39; are not available" in page

    # The same, but its images are gone: what its files load_run_info is there.
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    page = _report(run)
    assert _sections(page) == {"headline", "curves", "run"}
    assert (
        "The images of &#39;train&#39; are not available" in page
        and "expected a folder, but" in page
    )
    page = _report(run, f"--dataset=folder:{tmp_path / 'elsewhere'}")
    assert _sections(page) == ALL


def test_a_run_interrupted_in_its_first_epoch_is_reported(shapes_runs, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(shapes_runs[0] / "config.json", run)
    page = _report(run)
    assert _sections(page) == {"headline", "views", "run"}
    assert "at step 0 of 3" in page and "No checkpoint yet" in page
    assert "No metrics have been logged yet" in page
    first = (shapes_runs[0] / "metrics.jsonl").read_text().splitlines()[0]
    (run / "metrics.jsonl").write_text(f'{first}\n{{"step":', encoding="utf-8")
    page = _report(run)
    assert _sections(page) == {"headline", "curves", "views", "run"}
    assert "at step 1 of 3" in page


def test_a_damaged_checkpoint_is_noted_and_the_rest_is_shown(shapes_runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(shapes_runs[0], run)
    for file in (run / "checkpoints").glob("*.data*"):
        file.write_bytes(file.read_bytes()[:100])
    page = _report(run)
    assert _sections(page) == {"headline", "curves", "views", "classes", "run"}
    assert "The newest checkpoint cannot be loaded" in page


@pytest.mark.slow
def test_fine_tuned_distilled_and_imported_runs_are_reported(shapes_runs, tmp_path):
    few = [
        *("--train_batch_size=8", "--train_steps=2", "--eval_split=test[:60]"),
        *("--train_split=train[:120]",),
    ]
    tuned, student = tmp_path / "tuned", tmp_path / "student"
    assert main(["finetune", f"--checkpoint={shapes_runs[0]}", f"--model_dir={tuned}", *few]) == 0
    page = _report(tuned)
    assert _sections(page) == (ALL | {"classes"}) and "finetune of shapes" in page
    assert main(["distill", f"--teacher={tuned}", f"--model_dir={student}", *few]) == 0
    page = _report(student)
    assert _sections(page) == (ALL | {"classes"}) and "distill (T=1) of shapes" in page

    # As import leaves it: no step, no image and no metrics, and data that are not there.
    imported = tmp_path / "imported"
    shutil.copytree(shapes_runs[0] / "checkpoints", imported / "checkpoints")
    document = json.loads((shapes_runs[0] / "config.json").read_text(encoding="utf-8"))
    document["plan"] |= {"num_examples": 0, "total_steps": 0, "steps_per_epoch": 0.0}
    document["config"]["data"]["dataset"] = "imagenet2012"
    (imported / "config.json").write_text(json.dumps(document), encoding="utf-8")
    page = _report(imported)
    assert _sections(page) == {"headline", "run"} and "imported weights" in page
    page = _report(
        imported, "--dataset=shapes", "--train_split=train[:60]", "--eval_split=test[:40]"
    )
    assert _sections(page) == (ALL | {"classes"}) - {"curves"}


def test_the_recorded_command_is_shown(shapes_runs, tmp_path):
    document = json.loads((shapes_runs[0] / "config.json").read_text(encoding="utf-8"))
    run = tmp_path / "run"
    run.mkdir()
    document["command"] = ["simclr-tf", "pretrain", "--dataset=folder:a <b>"]
    (run / "config.json").write_text(json.dumps(document), encoding="utf-8")
    info = load_run_info(RunDir(run))
    assert recorded_command(info) == "simclr-tf pretrain '--dataset=folder:a <b>'"
    del document["command"]
    (run / "config.json").write_text(json.dumps(document), encoding="utf-8")
    assert recorded_command(info) == ""
    assert "The command was not recorded" in _report(run)


def test_training_time_is_the_time_of_the_steps(shapes_runs):
    info = load_run_info(RunDir(shapes_runs[0]))
    rows = [
        {"step": 2, "epoch": 0.1, "views_per_second": 8.0},
        {"step": 3, "epoch": 0.2, "views_per_second": 4.0},
    ]
    # 2 views of 8 images a step: two steps at 8 views/s, one at 4.
    assert training_seconds(dataclasses.replace(info, rows=rows)) == 4 + 4
    document = json.loads((shapes_runs[0] / "config.json").read_text(encoding="utf-8"))
    assert document["machine"]["cores"] >= 1 and document["machine"]["tensorflow"]


def _refused(capsys, *flags) -> str:
    assert main(["report", *map(str, flags)]) == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("simclr-tf: error:")]
    return line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "either --model_dir=RUN or --runs=RUN,RUN"),
        (["--runs=a"], "--runs: expected two or more runs and --output=FILE"),
        (["--runs=a,b"], "two or more runs and --output=FILE"),
        (["--model_dir=a", "--output=gs://b/c.html"], "expected a file"),
        (["--model_dir=a", "--map=lda"], "--map=lda"),
        (["--model_dir=a", "--map_images=20000"], "map_images"),
        (["--model_dir=/nowhere"], "holds no run"),
    ],
)
def test_mistakes_are_one_line(capsys, flags, message):
    assert message in _refused(capsys, *flags)


def test_mistakes_of_runs_are_one_line(capsys, shapes_runs, tmp_path, monkeypatch):
    twice = f"--runs={shapes_runs[0]},{shapes_runs[0]}"
    assert "got one of them twice" in _refused(capsys, twice, f"--output={tmp_path / 'x.html'}")
    directory = _refused(capsys, f"--model_dir={shapes_runs[0]}", f"--output={tmp_path}")
    assert "expected a file that can be created" in directory
    monkeypatch.setattr("simclr_tf.reporting.html._MAX_BYTES", 1_000_000)
    line = _refused(capsys, f"--model_dir={shapes_runs[0]}", f"--output={tmp_path / 'x.html'}")
    assert "expected at most" in line and "lower --map_images" in line
    both = ",".join(map(str, shapes_runs))
    assert "compare fewer runs" in _refused(capsys, f"--runs={both}", f"--output={tmp_path / 'x'}")
    assert not (tmp_path / "x.html").exists()


def test_missing_umap_is_an_error_before_any_work(capsys, shapes_runs, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = _refused(capsys, f"--model_dir={shapes_runs[0]}", "--map=umap")
    assert "pip install 'simclr_tf[umap]'" in line
