"""Studies as data: a grid of settings over a base run, and the options of a study."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from simclr_tf.config import PretrainConfig
from simclr_tf.errors import UserError
from simclr_tf.options import OptionGroup, option, parse_ints, split_commas


class RelativeValue:
    """A setting that is derived from the base's."""


@dataclasses.dataclass(frozen=True)
class ScaledBy(RelativeValue):
    """A multiple of the base's value.

    >>> from simclr_tf.study.grid import Cell, ScaledBy
    >>> cell = Cell(("long",), {"train_epochs": ScaledBy(2)})
    >>> str(cell.overrides["train_epochs"])
    '×2'
    """

    factor: float

    def __str__(self):
        return f"×{self.factor:g}"


class _MatchBaseLearningRate(RelativeValue):
    """The learning rate that gives, at the base's batch size, the base's peak learning rate."""

    def __str__(self):
        return "=base"


MATCH_BASE_LEARNING_RATE = _MatchBaseLearningRate()


@dataclasses.dataclass(frozen=True)
class Cell:
    """One setting of a study, trained once with every seed.

    >>> from simclr_tf.study.grid import Cell
    >>> Cell(("linear", "1/8"), {"proj_head_mode": "linear"}).name
    'linear-1_8'

    Attributes:
        coordinates: its value on each of the study's axes.
        overrides: its settings, by option: a value, `ScaledBy` or `MATCH_BASE_LEARNING_RATE`.
        paper_value: the paper's top-1 accuracy in percent, or None.
        supervised: trains the encoder from scratch with labels, on both views.
    """

    coordinates: tuple[str, ...]
    overrides: Mapping[str, Any]
    paper_value: float | None = None
    supervised: bool = False

    @property
    def name(self) -> str:
        """Name of the cell, and the beginning of its runs' directory names."""
        return "-".join(re.sub(r"[^\w.]+", "_", text).strip("_") for text in self.coordinates)


@dataclasses.dataclass(frozen=True)
class PlotSpec:
    """Layout of a study's plot.

    >>> from simclr_tf.study.grid import PlotSpec
    >>> PlotSpec("lines", x="epochs", by="batch size").by
    'batch size'

    Attributes:
        kind: "bars", one for each cell, in groups along `x`; "lines" over `x`; "heat map", with
            the averages of its rows.
        x: horizontal axis.
        by: axis of a heat map's rows, of the lines or of the bars' colors; "": none.
    """

    kind: str
    x: str
    by: str = ""


@dataclasses.dataclass(frozen=True)
class Study:
    """One of the paper's experiments, at any budget.

    >>> from simclr_tf.study.grid import Cell, PlotSpec, Study
    >>> study = Study(
    ...     name="heads",
    ...     title="projection heads",
    ...     source="figure 8",
    ...     axes=("head",),
    ...     cells=[Cell((mode,), {"proj_head_mode": mode}) for mode in ("none", "linear")],
    ...     plot=PlotSpec("bars", x="head"),
    ...     paper_finding="a nonlinear head is best.",
    ... )
    >>> [cell.name for cell in study.select_cells(names=["linear"])]
    ['linear']

    Attributes:
        name: on the command line.
        title: one line about the varied settings.
        source: figure or table in the paper, with remarks about its values.
        axes: names of the cells' coordinates.
        cells: the whole grid.
        plot: layout of the plot.
        paper_finding: the paper's result in a sentence or two.
        columns: results in the table in addition to k-NN: protocols of evaluations.json, or
            contrastive_accuracy and contrastive_entropy at the end of training.
        subsets: smaller grids: allowed coordinates by axis; axes that are omitted are complete.
        needs_replicas: the study makes no sense with a single replica.

    Raises:
        ValueError: if two cells have the same name.
    """

    name: str
    title: str
    source: str
    axes: tuple[str, ...]
    cells: Sequence[Cell]
    plot: PlotSpec
    paper_finding: str
    columns: tuple[str, ...] = ("logistic",)
    subsets: Mapping[str, Mapping[str, Collection[str]]] = dataclasses.field(default_factory=dict)
    needs_replicas: bool = False

    def __post_init__(self):
        names = [cell.name for cell in self.cells]
        if len(set(names)) < len(names):
            raise ValueError(f"two cells of {self.name} have the same name: {', '.join(names)}")

    def select_cells(self, subset: str = "", names: Collection[str] = ()) -> list[Cell]:
        """Returns the cells of a subset ("": all), or those of them that `names` lists.

        Raises:
            UserError: if the subset or a cell does not exist.
        """
        if subset and subset not in self.subsets:
            expected = f"one of {', '.join(self.subsets)}" if self.subsets else "no subset"
            raise UserError(
                f"--subset={subset}: expected {expected} in this study. Fix: see --list"
            )
        restriction = self.subsets[subset] if subset else {}
        cells = [
            cell
            for cell in self.cells
            if all(self.at(cell)[axis] in allowed for axis, allowed in restriction.items())
        ]
        known_names = [cell.name for cell in cells]
        for name in names:
            if name not in known_names:
                raise UserError(f"--cells: expected any of {', '.join(known_names)}, got {name!r}")
        return [cell for cell in cells if not names or cell.name in names]

    def at(self, cell: Cell) -> dict[str, str]:
        """Returns the coordinates of a cell by axis."""
        return dict(zip(self.axes, cell.coordinates, strict=True))

    @property
    def varied_options(self) -> list[str]:
        """Options that the cells set, in the order in which they are first set."""
        return list(dict.fromkeys(name for cell in self.cells for name in cell.overrides))


