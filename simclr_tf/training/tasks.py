"""Pretraining, fine-tuning and distillation: the parts in which they differ."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tf_keras as keras

from simclr_tf.config import DistillConfig, FinetuneConfig, PretrainConfig, TrainingPlan
from simclr_tf.data import ImageSource, open_source
from simclr_tf.data.label_subset import mask_labels, sample_labeled
from simclr_tf.errors import UserError
from simclr_tf.evaluation.splits import Splits
from simclr_tf.models import Classifier, DistilledClassifier, SimCLR
from simclr_tf.models.classifier import truncate_projection_head
from simclr_tf.models.teacher import Teacher, load_teacher
from simclr_tf.runs.load import load_model
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.callbacks import ScheduledEvaluator
from simclr_tf.training.distribution import DistributionContext, single_device
from simclr_tf.training.loop import Prepared, Say, train
from simclr_tf.training.online_eval import (
    Evaluator,
    accuracy_evaluator,
    agreement_evaluator,
    probe_evaluator,
    validation_loss_evaluator,
)
from simclr_tf.training.schedule import epochs_to_steps
from simclr_tf.utils.files import write_csv


def pretrain(
    config: PretrainConfig,
    model_dir: str | Path,
    distribution: DistributionContext | None = None,
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
    return train(config, model_dir, distribution, steps_per_execution, say, _prepare_pretrain)


def _prepare_pretrain(config: PretrainConfig, say: Say) -> Prepared:
    source, held_out = open_training_data(config)
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
        fill=lambda model: _fill_pretrain(model, config.checkpoints.checkpoint),
    )


def open_training_data(config: PretrainConfig) -> tuple[ImageSource, ImageSource | None]:
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
) -> list[ScheduledEvaluator]:
    watching, settings = config.monitoring, config.optimization
    evaluators = []
    if watching.knn_every_epochs:
        every = epochs_to_steps(config, plan, watching.knn_every_epochs)
        evaluators.append(ScheduledEvaluator(every, _probe(config)))
    if held_out is not None:
        every = epochs_to_steps(config, plan, watching.eval_every_epochs)
        evaluators.append(
            ScheduledEvaluator(
                every, validation_loss_evaluator(held_out, settings.train_batch_size)
            )
        )
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
    return probe_evaluator(train, test, config.augmentation.image_size)


def _instead_of_a_label(source: ImageSource) -> str:
    """What the images have in place of one label each; empty where they have that."""
    if source.multi_label:
        return "several labels per image"
    return "" if source.class_names else "no labels"


def _fill_pretrain(model: keras.Model, checkpoint: str) -> None:
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


def finetune(
    config: FinetuneConfig,
    model_dir: str | Path,
    distribution: DistributionContext | None = None,
    steps_per_execution: int = 1,
    say: Callable[[str], None] = print,
    fit_batch: bool = False,
) -> Classifier:
    """Trains a classifier to its end, or from where it was left.

    The labelled images that it may use are chosen class by class from the seed, and listed in the
    run's `labelled.csv`; a larger share of the same seed holds the smaller one.

    Arguments, result and errors are those of `pretrain`; the weights that it starts from are those
    of the run that `config.checkpoints.checkpoint` names. With `fit_batch`, where there are fewer
    labelled images than `train_batch_size`, all of them are the batch.
    """
    fit_to = (distribution.num_replicas if distribution else 1) if fit_batch else 0
    prepare = functools.partial(_prepare_finetune, fit_to=fit_to)
    return train(config, model_dir, distribution, steps_per_execution, say, prepare)


def supervised_baseline_config(
    config: PretrainConfig, plan: TrainingPlan, splits: Splits
) -> FinetuneConfig:
    """Returns the supervised baseline of a pretraining run, trained and judged on these splits.

    It learns in as many steps as the run did.
    """
    data = {
        "train_split": splits.train_split,
        "eval_split": splits.test_split,
        "data_dir": splits.data_dir,
        "validation_fraction": 0.0,  # it learns from all labels, as the protocols do
    }
    steps = {"train_steps": plan.total_steps}
    return config.override({"data": data, "optimization": steps}).to_supervised_baseline()


def train_supervised_baseline(run: RunDir, splits: Splits) -> Path:
    """Trains the supervised baseline of a run in RUN/supervised/SPLIT, or goes on with it.

    Returns:
        The baseline's run directory.

    Raises:
        UserError: the run's images have no labels, or as `finetune`.
    """
    config, plan = run.read_config()
    place = run.supervised_dir(splits.train_split)
    finetune(supervised_baseline_config(config, plan, splits), place)
    return place


def shrink_batch(config: FinetuneConfig, count: int, replicas: int, say: Say) -> FinetuneConfig:
    """Returns the config with a batch of no more than so many images, a multiple of the replicas.

    It stays as it is where there are too few for a batch.
    """
    settings, most = config.optimization, count // replicas * replicas
    if not 2 <= most < settings.train_batch_size:
        return config
    say(
        f"note: --train_batch_size is {most}, not {settings.train_batch_size}, because there are "
        f"{count} labelled images"
    )
    return config.override({"optimization": {"train_batch_size": most}})


def _prepare_finetune(config: PretrainConfig, say: Say, fit_to: int) -> Prepared:
    """Opens the data; `fit_to` replicas share a batch that may shrink, 0: it must not."""
    assert isinstance(config, FinetuneConfig)
    everything, held_out = open_training_data(config)
    if not everything.class_names or everything.multi_label:
        raise UserError(
            f"--dataset={config.data.dataset}: split {config.data.train_split!r} has no labels of "
            "one class per image, and fine-tuning needs them; name a labelled dataset (for "
            "folder:PATH, one subfolder per class)"
        )
    settings, names = config.finetuning, everything.class_names
    labels = everything.labels()
    chosen = sample_labeled(
        labels,
        names,
        fraction=settings.label_fraction,
        per_class=settings.labels_per_class,
        seed=config.optimization.seed,
    )
    if len(np.unique(labels[chosen])) < 2:
        raise UserError(
            f"--train_split={config.data.train_split} has labels of one class only: any answer "
            "would be right; take a split with two classes or more"
        )
    source = everything if len(chosen) == len(labels) else everything.subset(chosen)
    if len(chosen) < len(labels):
        say(f"using {len(chosen)} of {len(labels)} labels; they are listed in labelled.csv")
    if fit_to:
        config = shrink_batch(config, len(chosen), fit_to, say)

    def evaluators(plan: TrainingPlan) -> list[ScheduledEvaluator]:
        if held_out is None:
            return []
        every = epochs_to_steps(config, plan, config.monitoring.eval_every_epochs)
        return [
            ScheduledEvaluator(every, accuracy_evaluator(held_out, config.augmentation.image_size))
        ]

    return Prepared(
        config,
        source,
        evaluators=evaluators,
        fill=lambda model: _fill_finetune(model, config),
        note=lambda run: write_labeled_list(run, everything, chosen),
    )


def write_labeled_list(run: RunDir, source: ImageSource, chosen: np.ndarray) -> None:
    """Writes which images' labels are used, those at these places of the source."""
    names = source.class_names or ()
    classes = [names[label] for label in source.labels()[chosen]]
    rows = zip(source.image_ids(chosen), classes, strict=True)
    write_csv(run.labeled_images_file, [("id", "class"), *rows])


