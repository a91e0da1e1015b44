"""What the commands that train have in common: the run, its sections, the reference's flags."""

from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

from simclr_tf import config
from simclr_tf.cli.flags import define_section
from simclr_tf.errors import UserError

SECTIONS = {
    "data": config.Data,
    "views": config.Views,
    "encoder": config.Encoder,
    "head": config.Head,
    "optimization": config.Optimization,
    "watching": config.Watching,
    "checkpoints": config.Checkpoints,
}
# Of the reference's commands; nothing here depends on them.
NO_EFFECT = ("train_summary_steps", "variable_schema", "eval_name", "master", "eval_steps")
_COMMANDS = ["pretrain", "finetune"]

# (heading, dataclass, other defaults than its own)
Section = tuple[str, type, dict[str, Any]]


def heading(section: type) -> str:
    """What stands above a section's flags in the help."""
    return (section.__doc__ or "").strip()


def define_training(
    values: flags.FlagValues,
    command: str,
    mode: str,
    sections: Iterable[Section],
    without_effect: Sequence[str],
) -> dict[str, list[str]]:
    """Defines a training command's flags.

    Args:
        values: gets them.
        command: "pretrain" or "finetune".
        mode: the default of --mode.
        sections: whose options are flags.
        without_effect: flags that are accepted for the reference's sake.

    Returns:
        The flags by group.
    """
    flags.DEFINE_string(
        "model_dir", None, "The run directory; made if it does not exist.", flag_values=values
    )
    flags.DEFINE_enum(
        "mode",
        mode,
        ["train", "eval", "train_then_eval"],
        "train_then_eval also evaluates and exports at the end; eval only does that.",
        flag_values=values,
    )
    groups = {"Run": ["model_dir", "mode"]}
    for name, section, defaults in sections:
        groups[name] = define_section(values, section, **defaults)
    groups[heading(config.Devices)] = define_section(values, config.Devices)
    flags.DEFINE_enum("train_mode", command, _COMMANDS, f"Must be {command}.", flag_values=values)
    flags.DEFINE_integer(
        "eval_batch_size", 256, "Images per call in evaluation.", 1, flag_values=values
    )
    for name in without_effect:
        flags.DEFINE_string(name, None, "Accepted; without effect here.", flag_values=values)
    groups["The reference's other flags"] = ["train_mode", "eval_batch_size", *without_effect]
    return groups


def check_run(values: flags.FlagValues, command: str) -> None:
    """Raises UserError if this is the wrong command, or does not say where to write."""
    if values.train_mode != command:
        wanted = values.train_mode
        raise UserError(f"--train_mode={wanted} is another command: simclr-tf {wanted}")
    if not values.model_dir:
        raise UserError("--model_dir is missing: the directory that the run is written to")