@dataclasses.dataclass(frozen=True)
class StudyOptions(OptionGroup):
    """Study

    >>> from simclr_tf.study.grid import StudyOptions
    >>> StudyOptions(output="runs/temperature", seeds="0,1,2").seed_list
    [0, 1, 2]
    """

    output: str = option("", "Directory of the study; created if it does not exist.", is_path=True)
    seeds: str = option("0", "Seeds, such as 0,1,2; each cell is trained once with each.")
    subset: str = option("", "Name of a smaller grid, such as small. Default: the whole grid.")
    cells: str = option("", "Names of single cells, as --list shows them: a,b.")
    processes: int = option(
        0,
        "Number of runs at the same time, each on its own GPU, or without GPUs on its own cores. "
        "0: one for each GPU, or one.",
        min=0,
    )
    num_replicas: int = option(
        0, "Replicas of every run: GPUs, or CPU devices without GPUs. 0: one device.", min=0
    )
    knn_k: int | None = option(
        None,
        "Number of neighbors in k-NN. Default: 200, or the size of the smallest class if that is "
        "less, but at least 5.",
        min=1,
    )
    eval_batch_size: int = option(256, "Images per call of the encoder in evaluation.", min=1)

    def __post_init__(self):
        super().__post_init__()
        self.seed_list  # noqa: B018

    @property
    def seed_list(self) -> list[int]:
        """The seeds without duplicates.

        Raises:
            UserError: if there is none, or one is not an integer from 0 to 2^31 - 1.
        """
        return parse_ints("seeds", self.seeds, min=0)

    def select_cells(self, study: Study) -> list[Cell]:
        """Returns the cells that `subset` and `cells` select.

        Raises:
            UserError: if the subset or a cell does not exist.
        """
        return study.select_cells(self.subset, split_commas(self.cells))


def group_of_option(name: str) -> str:
    """Returns the group of PretrainConfig that contains an option."""
    for group in dataclasses.fields(PretrainConfig):
        if name in group.type.__dataclass_fields__:  # type: ignore[union-attr]
            return group.name
    raise KeyError(name)


def cell_config(cell: Cell, base: PretrainConfig, seed: int) -> PretrainConfig:
    """Returns the config of a run: the base with the cell's settings and the seed."""
    changes: dict[str, dict[str, Any]] = {"optimization": {"seed": seed}}
    for name, value in cell.overrides.items():
        group = group_of_option(name)
        if isinstance(value, RelativeValue):
            value = _resolve(value, base, group, name, cell.overrides)
        changes.setdefault(group, {})[name] = value
    config = base.override(changes)
    return config.to_supervised_baseline() if cell.supervised else config


def _resolve(value, base, group, name, overrides):
    if isinstance(value, ScaledBy):
        settings = getattr(base, group)
        option_type = settings.__dataclass_fields__[name].type
        # Rounded where floating point is slightly below a whole number.
        return option_type(round(value.factor * getattr(settings, name), 9))

    from simclr_tf.optimizers import peak_learning_rate

    settings = base.optimization
    batch = settings.train_batch_size
    peak = peak_learning_rate(settings.learning_rate, batch, settings.learning_rate_scaling)
    return peak / peak_learning_rate(1.0, batch, overrides["learning_rate_scaling"])
