"""Distillation: a student that learns what a teacher answers, from images without labels."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tf_keras as keras

from simclr_tf.config import DistillConfig, PretrainConfig, TrainingPlan
from simclr_tf.data import ImageSource
from simclr_tf.data.label_subset import mask_labels, sample_labeled
from simclr_tf.errors import UserError
from simclr_tf.models import Student
from simclr_tf.models.teacher import Teacher, open_teacher
from simclr_tf.runs.load import load_model
from simclr_tf.training.callbacks import Every
from simclr_tf.training.distribution import Replicas, one_device
from simclr_tf.training.finetune import list_labelled
from simclr_tf.training.loop import Prepared, Say, train
from simclr_tf.training.online_eval import accuracy, agreement
from simclr_tf.training.pretrain import copy_weights, open_train
from simclr_tf.training.schedule import epochs_in_steps


def distill(
    config: DistillConfig,
    model_dir: str | Path,
    replicas: Replicas | None = None,
    steps_per_execution: int = 1,
    say: Callable[[str], None] = print,
) -> Student:
    """Trains a student to its end, or from where it was left [v2 §2].

    Arguments, result and errors are those of `pretrain`. The student's encoder starts from that of
    the run that `config.checkpoints.checkpoint` names, where one is named. Labels are looked at
    only with a `distill_alpha` below 1; those that are used are listed in the run's `labelled.csv`.
    """
    replicas = replicas or one_device()
    prepare = functools.partial(_prepare, replicas=replicas)
    return train(config, model_dir, replicas, steps_per_execution, say, prepare)


def _prepare(config: PretrainConfig, say: Say, replicas: Replicas) -> Prepared:
    assert isinstance(config, DistillConfig)
    settings, size = config.distillation, config.augmentation.image_size
    teacher = open_teacher(settings.teacher)
    if teacher.image_size != size:
        raise UserError(
            f"--image_size={size}: the teacher {settings.teacher} takes images of "
            f"{teacher.image_size} pixels; the student learns from the same"
        )
    source, held_out = open_train(config)
    say(
        f"the teacher {settings.teacher} answers with {len(teacher.class_names)} classes, at "
        f"temperature {settings.distill_temperature:g}"
    )
    config = config.override({"distillation": {"teacher_weights": teacher.identity[:16]}})

    def evaluators(plan: TrainingPlan) -> list[Every]:
        if held_out is None:
            return []
        every = epochs_in_steps(config, plan, config.monitoring.eval_every_epochs)
        measured = [agreement(held_out, size, teacher.logits)]
        if held_out.class_names == teacher.class_names:
            measured.append(accuracy(held_out, size))
        return [Every(every, evaluator) for evaluator in measured]

    def equip(model: keras.Model) -> None:
        # Several replicas each need the teacher's weights, made in the scope that is entered now.
        own = teacher if replicas.count == 1 else open_teacher(settings.teacher)
        model.teacher = own.logits

    labels = _labels(config, source, teacher)
    if len(labels):
        say(f"using {len(labels)} labels; they are listed in labelled.csv")
    few = len(labels) and len(labels) < np.sum(source.labels() >= 0)
    return Prepared(
        config,
        mask_labels(source, labels) if few else source,
        evaluators=evaluators,
        fill=lambda model: _fill(model, config.checkpoints.checkpoint),
        plan=lambda plan: dataclasses.replace(
            plan,
            num_classes=len(teacher.class_names),
            class_names=teacher.class_names,
            num_labels=len(labels),
        ),
        equip=equip,
        note=lambda run: list_labelled(run, source, labels) if len(labels) else None,
    )


def _labels(config: DistillConfig, source: ImageSource, teacher: Teacher) -> np.ndarray:
    """The places of the images whose labels are used, int64; of none without a labelled term.

    Raises:
        UserError: there are none, or they are not of the teacher's classes.
    """
    settings = config.distillation
    if settings.distill_alpha == 1:
        return np.empty(0, np.int64)
    if source.class_names != teacher.class_names or source.multi_label:
        raise UserError(
            f"--distill_alpha={settings.distill_alpha:g}: the labels of {source.name} are not of "
            f"the {len(teacher.class_names)} classes that the teacher answers with; name a "
            "dataset of these, or leave the flag out"
        )
    chosen = sample_labeled(
        source.labels(),
        teacher.class_names,
        fraction=settings.label_fraction,
        per_class=settings.labels_per_class,
        seed=config.optimization.seed,
    )
    if not len(chosen):
        raise UserError(
            f"--distill_alpha={settings.distill_alpha:g}: no image of {source.name} has a label; "
            "leave the flag out"
        )
    return chosen


def _fill(model: keras.Model, checkpoint: str) -> None:
    copy_weights(checkpoint, "encoder", load_model(checkpoint).encoder, model.encoder)
