"""Measure what the method costs on this machine.

The benchmark's name comes first. Each prints a table: median and range over repeats that alternate
between what is compared, in fresh processes. --output=FILE writes the same as JSON.
simclr-tf bench NAME --help lists a benchmark's flags.
"""

import importlib
from typing import Any

from absl import flags

from simclr_tf.cli.flags import Groups, check_subcommand, define_command, explicit_options
from simclr_tf.options import OptionSet, make_group
from simclr_tf.utils.files import atomic_write, check_output_path

BENCHES = ("augment", "step", "input", "loss", "scaling", "embed")


class Bench:
    """One benchmark as a command: the documentation, flags and work of its module."""

    def __init__(self, name: str):
        module: Any = importlib.import_module(f"simclr_tf.bench.{name}")
        self._name, self._benchmark = name, module.BENCHMARK
        self.__doc__ = module.__doc__

    def define(self, values: flags.FlagValues) -> Groups:
        output = {"output": "JSON file for the results."}
        return define_command(values, [OptionSet.of(self._benchmark.options)], outputs=output)

    def run(self, values: flags.FlagValues) -> None:
        group = self._benchmark.options
        options = make_group(group, explicit_options(values, [OptionSet.of(group)]))
        if values.output:
            check_output_path(values.output, "output", is_file=True)
        result = self._benchmark.run(options)
        print(result.format())
        if values.output:
            atomic_write(values.output, result.to_json(self._name, options))
            print(f"written: {values.output}")


def get_subcommand(name: str) -> Bench:
    """Returns the benchmark of a name, the first argument."""
    check_subcommand("bench", name, BENCHES)
    return Bench(name)


def define(values: flags.FlagValues) -> Groups:
    return {}


# `simclr-tf bench --help` prints the docstring of this module, then the benchmarks.
for _name in BENCHES:
    _summary = (Bench(_name).__doc__ or "").strip().splitlines()[0]
    __doc__ = f"{__doc__}\n  simclr-tf bench {_name:<10} {_summary}"
