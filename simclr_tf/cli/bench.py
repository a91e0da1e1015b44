"""Measure what the method costs on this machine.

The bench's name comes first. Each prints a table: median and range over repeats that alternate
between what is compared, in fresh processes. --output=FILE writes the same as JSON.
simclr-tf bench NAME --help tells a bench's flags.
"""

import dataclasses
import functools
import importlib
import os
from pathlib import Path

from absl import flags

from simclr_tf.cli.flags import define_section, read_section
from simclr_tf.errors import UserError
from simclr_tf.utils.files import atomic_write

BENCHES = ("augment", "step", "input", "loss", "scaling", "embed")


def _first_line(documented):
    return (documented.__doc__ or "").strip().splitlines()[0]


class Bench:
    """One bench as a command: the documentation, flags and work of its module."""

    def __init__(self, name: str):
        self._name = name
        self._module = importlib.import_module(f"simclr_tf.bench.{name}")
        self.__doc__ = self._module.__doc__

    def define(self, values: flags.FlagValues) -> dict[str, list[str]]:
        section = self._module.Options
        names = define_section(values, section)
        flags.DEFINE_string("output", None, "A JSON file for the figures.", flag_values=values)
        return {(section.__doc__ or "").strip(): names, "Where": ["output"]}

    def run(self, values: flags.FlagValues) -> None:
        options = read_section(values, self._module.Options)
        if values.output:
            _check_output(Path(values.output))
        report = self._module.run(options, say=functools.partial(print, flush=True))
        print(report.text())
        if values.output:
            text = report.to_json(self._name, dataclasses.asdict(options))
            atomic_write(values.output, text)
            print(f"written: {values.output}")


# What `simclr-tf bench --help` prints: this module's own words, then the benches.
__doc__ = "\n".join(
    [
        __doc__ or "",
        *(f"  simclr-tf bench {name:<10} {_first_line(Bench(name))}" for name in BENCHES),
    ]
)


def named(name: str) -> Bench:
    """Returns the bench of a name, the first argument.

    Raises:
        UserError: if there is none.
    """
    if name not in BENCHES:
        wrong = f"{name}: no such bench" if name else "the bench's name is missing"
        raise UserError(f"{wrong}; there are {', '.join(BENCHES)}, as in simclr-tf bench loss")
    return Bench(name)


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    return {}


def _check_output(path):
    """Finds out before the work, not after it, whether the file can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={path}: {error.strerror}") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"--output={path}: is no file that can be written")
