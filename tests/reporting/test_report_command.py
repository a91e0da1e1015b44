"""`simclr-tf report` on runs of every kind, whole and cut off; the command it shows; mistakes."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from simclr_tf import config
from simclr_tf.cli.main import main
from simclr_tf.reporting.result_sections import class_report_from_evaluations
from simclr_tf.reporting.run_info import load_run_info, training_seconds
from simclr_tf.runs.run_dir import RunDir, recorded_command
from simclr_tf.training.tasks import pretrain
from tests.reporting.tiny_runs import picture, tiny, write_run


def _report(run, *flags) -> str:
    assert main(["report", f"--model_dir={run}", *flags]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert len(page) < 12_000_000
    return re.sub(r"<script.*?</script>|<style>.*?</style>", "", page, flags=re.DOTALL)


def _sections(page: str) -> set[str]:
    return set(re.findall(r'<section id="([\w-]+)"', page))


ALL = {"headline", "curves", "views", "map", "neighbours", "positives-section", "duplicates", "run"}


def test_a_run_with_evaluations_shows_them(shapes_run, capsys):
    page = _report(shapes_run, "--images=50", "--map_images=20")
    assert _sections(page) == ALL | {"classes"}
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith(f"report: {shapes_run / 'report.html'} (")
    best = max(
        record["value"]
        for record in json.loads((shapes_run / "evaluations.json").read_text())
        if record["protocol"] == "knn"
    )
    assert f"<b>{100 * best:.1f} %</b>" in page
    assert "20 of 60 images of test[:60], by their features" in page
    assert "50 of 120 images of train[:120] and 50 of 60 images of test[:60]" in page
    csv = (shapes_run / "report-duplicates.csv").read_text(encoding="utf-8")
    assert "<code>report-duplicates.csv</code>" in page and csv.startswith("kind,cosine,")
    assert "--width_multiplier" in page and "TensorFlow 2" in page


def test_classes_of_an_evaluation_equal_its_files(shapes_run):
    records = json.loads((shapes_run / "evaluations.json").read_text(encoding="utf-8"))
    found = class_report_from_evaluations(shapes_run, records, 3)
    (record,) = (record for record in records if record["protocol"] == "knn")
    assert found["source"].startswith("knn (k=5, T=0.1) of shapes: trained on 120 images of")
    assert found["source"].endswith(f"top-1 {record['top1']:.1%}")
    rows = found["per_class"].rows
    assert sum(row[1] for row in rows) == 60
    right = sum(row[1] * float(row[2].rstrip("%")) for row in rows)
    assert right / 60 == pytest.approx(100 * record["top1"], abs=0.1)
    assert class_report_from_evaluations(shapes_run, records, 2) is None  # of other weights


@pytest.mark.slow
def test_a_run_without_labels_shows_the_classes_of_its_probe_dataset(tmp_path):
    draw = np.random.default_rng(0)
    for i in range(12):
        picture(draw, tmp_path / "photos" / f"{i}.png", i % 3)
    probes = {"probe_dataset": "shapes", "probe_eval_split": "test[:60]"}
    probes["probe_train_split"] = "train[:120]"
    settings = tiny(f"folder:{tmp_path / 'photos'}").override({"monitoring": probes})
    run = write_run(tmp_path / "run", settings, num_classes=None)
    page = _report(run.path, "--images=50")
    assert _sections(page) == ALL | {"classes"}
    assert "50 images of shapes test[:60], classified by 50 images of shapes train" in page
    assert "<small>shapes test[:60], step 3</small>" in page
    assert "The images of &#39;validation&#39; are not available" in page  # of its own images


@pytest.mark.slow
def test_a_folder_without_labels_has_clusters_and_no_classes(tmp_path):
    draw = np.random.default_rng(0)
    for i in range(30):
        picture(draw, tmp_path / "photos" / f"{i}.png", i % 3)
    run = tmp_path / "run"
    pretrain(tiny(f"folder:{tmp_path / 'photos'}"), run)
    # The same, but its images are gone: the contents of its files are there.
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    page = _report(run)
    assert _sections(page) == {"headline", "curves", "run"}
    assert "The images of &#39;train&#39; are not available" in page
    assert "expected a folder, but" in page
    page = _report(run, f"--dataset=folder:{tmp_path / 'elsewhere'}")
    assert _sections(page) == ALL
    assert "10 clusters of k-means" in page
    assert "The images of &#39;test&#39; are not available" in page


def test_a_run_interrupted_in_its_first_epoch_is_reported(tmp_path):
    run = write_run(tmp_path / "run", tiny("shapes"), weights=False)
    first, *_ = run.metrics_file.read_text().splitlines()
    run.metrics_file.unlink()
    page = _report(run.path)
    assert _sections(page) == {"headline", "views", "run"}
    assert "at step 0 of 3" in page and "No checkpoint yet" in page
    assert "No metrics have been logged yet" in page
    assert "The command was not recorded" in page
    run.metrics_file.write_text(f'{first}\n{{"step":', encoding="utf-8")
    page = _report(run.path, "--dataset=folder:nowhere")
    assert _sections(page) == {"headline", "curves", "run"}
    assert "at step 1 of 3" in page


@pytest.mark.slow
def test_a_damaged_checkpoint_is_noted_and_the_rest_is_shown(shapes_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(shapes_run, run)
    for file in (run / "checkpoints").glob("*.data*"):
        file.write_bytes(file.read_bytes()[:100])
    page = _report(run)
    assert _sections(page) == {"headline", "curves", "views", "classes", "run"}
    assert "The newest checkpoint cannot be loaded" in page


@pytest.mark.slow
def test_fine_tuned_distilled_and_imported_runs_are_reported(shapes_run, tmp_path):
    tuned = tmp_path / "tuned"
    flags = ["--train_batch_size=8", "--train_steps=2", "--train_split=train[:120]"]
    flags += [f"--checkpoint={shapes_run}", f"--model_dir={tuned}", "--eval_split=test[:60]"]
    assert main(["finetune", *flags]) == 0
    page = _report(tuned)
    assert _sections(page) == (ALL | {"classes"}) and "finetune of shapes" in page
    distillation = config.Distillation(teacher=str(tuned))
    student = tiny("shapes", config.DistillConfig, distillation=distillation)
    page = _report(write_run(tmp_path / "student", student).path)
    assert _sections(page) == (ALL | {"classes"}) and "<dd>distill</dd>" in page

    # As import leaves it: no step, no image and no metrics, and data that are not there.
    imported = write_run(tmp_path / "imported", tiny("imagenet2012"), steps=0)
    page = _report(imported.path)
    assert _sections(page) == {"headline", "run"} and "imported weights" in page
    flags = ["--dataset=shapes", "--train_split=train[:60]", "--eval_split=test[:40]"]
    page = _report(imported.path, *flags)
    assert _sections(page) == (ALL | {"classes"}) - {"curves"}


def test_the_recorded_command_is_quoted_for_a_shell(tmp_path):
    with recorded_command(["simclr-tf", "pretrain", "--dataset=folder:a <b>"]):
        run = write_run(tmp_path / "run", tiny("shapes"), weights=False)
    assert load_run_info(run).command == "simclr-tf pretrain '--dataset=folder:a <b>'"


def test_training_time_is_the_time_of_the_steps(shapes_run):
    info = load_run_info(RunDir(shapes_run))
    rows = [
        {"step": 2, "epoch": 0.1, "views_per_second": 8.0},
        {"step": 3, "epoch": 0.2, "views_per_second": 4.0},
    ]
    # 2 views of 8 images a step: two steps at 8 views/s, one at 4.
    assert training_seconds(dataclasses.replace(info, rows=rows)) == 4 + 4
    views = {"contrastive_loss": {"num_views": 3, "num_small_views": 1}}
    more = dataclasses.replace(info, rows=rows, config=info.config.override(views))
    assert training_seconds(more) == 2 * (4 + 4)
    document = json.loads((shapes_run / "config.json").read_text(encoding="utf-8"))
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


def test_mistakes_of_runs_are_one_line(capsys, tmp_path, monkeypatch):
    runs = [write_run(tmp_path / name, tiny("folder:nowhere"), weights=False).path for name in "ab"]
    page = tmp_path / "x.html"
    twice = f"--runs={runs[0]},{runs[0]}"
    assert "got one of them twice" in _refused(capsys, twice, f"--output={page}")
    directory = _refused(capsys, f"--model_dir={runs[0]}", f"--output={tmp_path}")
    assert "expected a file that can be created" in directory
    monkeypatch.setattr("simclr_tf.reporting.html._MAX_BYTES", 1_000_000)
    line = _refused(capsys, f"--model_dir={runs[0]}", f"--output={page}")
    assert "expected at most" in line and "lower --map_images" in line
    both = f"--runs={runs[0]},{runs[1]}"
    assert "compare fewer runs" in _refused(capsys, both, f"--output={page}")
    assert not page.exists()


def test_missing_umap_is_an_error_before_any_work(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = _refused(capsys, f"--model_dir={tmp_path}", "--map=umap")
    assert "pip install 'simclr_tf[umap]'" in line
