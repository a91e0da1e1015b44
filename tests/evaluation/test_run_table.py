"""Table of several runs: rows, merged seeds, distinguishing settings."""

import dataclasses

import pytest

from simclr_tf import config
from simclr_tf.errors import UserError
from simclr_tf.evaluation.run_table import format_run_table
from simclr_tf.runs.results_file import append_evaluations
from simclr_tf.runs.run_dir import RunDir

PLAN = config.TrainingPlan(100, 10, 250, 0, 2.5, 0.1)


def _run(path, seed, values, checkpoint=None, step=250, **changes):
    base = config.PretrainConfig(
        data=config.Data(dataset="shapes"),
        encoder=config.Encoder(resnet_depth=18, width_multiplier=0.25),
        contrastive_loss=config.ContrastiveLoss(**changes),
        optimization=config.Optimization(seed=seed),
    )
    if checkpoint is not None:
        sections = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}
        sections["checkpoints"] = config.Checkpoints(checkpoint=checkpoint)
        base = config.FinetuneConfig(**sections)
    RunDir(path).write_config(base, PLAN)
    checkpoints = RunDir(path).checkpoint_dir
    checkpoints.mkdir(exist_ok=True)
    (checkpoints / "checkpoint").write_text(f'model_checkpoint_path: "step-{step}"')
    (checkpoints / f"step-{step}.index").touch()
    for (protocol, setting, num_train), value in values.items():
        record = {
            **{"protocol": protocol, "dataset": "sha|pes", "train_split": "train"},
            **{"test_split": "test", "top1": value, "top5": 1.0, "num_train": num_train},
            **{"num_test": 20, "step": step, "seconds": 1.0, "setting": setting},
            **{"metric": "top-1", "value": value},
        }
        append_evaluations(RunDir(path).evaluations_file, [record])
    return path


@pytest.fixture
def runs(tmp_path):
    found = []
    for seed, value in enumerate((0.5, 0.6, 0.52)):
        figures = {
            ("knn", "k=5, T=0.1", 100): value,
            ("knn", "k=20, T=0.1", 100): value + 0.1,
            ("logistic", f"L2={seed + 1}, chosen of 45", 100): value,
            ("logistic", "adam", 100): 0.4,
            ("knn/pca", "k=5, T=0.1", 100): 0.3,
            ("probe:color/projection", "", 100): value,
            ("finetune/supervised", "", 100): value,
        }
        run = _run(tmp_path / f"run{seed}", seed, figures)
        tuned = {("finetune", "", 10): value / 2, ("linear", "", 100): 0.7}
        found += [run, _run(tmp_path / f"tuned{seed}", seed, tuned, str(run))]
    return found


def test_table_merges_seeds_and_separates_settings(runs):
    title, _, _, _, *rows = format_run_table(runs).splitlines()
    assert title.startswith("sha|pes:")
    cells = [tuple(_cells(row)) for row in rows]
    encoder = ("R18 × 0.25", "128", "128", "100", "100")
    merged = "52.0 (50.0–60.0, 3 seeds)"
    assert cells == [
        ("k-NN, k=5, T=0.1", "SimCLR", *encoder, merged),
        ("k-NN, k=20, T=0.1", "SimCLR", *encoder, "62.0 (60.0–70.0, 3 seeds)"),
        ("logistic (L-BFGS), L2 chosen of 45", "SimCLR", *encoder, merged),
        ("logistic (Adam)", "SimCLR", *encoder, "40.0"),
        ("k-NN, k=5, T=0.1", "PCA of pixels", "–", "100", "–", "–", "100", "30.0"),
        ("probe:color", "SimCLR, g(h)", *encoder, merged),
        ("own classifier", "supervised encoder", "R18 × 0.25", "128", "–", "?", "100", merged),
        ("fine-tuned", "SimCLR", *encoder[:-1], "10", "26.0 (25.0–30.0, 3 seeds)"),
        ("linear", "fine-tuned encoder", *encoder, "70.0"),
    ]


