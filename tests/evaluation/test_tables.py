"""The table of several runs: laid out like the papers', seeds merged."""

import dataclasses

import pytest

from simclr_tf import config
from simclr_tf.errors import UserError
from simclr_tf.evaluation.results import append_evaluations
from simclr_tf.evaluation.tables import table_of_runs
from simclr_tf.run import Run

PLAN = config.Plan(100, 10, 250, 0, 2.5, 0.1)


def _run(path, seed, values, settings=None):
    base = config.PretrainConfig(
        data=config.Data(dataset="shapes"),
        encoder=config.Encoder(resnet_depth=18, width_multiplier=0.25),
        optimization=config.Optimization(seed=seed),
    )
    if settings is not None:
        sections = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}
        sections["checkpoints"] = config.Checkpoints(checkpoint=settings)
        base = config.FinetuneConfig(**sections)
    Run(path).write(base, PLAN)
    for (protocol, setting, num_train), value in values.items():
        record = {
            **{"protocol": protocol, "dataset": "sha|pes", "train_split": "train"},
            **{"test_split": "test", "top1": value, "top5": 1.0, "num_train": num_train},
            **{"num_test": 20, "step": 250, "seconds": 1.0, "setting": setting},
            **{"metric": "top-1", "value": value},
        }
        append_evaluations(Run(path).evaluations_file, [record])
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
    lines = table_of_runs(runs).splitlines()
    assert lines[0] == "sha|pes: learnt from train, judged on test"
    assert lines[4:] == [
        "| k-NN, k=5, T=0.1 | SimCLR | R18 × 0.25 | 128 | 128 | 100 | 100 "
        "| 52.0 (50.0–60.0, 3 seeds) |",
        "| k-NN, k=20, T=0.1 | SimCLR | R18 × 0.25 | 128 | 128 | 100 | 100 "
        "| 62.0 (60.0–70.0, 3 seeds) |",
        "| logistic (L-BFGS), L2 chosen of 45 | SimCLR | R18 × 0.25 | 128 | 128 | 100 | 100 "
        "| 52.0 (50.0–60.0, 3 seeds) |",
        "| logistic (Adam) | SimCLR | R18 × 0.25 | 128 | 128 | 100 | 100 | 40.0 |",
        "| k-NN, k=5, T=0.1 | PCA of pixels | – | 256 | – | – | 100 | 30.0 |",
        "| probe:color | SimCLR, g(h) | R18 × 0.25 | 128 | 128 | 100 | 100 "
        "| 52.0 (50.0–60.0, 3 seeds) |",
        "| its own head | supervised encoder | R18 × 0.25 | 128 | – | 100 | 100 "
        "| 52.0 (50.0–60.0, 3 seeds) |",
        "| fine-tuned | SimCLR | R18 × 0.25 | 128 | 128 | 100 | 10 | 26.0 (25.0–30.0, 3 seeds) |",
        "| linear | fine-tuned encoder | R18 × 0.25 | 128 | 128 | 100 | 100 | 70.0 |",
    ]


def test_the_newest_figure_of_a_run_counts(tmp_path):
    _run(tmp_path, 0, {("knn", "k=5, T=0.1", 100): 0.1})
    _run(tmp_path, 0, {("knn", "k=5, T=0.1", 100): 0.2})
    assert "| 20.0 |" in table_of_runs([tmp_path]) and "10.0" not in table_of_runs([tmp_path])


def test_nothing_to_show(tmp_path):
    with pytest.raises(UserError, match="nothing has been evaluated"):
        table_of_runs([_run(tmp_path, 0, {})])
    with pytest.raises(UserError, match="holds no run"):
        table_of_runs([tmp_path / "none"])
