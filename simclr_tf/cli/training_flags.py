"""Flags of pretrain, finetune and distill beyond the options of their functions."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from simclr_tf.api.run import Run
from simclr_tf.api.signature import OptionFunction
from simclr_tf.cli.flags import Groups, define_options, explicit_options, warn_ignored_flags
from simclr_tf.errors import UserError

# Flags of the reference implementation's commands that nothing here depends on.
IGNORED_REFERENCE_FLAGS = (
    *("train_summary_steps", "variable_schema", "eval_name", "master", "eval_steps"),
)
_TRAIN_MODES = ["pretrain", "finetune", "distill"]


def define_training(
    values: flags.FlagValues, function: OptionFunction[Any, Run], ignored: Sequence[str]
) -> Groups:
    """Defines the flags of a training command; `ignored` ones are accepted without effect."""
    groups = define_options(values, function.option_sets)
    name = function.__name__
    flags.DEFINE_enum("train_mode", name, _TRAIN_MODES, f"Must be {name}.", flag_values=values)
    for flag in ignored:
        flags.DEFINE_string(flag, None, "Accepted, but has no effect.", flag_values=values)
    groups["Other flags of the reference implementation"] = ["train_mode", *ignored]
    return groups


def run_training(
    values: flags.FlagValues, function: OptionFunction[Any, Run], ignored: Sequence[str]
) -> Run:
    """Calls a training function with the options of the command line."""
    if values.train_mode != function.__name__:
        mode = values.train_mode
        raise UserError(
            f"--train_mode={mode}: expected {function.__name__}. Fix: run simclr-tf {mode}"
        )
    warn_ignored_flags(values, ignored)
    return function(**explicit_options(values, function.option_sets))
