"""Paths of a run directory, its config.json and its checkpoints; imports no TensorFlow."""

import contextlib
import contextvars
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from simclr_tf import __version__
from simclr_tf.config import (
    CONFIGS,
    DistillConfig,
    PretrainConfig,
    TrainingPlan,
    from_json,
    to_json,
)
from simclr_tf.errors import UserError
from simclr_tf.options import FOLDER_PREFIX
from simclr_tf.utils.files import atomic_write, check_checkpoint_path, slugify
from simclr_tf.utils.hardware import detect_hardware
from simclr_tf.utils.paths import shell_join, user_path

_REPAIR_HINT = "Fix: restore a copy, or choose another --model_dir"

# Settings that may change when a run is resumed, because they do not affect the trained weights.
_MUTABLE_ON_RESUME = {
    *("data.data_dir", "data.skip_unreadable", "data.max_pixels"),
    *("monitoring.log_every", "monitoring.knn_every_epochs", "monitoring.probe_dataset"),
    *("monitoring.probe_train_split", "monitoring.probe_eval_split"),
    *("monitoring.profile", "monitoring.pictures_every_epochs", "monitoring.eval_every_epochs"),
    *("checkpoints.checkpoint_epochs", "checkpoints.checkpoint_steps", "data.eval_split"),
    *("checkpoints.keep_checkpoint_max", "checkpoints.keep_hub_module_max"),
    *("checkpoints.checkpoint", "augmentation.eval_image_size"),
    "encoder.backbone",  # the resumed run has stored its backbone
    # The teacher is identified by its weights, not by its path.
    *("distillation.teacher", "distillation.teacher_weights"),
}


# The command that is stored in config.json.
_command: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("command", default=())


@contextlib.contextmanager
def recorded_command(command: Sequence[str]) -> Iterator[None]:
    """Stores a command in the config.json of the runs that the block starts."""
    token = _command.set(tuple(command))
    try:
        yield
    finally:
        _command.reset(token)


