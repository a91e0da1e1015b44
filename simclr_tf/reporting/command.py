"""The command that makes a run again."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from simclr_tf.config import PretrainConfig
from simclr_tf.options import option_fields


def command_of(config: PretrainConfig, model_dir: Path) -> str:
    """Return `simclr-tf …`, in lines, which trains what a config says.

    Of `pretrain` it names what differs from the defaults. Of the other commands, whose defaults are
    another run's, it names all of these sections.

    Args:
        config: as config.json has it.
        model_dir: where the run made anew is to be written.
    """
    lines = [f"simclr-tf {config.task}"]
    for field in dataclasses.fields(config):
        section = getattr(config, field.name)
        given = [_flag(o.name, getattr(section, o.name)) for o in _named(config, field.name)]
        if given:
            lines.append(" ".join(given))
    lines.append(f"--model_dir={shlex.quote(str(model_dir))}")
    return " \\\n    ".join(lines)


# Those whose defaults in `finetune` and `distill` are another run's, or not `pretrain`'s.
_OF_OTHERS = ("data", "augmentation", "encoder", "optimization")


def _named(config: PretrainConfig, name: str) -> list[dataclasses.Field]:
    section = getattr(config, name)
    differing = [
        option for option in option_fields(section) if not _goes_without(config, name, option)
    ]
    if config.task == "pretrain":
        return differing
    if name in (
        "projection_head",
        "contrastive_loss",
    ):  # is the checkpoint's; without one it is a classifier's, which has none
        return []
    if name in _OF_OTHERS and not (name == "encoder" and section.preset):
        return option_fields(section)
    return differing


def _goes_without(config: PretrainConfig, name: str, option: dataclasses.Field) -> bool:
    """Whether an option that is not named comes out as it is, by its default or resolved."""
    value = getattr(getattr(config, name), option.name)
    if value == option.default:
        return True
    if option.name not in ("storage_size", "stem"):
        return False
    return config.override({name: {option.name: option.default}}).resolve() == config


def _flag(name: str, value: Any) -> str:
    return f"--{name}={shlex.quote(str(value))}"
