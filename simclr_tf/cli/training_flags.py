"""What the commands that train have in common: the run, its sections, the reference's flags."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

from simclr_tf import config
from simclr_tf.cli.flags import define_section, read_section
from simclr_tf.errors import UserError
from simclr_tf.options import option_fields

SECTIONS = {
    "data": config.Data,
    "augmentation": config.Augmentation,
    "encoder": config.Encoder,
    "projection_head": config.ProjectionHead,
    "contrastive_loss": config.ContrastiveLoss,
    "optimization": config.Optimization,
    "monitoring": config.Monitoring,
    "checkpoints": config.Checkpoints,
}
# Of the reference's commands; nothing here depends on them.
NO_EFFECT = ("train_summary_steps", "variable_schema", "eval_name", "master", "eval_steps")
# What a run that starts from another one has of it where nothing else is said.
OF_THE_RUN = ("data", "augmentation", "encoder", "projection_head", "contrastive_loss")
# The augmentation of fine-tuning [v1 B.5] and distillation [v2 §3]: pretraining's, switched off.
CROP_AND_FLIP: dict[str, Any] = {
    "color_jitter_strength": 0.0,
    "use_blur": False,
    "use_grayscale": False,
    "policy": "simclr",
    "transformations": "",
}
# What changes how a given architecture is trained, not what it is.
_MAY_DIFFER = ("global_bn", "batch_norm_decay", "preset_weights")
# Of the data, what --mode=eval may name anew.
_SEEN_AT_THE_END = ("dataset", "data_dir", "eval_split", "skip_unreadable")
_COMMANDS = ["pretrain", "finetune", "distill"]

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
        command: "pretrain", "finetune" or "distill".
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
    groups[heading(config.Distribution)] = define_section(values, config.Distribution)
    flags.DEFINE_enum("train_mode", command, _COMMANDS, f"Must be {command}.", flag_values=values)
    flags.DEFINE_integer(
        "eval_batch_size", 256, "Images per call in evaluation.", 1, flag_values=values
    )
    for name in without_effect:
        flags.DEFINE_string(name, None, "Accepted; without effect here.", flag_values=values)
    groups["The reference's other flags"] = ["train_mode", "eval_batch_size", *without_effect]
    return groups


def sections_with_a_run(
    names: Sequence[str], whose: str, optimization: dict[str, Any]
) -> list[Section]:
    """The sections of a command whose `names` are another run's unless flags say otherwise."""
    sections: list[Section] = []
    for name, section in SECTIONS.items():
        title, defaults = heading(section), {}
        if name in names:
            title += f" ({whose} unless given)"
            defaults = dict.fromkeys((field.name for field in option_fields(section)), None)
            defaults |= CROP_AND_FLIP if name == "augmentation" else {}
        elif name == "optimization":
            defaults = optimization
        sections.append((title, section, defaults))
    return sections


def sections_of_run(
    values: flags.FlagValues, of_run: config.PretrainConfig, names: Iterable[str]
) -> dict[str, Any]:
    """Those sections of a run, with crop and flip alone, and what flags say in their place.

    Another dataset comes with its usual splits.
    """
    from simclr_tf.evaluation.transfer_datasets import lookup_transfer_dataset

    before = {name: getattr(of_run, name) for name in names}
    dataset = values.dataset
    if dataset and dataset != before["data"].dataset:  # the run's splits say nothing of it
        usual = lookup_transfer_dataset(dataset)
        before["data"] = dataclasses.replace(
            before["data"],
            train_split=usual.train_split or "train",
            eval_split=usual.test_split or "test",
            validation_fraction=0.0,
        )
    before["augmentation"] = dataclasses.replace(before["augmentation"], **CROP_AND_FLIP)
    size = values.image_size
    if size and size != before["augmentation"].image_size:  # stored as this size needs it
        before["data"] = dataclasses.replace(before["data"], storage_size=0)
    return {name: read_section(values, SECTIONS[name], before[name]) for name in names}


def check_architecture(before: Any, now: Any, checkpoint: str, free: Sequence[str] = ()) -> None:
    """Raises UserError if a section contradicts that of the run whose weights are taken."""
    old, new = vars(before), vars(now)
    for flag in old:
        if old[flag] != new[flag] and flag not in (*_MAY_DIFFER, *free) and new[flag] != "auto":
            raise UserError(
                f"--{flag}={new[flag]}: the encoder of --checkpoint={checkpoint} has {old[flag]}; "
                "leave the flag out"
            )


def check_no_microbatch(run: config.PretrainConfig) -> None:
    """Raises UserError if a run without a contrastive loss is to take its batch in pieces."""
    if run.optimization.microbatch_size:
        raise UserError(
            "--microbatch_size is of the contrastive loss, where the batch matters; here, lower "
            "--train_batch_size"
        )


def seen_at_the_end(values: flags.FlagValues) -> dict[str, Any]:
    """What flags say about the images that a classifier is judged on."""
    return {name: values[name].value for name in _SEEN_AT_THE_END if values[name].present}


def check_run(values: flags.FlagValues, command: str) -> None:
    """Raises UserError if this is the wrong command, or does not say where to write."""
    if values.train_mode != command:
        wanted = values.train_mode
        raise UserError(f"--train_mode={wanted} is another command: simclr-tf {wanted}")
    if not values.model_dir:
        raise UserError("--model_dir is missing: the directory that the run is written to")
