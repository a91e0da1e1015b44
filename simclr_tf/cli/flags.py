"""Flags generated from option groups, and the help of the commands."""

import textwrap
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from simclr_tf.errors import UserError
from simclr_tf.options import OptionSet, option_fields, option_type
from simclr_tf.utils.paths import expand_user

if TYPE_CHECKING:
    from simclr_tf.api.run import Run
    from simclr_tf.api.signature import OptionFunction

_DEFINE: dict[type, Any] = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}

Groups = dict[str, list[str]]  # names of flags by heading

# Flags of the reference implementation's commands that nothing here depends on.
IGNORED_REFERENCE_FLAGS = (
    *("train_summary_steps", "variable_schema", "eval_name", "master", "eval_steps"),
)
_TRAIN_MODES = ["pretrain", "finetune", "distill"]


def define_options(values: flags.FlagValues, option_sets: Iterable[OptionSet]) -> Groups:
    """Defines a flag for every option, and returns the names of the flags by heading."""
    groups: Groups = {}
    for option_set in option_sets:
        for field in option_fields(option_set.group):
            default = option_set.defaults.get(field.name, field.default)
            help_text = option_set.help.get(field.name, field.metadata["help"])
            _DEFINE[option_type(field)](field.name, default, help_text, flag_values=values)
            heading = field.metadata["heading"] or option_set.heading
            groups.setdefault(heading, []).append(field.name)
    return groups


def explicit_options(values: flags.FlagValues, option_sets: Iterable[OptionSet]) -> dict[str, Any]:
    """Returns the values of the options that the command line sets, by name."""
    names = [field.name for s in option_sets for field in option_fields(s.group)]
    return {name: values[name].value for name in names if values[name].present}


def warn_ignored_flags(values: flags.FlagValues, names: Iterable[str]) -> None:
    """Prints a note for every flag that the command line sets although it has no effect."""
    for name in names:
        if values[name].present:
            print(f"note: --{name} has no effect here")


class _PathParser(flags.ArgumentParser):
    """Parses a path, whose leading `~` is the home directory."""

    def parse(self, argument: str) -> str:
        return expand_user(argument)


def define_command(
    values: flags.FlagValues,
    option_sets: Iterable[OptionSet],
    inputs: Mapping[str, str] = types.MappingProxyType({}),
    outputs: Mapping[str, str] = types.MappingProxyType({}),
) -> Groups:
    """Defines options, and flags that are paths of inputs and outputs, given with their help."""
    for name, text in [*inputs.items(), *outputs.items()]:
        flags.DEFINE(_PathParser(), name, "", text, values, flags.ArgumentSerializer())
    groups = define_options(values, option_sets)
    first = [*inputs, *groups.pop("Input", [])]
    last = [*outputs, *groups.pop("Output", [])]
    return {**({"Input": first} if first else {}), **groups, "Output": last}


def training_command(
    function: "OptionFunction[Any, Run]",
    next_steps: Callable[[Path], str],
    ignored: Sequence[str] = (),
) -> tuple[Callable[[flags.FlagValues], Groups], Callable[[flags.FlagValues], None]]:
    """Returns `define` and `run` of a training command.

    It accepts the flags `ignored` without effect, and prints `next_steps(run)` after training.
    """
    name = function.__name__

    def define(values: flags.FlagValues) -> Groups:
        groups = define_options(values, function.option_sets)
        flags.DEFINE_enum("train_mode", name, _TRAIN_MODES, f"Must be {name}.", flag_values=values)
        for flag in ignored:
            flags.DEFINE_string(flag, None, "Accepted, but has no effect.", flag_values=values)
        groups["Other flags of the reference implementation"] = ["train_mode", *ignored]
        return groups

    def run(values: flags.FlagValues) -> None:
        if (mode := values.train_mode) != name:
            raise UserError(f"--train_mode={mode}: expected {name}. Fix: run simclr-tf {mode}")
        warn_ignored_flags(values, ignored)
        trained = function(**explicit_options(values, function.option_sets))
        if values.mode == "train" and trained.is_chief:
            print(next_steps(trained.path))

    return define, run


def evaluation_next(path: Path) -> str:
    """Returns what follows the training of a classifier."""
    return f"next: run the same command with --mode=eval to evaluate and export {path}"


def check_subcommand(command: str, name: str, names: Collection[str]) -> None:
    """Raises UserError unless the first argument of a command is one of its subcommands."""
    if name not in names:
        expected, got = ", ".join(names), name or "none"
        raise UserError(
            f"simclr-tf {command}: expected one of {expected}, got {got}. Fix: simclr-tf "
            f"{command} --help describes them"
        )


def help_text(command: str, document: str | None, values: flags.FlagValues, groups: Groups) -> str:
    """Returns a command's help: its description, then its flags by group."""
    lines = [f"simclr-tf {command}", "", (document or "").strip(), ""]
    for heading, names in groups.items():
        lines += [f"{heading}:"]
        for name in names:
            flag = values[name]
            default = "" if flag.default in (None, "") else f" (default {flag.default})"
            lines += _help_lines(name, f"{flag.help}{default}")
        lines.append("")
    lines += _help_lines("flagfile=FILE", "Read flags from a file; later flags override it.")
    lines += _help_lines("verbose", "Show TensorFlow's log.")
    return "\n".join(lines)


def _help_lines(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, width=98, initial_indent=f"  --{name}  ".ljust(32), subsequent_indent=" " * 32
    )
