"""Conversion of the authors' weights to a run directory."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.errors import UserError
from simclr_tf.models import SimCLR
from simclr_tf.models.build import build_model
from simclr_tf.option_groups import Augmentation, ContrastiveLoss, Data
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.utils.files import atomic_path, check_output_path, write_errors_name
from simclr_tf.utils.paths import shell_join
from simclr_tf.weights_import.detect import DetectedArchitecture, detect_architecture
from simclr_tf.weights_import.options import ImportOptions
from simclr_tf.weights_import.variables import Architecture
from simclr_tf.weights_import.weights_file import WeightsFile, open_weights_file

logger = logging.getLogger(__name__)

_DATASET = "imagenet2012"


def import_run(
    checkpoint: str | Path, model_dir: str | Path, options: ImportOptions | None = None
) -> Path:
    """Converts a model of the authors' TF2 code to a run directory, complete or not at all.

    Args:
        checkpoint: SavedModel directory, or prefix or directory of a TensorFlow checkpoint.
        model_dir: run directory to create; it must be empty or not exist.
        options: image size of the run.

    Returns:
        The run directory, whose model is at step 0.

    Raises:
        UserError: the file contains no such model, or `model_dir` is not empty or cannot be
            written.

    Example:
    >>> from simclr_tf.weights_import import import_run
    >>> import_run("pretrained/saved_model", "runs/imported")  # doctest: +SKIP
    """
    options = options or ImportOptions()
    run = RunDir(model_dir)
    check_output_path(run.path, "model_dir", has_checkpoints=True)
    if run.path.exists() and any(run.path.iterdir()):
        problem = "holds a run already" if run.config_file.exists() else "is not empty"
        raise UserError(f"--model_dir={run.path} {problem}. Fix: choose a new directory")
    with _prefix_errors(checkpoint):
        file = open_weights_file(checkpoint)
        detected = detect_architecture(file.shapes, file.name_kind)
    architecture = detected.architecture
    logger.info(f"{checkpoint}: a {file.kind} of a {architecture.describe()}")
    config = _make_config(architecture, options.image_size)
    # Without steps and images, because the file does not contain them.
    plan = TrainingPlan(0, architecture.num_classes, 0, 0, 0.0, 0.0)
    model = build_model(config, plan)
    with _prefix_errors(checkpoint):
        num_parameters = _assign_weights(model, detected, file)
    _write_run(run, config, plan, model)
    logger.info(
        f"imported {len(detected.names)} variables with {num_parameters:,} parameters: the "
        "complete model"
    )
    _log_summary(run, config.augmentation.image_size, detected, file)
    return run.path


@contextlib.contextmanager
def _prefix_errors(checkpoint: str | Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"--checkpoint={checkpoint}: {error}") from None


def _make_config(architecture: Architecture, image_size: int | None) -> PretrainConfig:
    default = 32 if architecture.encoder.stem == "cifar" else Augmentation().image_size
    loss = ContrastiveLoss(lineareval_while_pretraining=architecture.num_classes is not None)
    return PretrainConfig(
        Data(dataset=_DATASET),
        Augmentation(image_size=image_size or default),
        architecture.encoder,
        architecture.head,
        loss,
    ).resolve()


def _assign_weights(model: SimCLR, detected: DetectedArchitecture, file: WeightsFile) -> int:
    """Assigns every variable of the model; returns the number of parameters."""
    variables = {}
    for part in ("encoder", "projection_head", "linear_head"):
        for variable in getattr(getattr(model, part), "variables", ()):
            name = variable.name.removesuffix(":0")
            # Variables of a single layer, such as the linear head, lack the name of the layer.
            variables[part, name if "/" in name else f"{part}/{name}"] = variable
    num_parameters = 0
    for reference, name in detected.names:
        value = file.read(name)
        variables.pop((reference.part, reference.keras_name)).assign(value)
        num_parameters += value.size
    assert not variables, f"not assigned: {list(variables)}"
    return num_parameters


def _write_run(run: RunDir, config: PretrainConfig, plan: TrainingPlan, model: SimCLR) -> None:
    path = run.path.resolve()
    with atomic_path(path) as temporary, write_errors_name(path, tf.errors.OpError):
        new_run = RunDir(temporary)
        new_run.write_config(config, plan)
        manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=model),
            str(new_run.checkpoint_dir),
            max_to_keep=1,
            checkpoint_name="step",
        )
        manager.save(checkpoint_number=int(model.step.numpy()))


def _log_summary(
    run: RunDir, image_size: int, detected: DetectedArchitecture, file: WeightsFile
) -> None:
    for kind, count in file.skipped.items():
        logger.info(f"skipped by name: {count} values of {kind}")
    if detected.architecture.num_classes is not None:
        logger.info(
            f"the linear head of {detected.architecture.num_classes} classes becomes linear_head, "
            "on the encoder's features (with the authors' ft_proj_selector above 0 it was on the "
            "projection head instead, which variable shapes do not show)"
        )
    logger.info(
        f"{run.path} is a run at step 0 for images of {image_size} pixels; "
        f"the file does not name its training data: {_DATASET} is assumed, set another --dataset "
        "in evaluate and finetune\n"
        f"next: {shell_join(['simclr-tf', 'export', f'--model_dir={run.path}'])}"
    )
