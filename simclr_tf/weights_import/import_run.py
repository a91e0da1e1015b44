"""A run directory made of the authors' weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from simclr_tf.config import Augmentation, ContrastiveLoss, Data, PretrainConfig, TrainingPlan
from simclr_tf.errors import UserError
from simclr_tf.models import SimCLR
from simclr_tf.models.build import build_model
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.utils.files import atomic_path, check_output_path
from simclr_tf.weights_import.detect import Architecture, Recognised, recognise
from simclr_tf.weights_import.weights_file import Stored, open_stored

_DATASET = "imagenet2012"


def import_run(
    checkpoint: str | Path,
    model_dir: str | Path,
    image_size: int | None = None,
    say: Callable[[str], None] = print,
) -> SimCLR:
    """Makes a run directory of a model of the authors' TF2 code, complete or not at all.

    Args:
        checkpoint: a SavedModel's directory, or a TensorFlow checkpoint's prefix or directory.
        model_dir: the run directory; it must not exist, or be empty.
        image_size: side in pixels of the images that it is for; None: 224, or 32 with the CIFAR
            stem, which the authors' code takes up to there.
        say: takes the lines that tell the user what was found.

    Returns:
        The model, at step 0.

    Raises:
        UserError: the file is no such model, `model_dir` is taken, or a value is out of range.
    """
    run = RunDir(Path(model_dir))
    check_output_path(run.path, "model_dir")
    if run.path.exists() and any(run.path.iterdir()):
        what = "holds a run already" if run.config_file.exists() else "is not empty"
        raise UserError(f"--model_dir={run.path} {what}: name a new directory")
    if image_size is not None:
        Augmentation(image_size=image_size)
    with _naming(checkpoint):
        stored = open_stored(checkpoint)
        found = recognise(stored.shapes, stored.named_by)
    say(f"{checkpoint}: a {stored.kind} of a {found.architecture.describe()}")
    config, plan = _config(found.architecture, image_size), _plan(found.architecture)
    model = build_model(config, plan)
    with _naming(checkpoint):
        parameters = _fill(model, found, stored)
    _write(run, config, plan, model)
    _tell(run, config, found, stored, parameters, say)
    return model


@contextlib.contextmanager
def _naming(checkpoint: str | Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"--checkpoint={checkpoint}: {error}") from None


def _config(architecture: Architecture, image_size: int | None) -> PretrainConfig:
    size = image_size
    if size is None:
        size = 32 if architecture.encoder.stem == "cifar" else Augmentation().image_size
    loss = ContrastiveLoss(lineareval_while_pretraining=architecture.num_classes is not None)
    return PretrainConfig(
        Data(dataset=_DATASET),
        Augmentation(image_size=size),
        architecture.encoder,
        architecture.head,
        loss,
    ).resolve()


def _plan(architecture: Architecture) -> TrainingPlan:
    """Of no step and no images: the file does not say what it was trained on."""
    return TrainingPlan(
        num_examples=0,
        num_classes=architecture.num_classes,
        total_steps=0,
        warmup_steps=0,
        steps_per_epoch=0.0,
        peak_learning_rate=0.0,
    )


def _fill(model: SimCLR, found: Recognised, stored: Stored) -> int:
    """Gives every variable of the model its value; returns how many numbers those are."""
    ours = {}
    for part in ("encoder", "projection_head", "linear_head"):
        for variable in getattr(getattr(model, part), "variables", ()):
            name = variable.name.removesuffix(":0")
            # A layer by itself, as the linear head is, does not put its own name before them.
            ours[part, name if "/" in name else f"{part}/{name}"] = variable
    count = 0
    for variable, name in found.names:
        value = stored.read(name)
        ours.pop((variable.part, variable.ours)).assign(value)
        count += value.size
    assert not ours, f"without a value: {list(ours)}"
    return count


def _write(run: RunDir, config: PretrainConfig, plan: TrainingPlan, model: SimCLR) -> None:
    try:
        with atomic_path(run.path.resolve()) as place:
            scratch = RunDir(place)
            scratch.write_config(config, plan)
            manager = tf.train.CheckpointManager(
                tf.train.Checkpoint(model=model),
                str(scratch.checkpoint_dir),
                max_to_keep=1,
                checkpoint_name="step",
            )
            manager.save(checkpoint_number=int(model.step.numpy()))
    except (OSError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"--model_dir={run.path} cannot be written: {reason}; make room, or name another place"
        ) from None


def _tell(
    run: RunDir,
    config: PretrainConfig,
    found: Recognised,
    stored: Stored,
    parameters: int,
    say: Callable[[str], None],
) -> None:
    say(f"imported {len(found.names)} variables, {parameters:,} numbers, all that the model has")
    for what, count in stored.skipped.items():
        say(f"skipped by name: {count} values of {what}")
    if found.architecture.num_classes is not None:
        say(
            f"its linear head of {found.architecture.num_classes} classes is kept as linear_head, "
            "on the encoder's features (where the authors' ft_proj_selector was above 0 it sat on "
            "the projection head instead, which no shape tells)"
        )
    say(
        f"{run.path} is a run at step 0 for images of {config.augmentation.image_size} pixels; the "
        f"file does not say what it was trained on: {_DATASET} is taken, evaluate and finetune "
        "take another --dataset\n"
        f"next: simclr-tf export --model_dir={run.path}"
    )