def _fill_finetune(model: keras.Model, config: FinetuneConfig) -> None:
    checkpoint, layers = config.checkpoints.checkpoint, config.finetuning.ft_proj_selector
    other = load_model(checkpoint)
    copy_weights(checkpoint, "encoder", other.encoder, model.encoder)
    if layers:
        head = getattr(other, "projection_head", None)
        layers_of_other = None if head is None else truncate_projection_head(head, layers)
        copy_weights(checkpoint, "projection_head", layers_of_other, model.projection)


def distill(
    config: DistillConfig,
    model_dir: str | Path,
    distribution: DistributionContext | None = None,
    steps_per_execution: int = 1,
    say: Callable[[str], None] = print,
) -> DistilledClassifier:
    """Trains a student to its end, or from where it was left [v2 §2].

    Arguments, result and errors are those of `pretrain`. The student's encoder starts from that of
    the run that `config.checkpoints.checkpoint` names, where one is named. Labels are looked at
    only with a `distill_alpha` below 1; those that are used are listed in the run's `labelled.csv`.
    """
    distribution = distribution or single_device()
    prepare = functools.partial(_prepare_distill, distribution=distribution)
    return train(config, model_dir, distribution, steps_per_execution, say, prepare)


def _prepare_distill(
    config: PretrainConfig, say: Say, distribution: DistributionContext
) -> Prepared:
    assert isinstance(config, DistillConfig)
    settings, size = config.distillation, config.augmentation.image_size
    teacher = load_teacher(settings.teacher)
    if teacher.image_size != size:
        raise UserError(
            f"--image_size={size}: the teacher {settings.teacher} takes images of "
            f"{teacher.image_size} pixels; the student learns from the same"
        )
    source, held_out = open_training_data(config)
    say(
        f"the teacher {settings.teacher} answers with {len(teacher.class_names)} classes, at "
        f"temperature {settings.distill_temperature:g}"
    )
    config = config.override({"distillation": {"teacher_weights": teacher.identity[:16]}})

    def evaluators(plan: TrainingPlan) -> list[ScheduledEvaluator]:
        if held_out is None:
            return []
        every = epochs_to_steps(config, plan, config.monitoring.eval_every_epochs)
        measured = [agreement_evaluator(held_out, size, teacher.logits)]
        if held_out.class_names == teacher.class_names:
            measured.append(accuracy_evaluator(held_out, size))
        return [ScheduledEvaluator(every, evaluator) for evaluator in measured]

    def equip(model: keras.Model) -> None:
        # Several replicas each need the teacher's weights, made in the scope that is entered now.
        own = teacher if distribution.num_replicas == 1 else load_teacher(settings.teacher)
        model.teacher = own.logits

    labels = _labels(config, source, teacher)
    if len(labels):
        say(f"using {len(labels)} labels; they are listed in labelled.csv")
    few = len(labels) and len(labels) < np.sum(source.labels() >= 0)
    return Prepared(
        config,
        mask_labels(source, labels) if few else source,
        evaluators=evaluators,
        fill=lambda model: _fill_distill(model, config.checkpoints.checkpoint),
        plan=lambda plan: dataclasses.replace(
            plan,
            num_classes=len(teacher.class_names),
            class_names=teacher.class_names,
            num_labels=len(labels),
        ),
        equip=equip,
        note=lambda run: write_labeled_list(run, source, labels) if len(labels) else None,
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


def _fill_distill(model: keras.Model, checkpoint: str) -> None:
    copy_weights(checkpoint, "encoder", load_model(checkpoint).encoder, model.encoder)