class RunDir:
    """A run directory (`--model_dir`).

    >>> from simclr_tf.runs.run_dir import RunDir
    >>> RunDir("runs/photos").checkpoint_dir.as_posix()
    'runs/photos/checkpoints'
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = path = user_path(path)
        self.config_file = path / "config.json"
        self.metrics_file = path / "metrics.jsonl"
        self.state_file = path / "state.json"
        self.lock_file = path / ".lock"  # locked by the training process
        self.evaluations_file = path / "evaluations.json"
        self.labeled_images_file = path / "labelled.csv"
        self.image_list_file = path / "images.npz"  # of a folder
        self.classifier_file = path / "classifier.npz"
        self.report_file = path / "report.html"
        self.checkpoint_dir = path / "checkpoints"
        self.export_dir = path / "export"
        self.features_dir = path / "features"
        self.tensorboard_dir = path / "tensorboard"

    def supervised_dir(self, train_split: str) -> Path:
        """Run directory of the supervised baseline trained on a split."""
        return self.path / "supervised" / slugify(train_split)

    def latest_checkpoint(self) -> str | None:
        """Returns the checkpoint that the file `checkpoint` names, or None without checkpoints.

        Raises UserError if checkpoints exist, but that file is missing or names none of them.
        """
        # TensorFlow's own state file, which is text.
        state = self.checkpoint_dir / "checkpoint"
        text = state.read_text(encoding="utf-8", errors="replace") if state.is_file() else ""
        if found := re.search(r'^model_checkpoint_path:\s*"([^"]+)"', text, re.MULTILINE):
            path = str(self.checkpoint_dir / found[1])
            if Path(f"{path}.index").exists():
                return path
        if others := [f"step-{step}" for step in self._checkpoint_steps()]:
            raise UserError(
                f"{self.checkpoint_dir}/checkpoint names no existing checkpoint. Fix: to use "
                f'{" or ".join(others)}, write to it: model_checkpoint_path: "{others[-1]}"'
            )
        return None

    def _checkpoint_steps(self) -> list[int]:
        files = self.checkpoint_dir.glob("step-*.index")
        return sorted(int(file.stem.removeprefix("step-")) for file in files)

    def latest_step(self) -> int:
        """Returns the step from which a run would resume, 0 without a checkpoint."""
        path = self.latest_checkpoint()
        return int(path.rpartition("-")[2]) if path else 0

    def checkpoint(self, step: int | None = None) -> str:
        """Returns the checkpoint of a step, or the newest one."""
        check_checkpoint_path(self.path, "model_dir")
        path = self.latest_checkpoint()
        if path is not None and step is not None:
            path = str(self.checkpoint_dir / f"step-{step}")
            if not Path(f"{path}.index").exists():
                raise UserError(
                    f"--step={step}: expected one of the steps in {self.checkpoint_dir}: "
                    f"{', '.join(map(str, self._checkpoint_steps()))}. Fix: choose one of them"
                )
        if path is None:
            raise UserError(
                f"{self.path} holds no checkpoint yet. Fix: train it first (simclr-tf pretrain)"
            )
        return path

    def write_config(self, config: PretrainConfig, plan: TrainingPlan) -> None:
        document: dict[str, Any] = {"simclr_tf": __version__, "task": config.task}
        if _command.get():
            document["command"] = list(_command.get())
        document |= {"config": to_json(config), "plan": to_json(plan)}
        document["machine"] = dataclasses.asdict(detect_hardware())
        atomic_write(self.config_file, json.dumps(document, indent=2) + "\n")

    def read_config(self) -> tuple[PretrainConfig, TrainingPlan]:
        """Reads config.json; raises UserError if this is not a run, or the file is damaged."""
        try:
            document = json.loads(self.config_file.read_text(encoding="utf-8"))
            kind, config, plan = CONFIGS[document["task"]], document["config"], document["plan"]
        except OSError as error:
            raise UserError(
                f"{self.path} holds no run (config.json: {error.strerror}). "
                "Fix: choose the directory of a run"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.config_file} is damaged: {error}. {_REPAIR_HINT}") from None
        try:
            return from_json(kind, config), from_json(TrainingPlan, plan)
        except UserError as error:
            raise UserError(
                f"{self.config_file} does not fit this version: {error}. {_REPAIR_HINT}"
            ) from None

    def read_command(self) -> list[str]:
        """Returns the command that starts such a run, [] if config.json does not have it."""
        command = json.loads(self.config_file.read_text(encoding="utf-8")).get("command")
        return [str(argument) for argument in command] if isinstance(command, list) else []

    def check_resumable(self, config: PretrainConfig, plan: TrainingPlan) -> None:
        """Raises UserError if a training with these settings would not resume this run."""
        _, old_plan = self.read_config()
        if old_plan.is_imported:
            raise UserError(
                f"{self.path} holds imported weights, whose training cannot be resumed. "
                f"Fix: choose another --model_dir, with "
                f"{shell_join([f'--checkpoint={self.path}'])} to start from these weights"
            )
        if differing := self.diff_settings(config, plan):
            raise UserError(
                f"{self.path} holds a run with other settings: {', '.join(differing)}. "
                "Fix: restore them, or choose another --model_dir "
                "(with --checkpoint to keep the weights)"
            )

    def diff_settings(self, config: PretrainConfig, plan: TrainingPlan) -> list[str]:
        """Returns descriptions of the settings in which this run differs from another one."""
        old_config, old_plan = self.read_config()
        old, new = identity_settings(old_config, old_plan), identity_settings(config, plan)
        # Images of a folder are identified by their contents; `match_images` compares them.
        datasets = (old_config.data.dataset, config.data.dataset)
        if self.image_list_file.exists() and all(d.startswith(FOLDER_PREFIX) for d in datasets):
            del old["--dataset"]
        return [
            f"{name} (was {old[name]}, now {new[name]})"
            for name in old
            if name in new and old[name] != new[name]
        ]


def identity_settings(config: PretrainConfig, plan: TrainingPlan) -> dict[str, Any]:
    """Returns the settings that must not change when a run is resumed, by user-facing name."""
    settings = {
        f"--{name}": value
        for section, values in to_json(config).items()
        for name, value in values.items()
        if f"{section}.{name}" not in _MUTABLE_ON_RESUME
    }
    settings |= {
        "the command": config.task,
        "the number of images": plan.num_examples,
        "the number of classes": plan.num_classes,
    }
    if isinstance(config, DistillConfig):
        settings["the teacher's weights"] = config.distillation.teacher_weights
    if not config.encoder.global_bn or config.optimization.microbatch_size:
        # Otherwise the number of replicas does not affect batch norm statistics.
        settings["the number of replicas"] = plan.num_replicas
    return settings
