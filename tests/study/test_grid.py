"""Studies as data: every shipped grid makes valid configs over any base."""

import dataclasses
import re

import numpy as np
import pytest

from simclr_tf.config import FinetuneConfig, PretrainConfig
from simclr_tf.errors import UserError
from simclr_tf.optimizers import peak_learning_rate
from simclr_tf.option_groups import Augmentation, Data, Optimization
from simclr_tf.study.experiments import STUDIES
from simclr_tf.study.grid import Cell, ScaledBy, cell_config, group_of_option
from simclr_tf.study.trial import make_trials

BASE = PretrainConfig(
    Data(dataset="shapes"),
    Augmentation(image_size=16),
    optimization=Optimization(train_batch_size=64, train_epochs=3, learning_rate=0.2),
)
PAPER = PretrainConfig(
    Data(dataset="imagenet2012"),
    optimization=Optimization(train_batch_size=4096, train_epochs=100, learning_rate=0.3),
)
every_study = pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)


@every_study
@pytest.mark.parametrize("base", [BASE, PAPER], ids=["small", "paper"])
def test_grid_makes_valid_and_different_configs(study, base, tmp_path):
    trials = make_trials(study.cells, base, [0, 7], tmp_path)
    assert len(trials) == 2 * len(study.cells)
    for trial in trials:
        config = trial.config.resolve()
        assert config.optimization.seed == trial.seed
        assert isinstance(config, FinetuneConfig) == trial.cell.supervised
        for name, value in trial.cell.overrides.items():
            actual = getattr(getattr(config, group_of_option(name)), name)
            if isinstance(value, (str, int, float)):
                assert actual == value
    configs = [repr(trial.config) for trial in trials]
    assert len(set(configs)) == len(configs)
    # Options that no cell varies are the base's.
    changed = {"seed", *study.varied_options}
    for field in dataclasses.fields(PretrainConfig):
        before = dataclasses.asdict(getattr(base, field.name))
        for trial in trials:
            after = dataclasses.asdict(getattr(trial.config, field.name))
            assert all(after[k] == v for k, v in before.items() if k not in changed)


def test_cells_with_the_same_name_are_refused():
    study = STUDIES["head"]
    cells = [Cell(("linear", "1/8"), {}), Cell(("linear", "1 8"), {})]
    with pytest.raises(ValueError, match="two cells of head have the same name"):
        dataclasses.replace(study, cells=cells)


@every_study
def test_names_are_directory_names_and_coordinates_match_axes(study):
    names = [cell.name for cell in study.cells]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\w.][\w.-]*", name) for name in names)
    assert all(len(cell.coordinates) == len(study.axes) for cell in study.cells)
    assert {study.plot.x, study.plot.by or study.axes[0]} <= set(study.axes)


@every_study
def test_subsets_are_parts_of_the_grid(study):
    assert study.select_cells() == list(study.cells)
    for name, restriction in study.subsets.items():
        cells = study.select_cells(name)
        assert 1 < len(cells) <= len(study.cells)
        for axis, allowed in restriction.items():
            assert {study.at(cell)[axis] for cell in cells} == set(allowed)
    assert study.select_cells(names=[study.cells[1].name]) == [study.cells[1]]
    with pytest.raises(UserError, match="--subset=tiny"):
        study.select_cells("tiny")
    with pytest.raises(UserError, match=r"--cells: expected any of .*, got 'nothing'"):
        study.select_cells(names=["nothing"])
    outside = [cell.name for cell in study.cells if cell not in study.select_cells("small")]
    for name in outside[:1]:
        with pytest.raises(UserError, match=f"--cells: expected any of .*, got '{name}'"):
            study.select_cells("small", [name])


def test_scaled_values_keep_their_type():
    cell = Cell(("half",), {"train_batch_size": ScaledBy(0.5), "train_epochs": ScaledBy(0.1)})
    settings = cell_config(cell, BASE, 0).optimization
    assert settings.train_batch_size == 32 and isinstance(settings.train_batch_size, int)
    assert settings.train_epochs == 0.3  # and not 0.30000000000000004
    with pytest.raises(UserError, match="--train_batch_size=1: expected an integer of at least 2"):
        cell_config(Cell(("tiny",), {"train_batch_size": ScaledBy(1 / 64)}), BASE, 0)


@pytest.mark.parametrize("scaling", ["linear", "sqrt", "none"])
def test_learning_rates_agree_at_the_base_batch(scaling):
    """For any scaling rule; at the paper's base they are its two base rates, 0.3 and 0.075."""
    settings = dataclasses.replace(PAPER.optimization, learning_rate_scaling=scaling)
    base = dataclasses.replace(PAPER, optimization=settings)
    peak = peak_learning_rate(0.3, 4096, scaling)
    peaks = {}
    for cell in STUDIES["batch_epochs"].cells:
        settings = cell_config(cell, base, 0).optimization
        peaks[settings.train_batch_size, cell.coordinates[2]] = peak_learning_rate(
            settings.learning_rate, settings.train_batch_size, settings.learning_rate_scaling
        )
        if scaling == "linear":
            wanted = {"linear": 0.3, "sqrt": 0.075}[cell.coordinates[2]]
            assert settings.learning_rate == pytest.approx(wanted)
    for (batch, rule), value in peaks.items():
        factor = batch / 4096
        wanted = peak * (factor if rule == "linear" else factor**0.5)
        assert value == pytest.approx(wanted)


def test_paper_values_are_those_of_the_paper():
    """Row averages of Fig. 5 as the paper prints them, and values of its tables."""
    cells = {cell.coordinates: cell.paper_value for cell in STUDIES["augmentations"].cells}
    rows = np.reshape(list(cells.values()), (7, 7)).mean(axis=1)
    np.testing.assert_allclose(rows, [39.2, 29.4, 25.7, 18.8, 15.5, 14.5, 13.8], atol=0.06)
    assert max(cells, key=cells.get) == ("crop", "color")

    for study, coordinates, value in (
        ("color_strength", ("SimCLR", "1 + blur"), 64.5),
        ("color_strength", ("supervised", "RandAugment"), 77.1),
        ("temperature", ("normalized", "0.1"), 64.4),
        ("temperature", ("plain", "100"), 57.0),
        ("batch_epochs", ("B/16", "E", "sqrt"), 62.8),
        ("batch_epochs", ("2B", "8E", "linear"), 69.0),
    ):
        values = {cell.coordinates: cell.paper_value for cell in STUDIES[study].cells}
        assert values[coordinates] == value


def test_supervised_cells_train_from_scratch_on_both_views():
    base = dataclasses.replace(
        BASE,
        optimization=dataclasses.replace(BASE.optimization, microbatch_size=16),
        monitoring=dataclasses.replace(BASE.monitoring, knn_every_epochs=1.0),
    )
    (cell, *_) = (cell for cell in STUDIES["color_strength"].cells if cell.supervised)
    config = cell_config(cell, base, 3)
    assert isinstance(config, FinetuneConfig)
    assert config.finetuning.from_scratch and config.finetuning.views_per_image == 2
    assert config.optimization.microbatch_size == 0 and config.monitoring.knn_every_epochs == 0
    assert config.optimization.train_epochs == base.optimization.train_epochs
