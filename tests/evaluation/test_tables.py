"""The table of several runs: laid out like the papers', seeds merged."""

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
        projection_head=config.ProjectionHead(**changes),
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


def test_seeds_are_merged_and_all_else_is_not(runs):
    lines = format_run_table(runs).splitlines()
    assert lines[0] == "sha|pes: learnt from train, judged on test"
    assert lines[4:] == [
        "| k-NN, k=5, T=0.1 | SimCLR | R18 × 0.25 | 128 | 128 | 100 | 100 "
        "| 52.0 (50.0–60.0, 3 seeds) |",
        "| k-NN, k=20, T=0.1 | SimCLR | R18 × 0.25 | 128 | 128 | 100 | 100 "
        "| 62.0 (60.0–70.0, 3 seeds) |",
        "| logistic (L-BFGS), L2 chosen of 45 | SimCLR | R18 × 0.25 | 128 | 128 | 100 | 100 "
        "| 52.0 (50.0–60.0, 3 seeds) |",
        "| logistic (Adam) | SimCLR | R18 × 0.25 | 128 | 128 | 100 | 100 | 40.0 |",
        "| k-NN, k=5, T=0.1 | PCA of pixels | – | 100 | – | – | 100 | 30.0 |",
        "| probe:color | SimCLR, g(h) | R18 × 0.25 | 128 | 128 | 100 | 100 "
        "| 52.0 (50.0–60.0, 3 seeds) |",
        "| its own head | supervised encoder | R18 × 0.25 | 128 | – | ? | 100 "
        "| 52.0 (50.0–60.0, 3 seeds) |",
        "| fine-tuned | SimCLR | R18 × 0.25 | 128 | 128 | 100 | 10 | 26.0 (25.0–30.0, 3 seeds) |",
        "| linear | fine-tuned encoder | R18 × 0.25 | 128 | 128 | 100 | 100 | 70.0 |",
    ]


KNN = ("knn", "k=5, T=0.1", 100)


def _rows(*runs):
    return format_run_table(runs).splitlines()[4:]


def test_other_settings_are_not_merged_and_told_apart(tmp_path):
    runs = [
        _run(tmp_path / name, seed, {KNN: value, ("knn/pca", "k=5, T=0.1", 100): 0.3}, **changes)
        for name, seed, value, changes in [
            ("a", 0, 0.5, {}),
            ("b", 1, 0.6, {}),
            ("c", 0, 0.7, {"temperature": 0.5}),
            ("d", 0, 0.8, {"temperature": 0.5, "hidden_norm": False}),
        ]
    ]
    own = [row for row in _rows(*runs) if "PCA" not in row]
    start, end = "| k-NN, k=5, T=0.1 | SimCLR", "| R18 × 0.25 | 128 | 128 | 100 | 100 |"
    assert own == [
        f"{start}, hidden_norm True, temperature 0.1 {end} 55.0 (50.0–60.0, 2 seeds) |",
        f"{start}, hidden_norm True, temperature 0.5 {end} 70.0 |",
        f"{start}, hidden_norm False, temperature 0.5 {end} 80.0 |",
    ]
    assert len(_rows(*runs)) == 4  # the pixels' components are the same for all
    # A fine-tuned run is of the settings that it was pretrained with, too.
    tuned = [
        _run(tmp_path / f"tuned{i}", 0, {("finetune", "", 10): value}, str(runs[i]))
        for i, value in ((0, 0.1), (2, 0.2))
    ]
    assert [row.split(" | ")[1] for row in _rows(*tuned)] == [
        "SimCLR, pretrained with temperature 0.1",
        "SimCLR, pretrained with temperature 0.5",
    ]


def test_two_runs_of_one_seed_are_no_two_seeds(tmp_path):
    runs = [_run(tmp_path / str(i), 0, {KNN: 0.5 + i / 10}) for i in range(2)]
    assert _rows(*runs)[0].endswith("| 55.0 (50.0–60.0, 2 runs) |")


def test_epochs_are_those_that_were_trained(tmp_path):
    half = _run(tmp_path / "half", 0, {KNN: 0.5}, step=125)
    tuned = _run(tmp_path / "tuned", 0, {("finetune", "", 10): 0.4}, str(half))
    assert [row.split(" | ")[5] for row in _rows(half, tuned)] == ["50", "50"]


def test_a_moved_checkpoint_and_a_supervised_baseline_of_fewer_images(tmp_path):
    run = _run(tmp_path / "run", 0, {("knn/supervised", "", 100): 0.5, ("knn/pca", "", 40): 0.3})
    assert [row.split(" | ")[3:6] for row in _rows(run)] == [["128", "–", "?"], ["40", "–", "–"]]
    _run(RunDir(run).supervised_dir("train"), 0, {})
    baseline = RunDir(RunDir(run).supervised_dir("train"))
    settings, plan = baseline.read_config()
    baseline.write_config(settings, dataclasses.replace(plan, steps_per_epoch=0.5))
    assert _rows(run)[0].split(" | ")[5] == "500"
    tuned = _run(tmp_path / "tuned", 0, {("finetune", "", 10): 0.4}, str(tmp_path / "gone"))
    assert _rows(tuned)[0].split(" | ")[2:6] == ["R18 × 0.25", "128", "128", "?"]


def test_the_newest_figure_of_a_run_counts(tmp_path):
    _run(tmp_path, 0, {("knn", "k=5, T=0.1", 100): 0.1})
    _run(tmp_path, 0, {("knn", "k=5, T=0.1", 100): 0.2})
    assert "| 20.0 |" in format_run_table([tmp_path]) and "10.0" not in format_run_table([tmp_path])


def test_nothing_to_show(tmp_path):
    with pytest.raises(UserError, match="nothing has been evaluated"):
        format_run_table([_run(tmp_path, 0, {})])
    with pytest.raises(UserError, match="holds no run"):
        format_run_table([tmp_path / "none"])
