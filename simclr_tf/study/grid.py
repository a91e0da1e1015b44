"""What a study is: a grid of settings laid over those of a base run."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from simclr_tf.config import PretrainConfig
from simclr_tf.errors import UserError


class Relative:
    """A value that follows from the base's."""


@dataclasses.dataclass(frozen=True)
class Times(Relative):
    """A multiple of the base's value."""

    factor: float

    def __str__(self):
        return f"×{self.factor:g}"


class _RateOfBase(Relative):
    """The base learning rate that gives, at the base's batch, the base's rate after warm-up."""

    def __str__(self):
        return "=base"


RATE_OF_BASE = _RateOfBase()


@dataclasses.dataclass(frozen=True)
class Cell:
    """One setting of a study, trained once for every seed.

    Attributes:
        at: its place on each of the study's axes.
        overrides: what it sets, by the options' names: a value, `Times` or `RATE_OF_BASE`.
        paper: the paper's figure, in percent; None where it has none.
        supervised: whether the encoder is trained with labels, from nothing, on both views.
    """

    at: tuple[str, ...]
    overrides: Mapping[str, Any]
    paper: float | None = None
    supervised: bool = False

    @property
    def name(self) -> str:
        """What its runs are called, part of a directory's name."""
        return "-".join(re.sub(r"[^\w.]+", "_", place).strip("_") for place in self.at)


@dataclasses.dataclass(frozen=True)
class Picture:
    """How a study is drawn.

    Attributes:
        kind: "bars", one for each cell, in groups along `x`; "lines" over `x`; "heat map", with
            the averages of its rows.
        x: the axis from left to right.
        by: the axis of a heat map's rows, of the lines or of the bars' colours; "": there is none.
    """

    kind: str
    x: str
    by: str = ""


@dataclasses.dataclass(frozen=True)
class Study:
    """One of the paper's experiments, at any budget.

    Attributes:
        name: on the command line.
        title: a line that says what is varied.
        source: where the paper has it, and what its figures are.
        axes: names of the cells' places.
        cells: the whole grid.
        picture: how it is drawn.
        finding: what the paper found, in a sentence or two.
        columns: what the table reports beside k-NN: figures by their names in evaluations.json, or
            contrastive_accuracy and contrastive_entropy of the end of training.
        subsets: smaller grids: by axis, which places are in; axes that are left out are whole.
        needs_replicas: whether it means nothing on one replica.
    """

    name: str
    title: str
    source: str
    axes: tuple[str, ...]
    cells: Sequence[Cell]
    picture: Picture
    finding: str
    columns: tuple[str, ...] = ("logistic",)
    subsets: Mapping[str, Mapping[str, Collection[str]]] = dataclasses.field(default_factory=dict)
    needs_replicas: bool = False

    def chosen(self, subset: str = "", names: Collection[str] = ()) -> list[Cell]:
        """Returns the cells of a subset ("": all), of these only those named, where any are.

        Raises:
            UserError: there is no such subset or cell.
        """
        if subset and subset not in self.subsets:
            known = ", ".join(self.subsets) or "none"
            raise UserError(f"--subset={subset}: the subsets of {self.name} are: {known}")
        within = self.subsets[subset] if subset else {}
        cells = [
            cell
            for cell in self.cells
            if all(cell.at[self.axes.index(axis)] in places for axis, places in within.items())
        ]
        known_names = [cell.name for cell in cells]
        for name in names:
            if name not in known_names:
                raise UserError(f"--cells: {name!r} is none of {', '.join(known_names)}")
        return [cell for cell in cells if not names or cell.name in names]

    def __post_init__(self):
        names = [cell.name for cell in self.cells]
        if len(set(names)) < len(names):
            raise ValueError(f"two cells of {self.name} have one name: {', '.join(names)}")

    @property
    def varied(self) -> list[str]:
        """The options that its cells set, in the order in which they are first set."""
        return list(dict.fromkeys(name for cell in self.cells for name in cell.overrides))


def section_of(option: str) -> str:
    """Returns the section of PretrainConfig that has the option of that name."""
    for section in dataclasses.fields(PretrainConfig):
        if option in section.type.__dataclass_fields__:  # type: ignore[union-attr]
            return section.name
    raise KeyError(option)


def configured(cell: Cell, base: PretrainConfig, seed: int) -> PretrainConfig:
    """Returns the config of a cell's run: the cell's settings and the seed laid over the base.

    Raises:
        UserError: they are not possible together.
    """
    changes: dict[str, dict[str, Any]] = {"optimization": {"seed": seed}}
    overrides = dict(cell.overrides)
    for name, value in overrides.items():
        section = section_of(name)
        changes.setdefault(section, {})[name] = _value(base, section, name, value, overrides)
    config = base.override(changes)
    return config.to_supervised_baseline() if cell.supervised else config


def _value(base: PretrainConfig, section: str, name: str, value: Any, overrides: Any) -> Any:
    if value is RATE_OF_BASE:
        from simclr_tf.optimizers import peak_learning_rate

        settings = base.optimization
        batch = settings.train_batch_size
        peak = peak_learning_rate(settings.learning_rate, batch, settings.learning_rate_scaling)
        return peak / peak_learning_rate(1.0, batch, overrides["learning_rate_scaling"])
    if isinstance(value, Times):
        before = getattr(base, section)
        kind = before.__dataclass_fields__[name].type
        # Rounded where floating point puts it a little below a whole number.
        return kind(round(value.factor * getattr(before, name), 9))
    return value
