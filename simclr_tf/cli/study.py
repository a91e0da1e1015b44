"""Repeat one of the paper's experiments on any dataset, at any budget.

The experiment's name comes first; all flags of pretrain define the base configuration, whose
settings the cells of the experiment override. Every cell is trained and evaluated once with each of
--seeds, in separate runs. Run the same command again to resume: finished runs are not repeated.
--output receives runs/, results.json, results.csv, table.md and a plot. docs/study.md describes the
studies; simclr-tf study NAME --help lists the flags of a study.

  simclr-tf study temperature --flagfile=flags/study_shapes.flags --output=runs/temperature
"""

import sys
from collections.abc import Sequence

from absl import flags

from simclr_tf import config
from simclr_tf.api.training_options import GROUPS
from simclr_tf.cli.flags import Groups, check_subcommand, define_options, explicit_options
from simclr_tf.errors import UserError
from simclr_tf.options import OptionSet, make_group
from simclr_tf.study.experiments import STUDIES
from simclr_tf.study.grid import (
    MATCH_BASE_LEARNING_RATE,
    Cell,
    RelativeValue,
    Study,
    StudyOptions,
)
from simclr_tf.utils.paths import shell_join

# Image summaries of dozens of runs cost time and space.
_DEFAULTS = {"pictures_every_epochs": 0.0}
_BASE = [
    OptionSet.of(group, _DEFAULTS if group is config.Monitoring else {})
    for group in GROUPS.values()
]
_OPTIONS = [OptionSet.of(StudyOptions)]


class StudyCommand:
    """One study as a command."""

    def __init__(self, study: Study):
        self._study = study
        cells = f"{len(study.cells)} cells: " + " × ".join(study.axes)
        subsets = f"; --subset of {', '.join(study.subsets)}" if study.subsets else ""
        self.__doc__ = (
            f"Repeat the paper's study of {study.title}.\n\n"
            f"{study.source}. {cells}{subsets}.\nThe paper: {study.paper_finding}"
        )

    def define(self, values: flags.FlagValues) -> Groups:
        text = "Print the cells and the number of runs without running anything."
        flags.DEFINE_boolean("list", False, text, flag_values=values)
        groups = define_options(values, _OPTIONS)
        return groups | {"Actions": ["list"]} | define_options(values, _BASE)

    def run(self, values: flags.FlagValues) -> None:
        study = self._study
        if values["seed"].present:
            raise UserError(
                f"--seed={values.seed}: expected --seeds in a study. Fix: --seeds={values.seed}"
            )
        options = make_group(StudyOptions, explicit_options(values, _OPTIONS))
        cells = options.select_cells(study)
        if values.list:
            for cell in cells:
                overrides = " ".join(f"{name}={value}" for name, value in cell.overrides.items())
                print(f"{cell.name:<28} {overrides}")
            seeds = len(options.seed_list)
            print(f"{len(cells)} cells × {seeds} seeds = {len(cells) * seeds} runs")
            return
        settings = _DEFAULTS | explicit_options(values, _BASE)
        base = config.PretrainConfig(
            **{name: make_group(group, settings) for name, group in GROUPS.items()}
        )
        for name in study.varied_options:
            if values[name].present and is_set_by_every_cell(name, cells):
                print(f"note: --{name} is varied by this study; the given value is ignored")

        from simclr_tf.study.runner import run_study

        command = shell_join(["simclr-tf", *sys.argv[1:]])
        study_results = run_study(study, base, options, command=command)
        print(f"\n{study_results.table()}\n\nwritten to {options.output}")
        results = study_results.results
        if failed := [result.trial.name for result in results if result.failure]:
            raise UserError(
                f"{len(failed)} of {len(results)} runs failed: {', '.join(failed)}; see "
                f"{options.output}/table.md. Fix: run the same command again to retry them"
            )


def is_set_by_every_cell(name: str, cells: Sequence[Cell]) -> bool:
    """Returns True if every cell overrides an option, so that its value in the base is ignored."""
    overrides = [cell.overrides for cell in cells]
    relative = [
        value for o in overrides for value in o.values() if isinstance(value, RelativeValue)
    ]
    if MATCH_BASE_LEARNING_RATE in relative and name in ("learning_rate", "learning_rate_scaling"):
        return False
    return all(name in o and not isinstance(o[name], RelativeValue) for o in overrides)


def get_subcommand(name: str) -> StudyCommand:
    """Returns the study of a name, the first argument."""
    check_subcommand("study", name, STUDIES)
    return StudyCommand(STUDIES[name])


def define(values: flags.FlagValues) -> Groups:
    return {}


# `simclr-tf study --help` prints the docstring of this module, then the studies.
for _name, _study in STUDIES.items():
    __doc__ = f"{__doc__}\n  simclr-tf study {_name:<16} {_study.title}"
