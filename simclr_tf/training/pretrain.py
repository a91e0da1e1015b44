"""Pretraining: images without labels, a contrastive loss."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import tf_keras as keras

from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.data import ImageSource, open_source
from simclr_tf.errors import UserError
from simclr_tf.evaluation.splits import Splits
from simclr_tf.models import SimCLR
from simclr_tf.runs.load import load_model
from simclr_tf.training.callbacks import Every
from simclr_tf.training.distribution import Replicas
from simclr_tf.training.loop import Prepared, Say, train
from simclr_tf.training.online_eval import Evaluator, probe, validation
from simclr_tf.training.schedule import epochs_in_steps


def pretrain(
    config: PretrainConfig,
    model_dir: str | Path,
    replicas: Replicas | None = None,
    steps_per_execution: int = 1,
    say: Callable[[str], None] = print,
) -> SimCLR:
    """Trains a run to its end, or from where it was left.

    Args:
        config: what to train.
        model_dir: the run directory; the same for all workers, on a file system that they share.
        replicas: what `simclr_tf.training.distribution` made to train on; None: one device.
        steps_per_execution: steps per call from the host.
        say: takes the lines that tell the user what is going on.

    Returns:
        The trained model.

    Raises:
        UserError: for whatever the user can mend, before training where it can be known then.
        SystemExit: 143 after SIGTERM, 130 after SIGINT, with a checkpoint of the last step.
    """
    return train(config, model_dir, replicas, steps_per_execution, say, _prepare)


def _prepare(config: PretrainConfig, say: Say) -> Prepared:
    source, held_out = open_train(config)
    if config.contrastive_loss.loss == "supcon":
        found = _instead_of_a_label(source)
        if not found and (source.labels() < 0).all():
            found = "no image with a label"
        if found:
            raise UserError(
                f"--loss=supcon: {source.name} has {found}, and the loss needs one for each image; "
                "name labelled images (in folder:PATH, one subfolder per class) or another --loss"
            )
    if source.multi_label and config.contrastive_loss.lineareval_while_pretraining:
        say(
            f"note: the images of {source.name} have several labels each, so that "
            "--lineareval_while_pretraining trains no linear head"
        )
    return Prepared(
        config,
        source,
        evaluators=lambda plan: _evaluators(config, plan, held_out),
        fill=lambda model: _fill(model, config.checkpoints.checkpoint),
    )


def open_train(config: PretrainConfig) -> tuple[ImageSource, ImageSource | None]:
    """Opens the training images: (those to learn from, those held out for validation)."""
    data = config.data
    source = open_source(
        data.dataset,
        data.train_split,
        data_dir=data.data_dir or None,
        storage_size=data.storage_size,
        skip_unreadable=data.skip_unreadable,
        cache=data.cache_dataset,
    )
    if not data.validation_fraction:
        return source, None
    return source.holdout(data.validation_fraction, config.optimization.seed)


def _evaluators(
    config: PretrainConfig, plan: TrainingPlan, held_out: ImageSource | None
) -> list[Every]:
    watching, settings = config.monitoring, config.optimization
    evaluators = []
    if watching.knn_every_epochs:
        every = epochs_in_steps(config, plan, watching.knn_every_epochs)
        evaluators.append(Every(every, _probe(config)))
    if held_out is not None:
        every = epochs_in_steps(config, plan, watching.eval_every_epochs)
        evaluators.append(Every(every, validation(held_out, settings.train_batch_size)))
    return evaluators


def _probe(config: PretrainConfig) -> Evaluator:
    data = config.data
    splits = Splits.from_config(data)
    if config.monitoring.probe_dataset:
        splits = dataclasses.replace(
            splits, dataset=config.monitoring.probe_dataset, train_split="train"
        )
    train, test = splits.open()
    for source in (train, test):
        if found := _instead_of_a_label(source):
            raise UserError(
                f"--knn_every_epochs: {source.name} has {found}, and probes need one for each "
                "image; name such a --probe_dataset or set --knn_every_epochs=0"
            )
    return probe(train, test, config.augmentation.image_size)


def _instead_of_a_label(source: ImageSource) -> str:
    """What the images have in place of one label each; empty where they have that."""
    if source.multi_label:
        return "several labels per image"
    return "" if source.class_names else "no labels"


def _fill(model: keras.Model, checkpoint: str) -> None:
    other = load_model(checkpoint)
    for part in ("encoder", "projection_head"):
        copy_weights(checkpoint, part, getattr(other, part, None), getattr(model, part))


def copy_weights(
    checkpoint: str, part: str, source: keras.Model | None, target: keras.Model
) -> None:
    """Copies the weights of the part of that name of the run `checkpoint`.

    Raises:
        UserError: that run has no such part, or one of other shapes.
    """
    shapes = [[tuple(v.shape) for v in m.variables] if m else None for m in (source, target)]
    if source is None or shapes[0] != shapes[1]:
        raise UserError(
            f"--checkpoint={checkpoint}: its {part.replace('_', ' ')} has other shapes; use the "
            "architecture flags that its config.json shows"
        )
    target.set_weights(source.get_weights())
