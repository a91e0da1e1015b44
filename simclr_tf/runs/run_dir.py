"""The run directory: what a run is (config.json), its checkpoints, and the model they hold.

Only what makes the model imports TensorFlow: a list of runs need not wait for it.
"""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from simclr_tf.utils.files import file_name, write_atomically
from simclr_tf.utils.hardware import machine

if TYPE_CHECKING:
    import tf_keras as keras

    from simclr_tf.models import Classifier, SimCLR

_OTHERWISE = "put back a copy, or start anew with another --model_dir"

# What may differ when a run is resumed: it changes what is seen or kept, not what is computed.
_FREE = {
    *("data.data_dir", "data.skip_unreadable"),
    *("monitoring.log_every", "monitoring.knn_every_epochs", "monitoring.probe_dataset"),
    *(
        "monitoring.profile",
        "monitoring.pictures_every_epochs",
        "monitoring.eval_every_epochs",
        "checkpoints.checkpoint_epochs",
        "data.eval_split",
    ),
    *("checkpoints.checkpoint_steps", "checkpoints.keep_checkpoint_max"),
    *("checkpoints.keep_hub_module_max", "checkpoints.checkpoint"),
    "encoder.backbone",  # what is resumed keeps its own
    # Not where the teacher is, but who it is.
    *("distillation.teacher", "distillation.teacher_weights"),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory (`--model_dir`)."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def state_file(self) -> Path:
        return self.path / "state.json"

    @property
    def lock_file(self) -> Path:
        """Locked by the process that trains."""
        return self.path / ".lock"

    @property
    def evaluations_file(self) -> Path:
        return self.path / "evaluations.json"

    @property
    def labelled_file(self) -> Path:
        return self.path / "labelled.csv"

    @property
    def features_dir(self) -> Path:
        return self.path / "features"

    @property
    def classifier_file(self) -> Path:
        return self.path / "classifier.npz"

    def supervised_dir(self, train_split: str) -> Path:
        """Where the supervised baseline lies that learned from this split."""
        return self.path / "supervised" / file_name(train_split)

    @property
    def tensorboard_dir(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoint_dir(self) -> Path:
        return self.path / "checkpoints"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def export_dir(self) -> Path:
        return self.path / "export"

    def latest_checkpoint(self) -> str | None:
        """Returns the checkpoint that the file `checkpoint` names, None where there are none.

        Raises:
            UserError: if there are checkpoints, but that file is missing or names another.
        """
        path = self._named_checkpoint()
        others = [file.stem for file in self.checkpoint_dir.glob("step-*.index")]
        others.sort(key=lambda name: int(name.removeprefix("step-")))
        if path is None and others:
            raise UserError(
                f"{self.checkpoint_dir}/checkpoint names no checkpoint that is there; to go on "
                f'from {" or ".join(others)}, write into it: model_checkpoint_path: "{others[-1]}"'
            )
        return path

    def _named_checkpoint(self) -> str | None:
        # TensorFlow's own state file, which is text.
        state = self.checkpoint_dir / "checkpoint"
        text = state.read_text(encoding="utf-8", errors="replace") if state.is_file() else ""
        found = re.search(r'^model_checkpoint_path:\s*"([^"]+)"', text, re.MULTILINE)
        path = str(self.checkpoint_dir / found[1]) if found else ""
        return path if found and Path(f"{path}.index").exists() else None

    def latest_step(self) -> int:
        """Returns the step of the checkpoint that a run would go on from, 0 without one."""
        path = self.latest_checkpoint()
        return int(path.rpartition("-")[2]) if path else 0

    def checkpoint(self, step: int | None = None) -> str:
        """Returns the checkpoint of a step, or the newest one.

        Raises:
            UserError: if there is none, or as `latest_checkpoint`.
        """
        path = self.latest_checkpoint()
        if path is not None and step is not None:
            path = str(self.checkpoint_dir / f"step-{step}")
            if not Path(f"{path}.index").exists():
                steps = sorted(
                    int(file.stem.removeprefix("step-"))
                    for file in self.checkpoint_dir.glob("step-*.index")
                )
                raise UserError(
                    f"--step={step}: {self.checkpoint_dir} holds the steps "
                    f"{', '.join(map(str, steps))}"
                )
        if path is None:
            raise UserError(
                f"{self.path} holds no checkpoint yet: train it first (simclr-tf pretrain)"
            )
        return path

    def check_place(self, flag: str = "--model_dir") -> None:
        """Raises UserError, naming the flag, if the directory could not be made or written to."""
        if ":/" in str(self.path):  # a Path has made one slash of two
            raise UserError(
                f"{flag}={str(self.path).replace(':/', '://')}: must be a directory of a file "
                "system; mount the bucket, or copy the run there afterwards"
            )
        there = next(p for p in (self.path.absolute(), *self.path.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise UserError(
                f"{flag}={self.path}: {there} is no directory that can be written to; "
                "name another place"
            )

    def write(self, config: PretrainConfig, plan: TrainingPlan) -> None:
        document: dict[str, Any] = {"simclr_tf": __version__, "task": config.task}
        document |= {"config": to_json(config), "plan": to_json(plan)}
        document["machine"] = dataclasses.asdict(machine())
        write_atomically(self.config_file, json.dumps(document, indent=2) + "\n")

    def read(self) -> tuple[PretrainConfig, TrainingPlan]:
        """Returns what the run is.

        Raises:
            UserError: if this is no run directory, or its config.json is damaged.
        """
        try:
            document = json.loads(self.config_file.read_text(encoding="utf-8"))
            kind, config, plan = CONFIGS[document["task"]], document["config"], document["plan"]
        except OSError as error:
            raise UserError(
                f"{self.path} holds no run (config.json: {error.strerror}): name the --model_dir "
                "of a pretrain"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.config_file} is damaged: {error}; {_OTHERWISE}") from None
        try:
            return from_json(kind, config), from_json(TrainingPlan, plan)
        except UserError as error:
            raise UserError(
                f"{self.config_file} does not fit this version: {error}; {_OTHERWISE}"
            ) from None

    def check_same(self, config: PretrainConfig, plan: TrainingPlan) -> None:
        """Refuses to resume this run as something else.

        Raises:
            UserError: naming every setting that differs; or its weights were imported.
        """
        before = self.read()
        if before[1].is_imported:
            raise UserError(
                f"{self.path} holds imported weights, which have no training to go on with: name "
                f"another --model_dir, and --checkpoint={self.path} to start from them"
            )
        if differing := self.differences(config, plan):
            raise UserError(
                f"{self.path} holds a run with other settings: {', '.join(differing)}; restore "
                "them, or start anew with another --model_dir (and --checkpoint to keep weights)"
            )

    def differences(self, config: PretrainConfig, plan: TrainingPlan) -> list[str]:
        """Returns, in words, the settings in which this run differs from another one."""
        old, new = settings_of(*self.read()), settings_of(config, plan)
        return [
            f"{name} (was {old[name]}, now {new[name]})"
            for name in old
            if name in new and old[name] != new[name]
        ]


def load(model_dir: str | Path, step: int | None = None) -> "SimCLR | Classifier":
    """Returns the model of a run with the weights of a checkpoint.

    Args:
        model_dir: the run directory.
        step: of the checkpoint; None: the newest.

    Returns:
        The SimCLR model (of a fine-tuned run the Classifier), compiled;
        `model.encoder(images, training=False)` gives the features of images [N, S, S, 3] in [0, 1];
        `int(model.step)` is the step of the weights.

    Raises:
        UserError: if there is no run or no checkpoint, or they do not fit each other.
    """
    from simclr_tf.models.build import build_model

    run = Run(Path(model_dir))
    model = build_model(*run.read())
    restore(model, run, step)
    return model


def restore(model: "keras.Model", run: Run, step: int | None = None) -> None:
    """Restores every variable of a compiled model, and nothing less, from a run's checkpoint.

    Raises:
        UserError: if there is no checkpoint, or it does not fit.
    """
    import tensorflow as tf

    path = run.checkpoint(step)
    try:
        tf.train.Checkpoint(model=model).restore(path).assert_consumed()
    except (AssertionError, IndexError, ValueError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{path} does not hold this model: {reason}; to go back to an older checkpoint, name "
            f"it in {run.checkpoint_dir}/checkpoint"
        ) from None


def settings_of(config: PretrainConfig, plan: TrainingPlan) -> dict[str, Any]:
    """Returns what makes a run the run that it is, by the names that a user knows."""
    settings = {
        f"--{name}": value
        for section, values in to_json(config).items()
        for name, value in values.items()
        if f"{section}.{name}" not in _FREE
    }
    settings |= {
        "the command": config.task,
        "the number of images": plan.num_examples,
        "the number of classes": plan.num_classes,
    }
    if isinstance(config, DistillConfig):
        settings["the teacher's weights"] = config.distillation.teacher_weights
    if not config.encoder.global_bn or config.optimization.microbatch_size:
        # Only then does it change what is computed: whose statistics batch norm takes.
        settings["the number of replicas"] = plan.num_replicas
    return settings
