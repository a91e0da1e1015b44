"""Repeat one of the paper's experiments on any dataset, at any budget.

The experiment's name comes first; all else that pretrain knows is the base over which its cells
are laid. Every cell is trained and judged once for each of --seeds, in runs of their own; what is
finished is not done again, and a study that was stopped goes on with the same command. --output
gets runs/, results.json, results.csv, table.md and a picture. docs/study.md says what each study
is; simclr-tf study NAME --help tells its flags.

  simclr-tf study temperature --flagfile=flags/study_shapes.flags --output=runs/temperature
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from simclr_tf import config
from simclr_tf.api.training_options import GROUPS
from simclr_tf.cli.flags import define_options, explicit_options
from simclr_tf.errors import UserError
from simclr_tf.options import OptionSet, make_group, split_commas
from simclr_tf.study.experiments import STUDIES
from simclr_tf.study.grid import RATE_OF_BASE, Cell, Relative, Study

# Nobody looks at the pictures of dozens of runs.
_WATCHING = config.Monitoring(pictures_every_epochs=0.0)
_BASE = [
    OptionSet.of(group, vars(_WATCHING) if group is config.Monitoring else {})
    for group in GROUPS.values()
]


class StudyCommand:
    """One study as a command."""

    def __init__(self, study: Study):
        self._study = study
        cells = f"{len(study.cells)} cells: " + " × ".join(study.axes)
        subsets = f"; --subset of {', '.join(study.subsets)}" if study.subsets else ""
        lines = [
            f"Repeat the paper's study of {study.title}.",
            "",
            f"{study.source}. {cells}{subsets}.",
            f"The paper: {study.finding}",
        ]
        self.__doc__ = "\n".join(lines)

    def define(self, values: flags.FlagValues) -> dict[str, list[str]]:
        study = self._study

        def string(name, default, text):
            flags.DEFINE_string(name, default, text, flag_values=values)

        def integer(name, default, text, low):
            flags.DEFINE_integer(name, default, text, low, flag_values=values)

        string("output", None, "The study's directory; made if it does not exist.")
        string("seeds", "0", "Each cell is trained with each of these seeds: 0,1,2.")
        string("subset", "", f"A smaller grid: {', '.join(study.subsets)}; the whole one if empty.")
        string("cells", "", "Only these cells, by the names that --list shows: a,b.")
        flags.DEFINE_boolean(
            "list",
            False,
            "Print the cells and the number of runs, and run nothing.",
            flag_values=values,
        )
        integer(
            "processes",
            0,
            "Runs at a time: each on a GPU of its own, or on its share of the cores "
            "where there is none; 0: one for each GPU, or one.",
            0,
        )
        integer("num_replicas", 0, "Replicas of every run: GPUs, or CPU devices without one.", 0)
        integer("knn_k", 200, "Neighbours that vote in k-NN.", 1)
        integer("eval_batch_size", 256, "Images per call in evaluation.", 1)
        groups = {
            "Study": ["output", "seeds", "subset", "cells", "list"],
            "How": ["processes", "num_replicas", "knn_k", "eval_batch_size"],
        }
        return groups | define_options(values, _BASE)

    def run(self, values: flags.FlagValues) -> None:
        study = self._study
        seeds = _seeds(values)
        cells = study.chosen(values.subset, split_commas(values.cells))
        if values.list:
            print(_listing(study, cells, seeds))
            return
        options = explicit_options(values, _BASE)
        options.setdefault("pictures_every_epochs", _WATCHING.pictures_every_epochs)
        base = config.PretrainConfig(
            **{name: make_group(group, options) for name, group in GROUPS.items()}
        )
        if not values.output:
            raise UserError("--output is missing: the directory that the study is written to")
        for name in study.varied:
            if values[name].present and is_replaced(name, cells):
                print(f"note: --{name} is what the cells vary: what was given counts for nothing")

        from simclr_tf.study.run_study import Request, conduct

        request = Request(
            study,
            cells,
            base,
            seeds,
            Path(values.output),
            processes=values.processes,
            num_replicas=values.num_replicas,
            knn_k=values.knn_k,
            batch_size=values.eval_batch_size,
            command=shlex.join(["simclr-tf", *sys.argv[1:]]),
        )
        report = conduct(request, say=lambda line: print(line, flush=True))
        print(f"\n{report.table()}\n\nwritten to {request.output}")
        if failed := [result.trial.name for result in report.results if result.failure]:
            raise UserError(
                f"{len(failed)} of {len(report.results)} runs failed: {', '.join(failed)}; "
                f"{request.output}/table.md says why, and the same command tries them again"
            )


def is_replaced(name: str, cells: Sequence[Cell]) -> bool:
    """Whether the base's value of an option has no effect: every cell has a value of its own."""
    overrides = [cell.overrides for cell in cells]
    relative = [value for o in overrides for value in o.values() if isinstance(value, Relative)]
    if RATE_OF_BASE in relative and name in ("learning_rate", "learning_rate_scaling"):
        return False
    return all(name in o and not isinstance(o[name], Relative) for o in overrides)


def get_subcommand(name: str) -> StudyCommand:
    """Returns the study of a name, the first argument.

    Raises:
        UserError: if there is none.
    """
    if name not in STUDIES:
        wrong = f"{name}: no such study" if name else "the study's name is missing"
        raise UserError(f"{wrong}; there are {', '.join(STUDIES)}, as in simclr-tf study head")
    return StudyCommand(STUDIES[name])


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    return {}


def _seeds(values):
    if values["seed"].present:
        raise UserError("--seed: a study has several: --seeds=0,1,2")
    words = split_commas(values.seeds)
    for word in words:
        if not word.isdecimal() or int(word) >= 2**31:
            raise UserError(f"--seeds={values.seeds}: {word!r} is no integer from 0 to 2^31 - 1")
    if not words:
        raise UserError("--seeds is empty: name one, or several with commas between them")
    return list(dict.fromkeys(map(int, words)))


def _listing(study, cells, seeds):
    lines = []
    for cell in cells:
        settings = " ".join(f"{name}={value}" for name, value in cell.overrides.items())
        lines.append(f"{cell.name:<28} {settings}")
    lines.append(f"{len(cells)} cells × {len(seeds)} seeds = {len(cells) * len(seeds)} runs")
    return "\n".join(lines)


# What `simclr-tf study --help` prints: this module's own words, then the studies.
__doc__ = "\n".join(
    [
        __doc__ or "",
        *(f"  simclr-tf study {name:<16} {study.title}" for name, study in STUDIES.items()),
    ]
)