def _cells(row):
    return [cell.strip() for cell in row.strip("|").split(" | ")]


KNN = ("knn", "k=5, T=0.1", 100)


def _rows(*runs):
    return [_cells(row) for row in format_run_table(runs).splitlines()[4:]]


def test_rows_with_different_settings_name_them(tmp_path):
    runs = [
        _run(tmp_path / name, seed, {KNN: value, ("knn/pca", "k=5, T=0.1", 100): 0.3}, **changes)
        for name, seed, value, changes in [
            ("a", 0, 0.5, {}),
            ("b", 1, 0.6, {}),
            ("c", 0, 0.7, {"temperature": 0.5}),
            ("d", 0, 0.8, {"temperature": 0.5, "hidden_norm": False}),
        ]
    ]
    own = [(row[1], row[-1]) for row in _rows(*runs) if "PCA" not in row[1]]
    assert own == [
        ("SimCLR, hidden_norm True, temperature 0.1", "55.0 (50.0–60.0, 2 seeds)"),
        ("SimCLR, hidden_norm True, temperature 0.5", "70.0"),
        ("SimCLR, hidden_norm False, temperature 0.5", "80.0"),
    ]
    assert len(_rows(*runs)) == 4  # PCA of the pixels does not depend on the loss
    # Settings of the pretraining also distinguish fine-tuned runs.
    tuned = [
        _run(tmp_path / f"tuned{i}", 0, {("finetune", "", 10): value}, str(runs[i]))
        for i, value in ((0, 0.1), (2, 0.2))
    ]
    assert [row[1] for row in _rows(*tuned)] == [
        "SimCLR, pretrained with temperature 0.1",
        "SimCLR, pretrained with temperature 0.5",
    ]


def test_runs_with_the_same_seed_are_counted_as_runs(tmp_path):
    runs = [_run(tmp_path / str(i), 0, {KNN: 0.5 + i / 10}) for i in range(2)]
    assert _rows(*runs)[0][-1] == "55.0 (50.0–60.0, 2 runs)"


def test_epochs_are_counted_up_to_the_checkpoint(tmp_path):
    half = _run(tmp_path / "half", 0, {KNN: 0.5}, step=125)
    tuned = _run(tmp_path / "tuned", 0, {("finetune", "", 10): 0.4}, str(half))
    assert [row[5] for row in _rows(half, tuned)] == ["50", "50"]


def test_epochs_of_moved_checkpoints_and_supervised_baselines(tmp_path):
    run = _run(tmp_path / "run", 0, {("knn/supervised", "", 100): 0.5, ("knn/pca", "", 40): 0.3})
    assert [row[3:6] for row in _rows(run)] == [["128", "–", "?"], ["40", "–", "–"]]
    _run(RunDir(run).supervised_dir("train"), 0, {})
    baseline = RunDir(RunDir(run).supervised_dir("train"))
    settings, plan = baseline.read_config()
    baseline.write_config(settings, dataclasses.replace(plan, steps_per_epoch=0.5))
    assert _rows(run)[0][5] == "500"
    tuned = _run(tmp_path / "tuned", 0, {("finetune", "", 10): 0.4}, str(tmp_path / "gone"))
    assert _rows(tuned)[0][2:6] == ["R18 × 0.25", "128", "128", "?"]


def test_newest_result_of_a_run_is_shown(tmp_path):
    _run(tmp_path, 0, {("knn", "k=5, T=0.1", 100): 0.1})
    _run(tmp_path, 0, {("knn", "k=5, T=0.1", 100): 0.2})
    assert [row[-1] for row in _rows(tmp_path)] == ["20.0"]


def test_runs_without_results_are_refused(tmp_path):
    with pytest.raises(UserError, match="has no results"):
        format_run_table([_run(tmp_path, 0, {})])
    with pytest.raises(UserError, match="holds no run"):
        format_run_table([tmp_path / "none"])
