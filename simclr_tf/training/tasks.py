"""The training tasks: what differs between pretraining, fine-tuning and distillation."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from simclr_tf.config import DistillConfig, FinetuneConfig, PretrainConfig, TrainingPlan
from simclr_tf.data import ImageSource
from simclr_tf.data.label_subset import mask_labels, sample_labeled
from simclr_tf.errors import UserError
from simclr_tf.evaluation.splits import Splits
from simclr_tf.models import Classifier, DistilledClassifier, SimCLR
from simclr_tf.models.classifier import truncate_projection_head
from simclr_tf.models.multi_view import MultiViewModel
from simclr_tf.models.teacher import load_teacher
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.base_task import TrainingTask, write_labeled_list
from simclr_tf.training.callbacks import ScheduledEvaluator
from simclr_tf.training.distribution import DistributionContext
from simclr_tf.training.loop import fit
from simclr_tf.training.online_eval import (
    Evaluator,
    classifier_evaluator,
    probe_evaluator,
    validation_loss_evaluator,
)
from simclr_tf.training.schedule import steps_between

logger = logging.getLogger(__name__)


def pretrain(
    config: PretrainConfig,
    model_dir: str | Path,
    distribution: DistributionContext | None = None,
    steps_per_execution: int = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    encoder: keras.Model | None = None,
) -> SimCLR:
    """Pretrains an encoder with a contrastive loss, or resumes the run in `model_dir`.

    `encoder`, images → [N, D], replaces the one that `config.encoder` names. If a callback raises,
    the run is saved at the last finished step before the exception propagates. Raises UserError,
    before training where possible, and SystemExit with a checkpoint of the last step after SIGTERM
    (143) and SIGINT (130).
    """
    task = PretrainTask(config, encoder)
    return fit(task, model_dir, distribution, steps_per_execution, callbacks)


def finetune(
    config: FinetuneConfig,
    model_dir: str | Path,
    distribution: DistributionContext | None = None,
    steps_per_execution: int = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    fit_batch: bool = False,
) -> Classifier:
    """Trains a classifier on an encoder with labels, or resumes the run; see `pretrain`.

    With `fit_batch`, all labeled images are one batch if they are fewer than `train_batch_size`.
    """
    num_replicas = distribution.num_replicas if distribution else 1
    task = FineTuneTask(config, num_replicas if fit_batch else 0)
    return fit(task, model_dir, distribution, steps_per_execution, callbacks)


def distill(
    config: DistillConfig,
    model_dir: str | Path,
    distribution: DistributionContext | None = None,
    steps_per_execution: int = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> DistilledClassifier:
    """Distills a teacher into a smaller encoder [v2 §2], or resumes the run; see `pretrain`."""
    return fit(DistillTask(config), model_dir, distribution, steps_per_execution, callbacks)


class PretrainTask(TrainingTask):
    """Contrastive pretraining, mostly without labels."""

    def open_data(self, run: RunDir | None = None) -> None:
        super().open_data(run)
        source, loss = self.train, self.config.contrastive_loss
        if loss.loss == "supcon":
            problem = _label_problem(source)
            if not problem and (source.labels() < 0).all():
                problem = "no image with a label"
            if problem:
                raise UserError(
                    f"--loss=supcon: expected one label per image, but {source.name} has "
                    f"{problem}. Fix: use labeled images (for folder:PATH, one subfolder per "
                    "class) or another --loss"
                )
        if source.multi_label and loss.lineareval_while_pretraining:
            logger.warning(
                f"note: the images of {source.name} have several labels each: "
                "--lineareval_while_pretraining trains no linear head"
            )

    def evaluators(self, plan: TrainingPlan, run: RunDir) -> list[ScheduledEvaluator]:
        evaluators = super().evaluators(plan, run)
        if epochs := self.config.monitoring.knn_every_epochs:
            steps = steps_between(self.config, plan, epochs)
            evaluators.insert(0, ScheduledEvaluator(steps, self._probe_evaluator(run)))
        return evaluators

    def _validation_evaluator(self, held_out: ImageSource) -> Evaluator:
        return validation_loss_evaluator(held_out, self.config.optimization.train_batch_size)

    def _probe_evaluator(self, run: RunDir) -> Evaluator:
        config = self.config
        splits = Splits.from_config(config.probe_data)
        try:
            train, test = splits.open()
        except UserError as error:
            names = "probe_dataset, --probe_train_split, --probe_eval_split"
            raise UserError(f"probes (--knn_every_epochs, --{names}): {error}") from None
        for source in (train, test):
            if problem := _label_problem(source):
                raise UserError(
                    f"--knn_every_epochs: expected one label per image, but {source.name} has "
                    f"{problem}. Fix: set --probe_dataset to a labeled dataset, or "
                    "--knn_every_epochs=0"
                )
        logger.info(
            f"probes: fitted to {train.num_examples} images of {train.name}, tested on "
            f"{test.num_examples} of {test.name}"
        )
        return probe_evaluator(train, test, config.augmentation.evaluation_size, run)

    def _copy_weights(self, source: Any, model: SimCLR) -> None:
        super()._copy_weights(source, model)
        head = getattr(source, "projection_head", None)
        self._copy_part("projection_head", head, model.projection_head)


class FineTuneTask(TrainingTask):
    """Supervised training of a classifier, from a pretrained encoder or from scratch.

    Without `num_replicas_to_fit`, a batch that is larger than the labeled images does not shrink.
    """

    def __init__(self, config: FinetuneConfig, num_replicas_to_fit: int = 0):
        super().__init__(config)
        self._num_replicas_to_fit = num_replicas_to_fit

    def open_data(self, run: RunDir | None = None) -> None:
        super().open_data(run)
        source, data, settings = self.train, self.config.data, self.config.finetuning
        if not source.class_names or source.multi_label:
            raise UserError(
                f"--dataset={data.dataset}: expected one class label per image in split "
                f"{data.train_split!r}, got {_label_problem(source)}. Fix: use a labeled dataset "
                "(for folder:PATH, one subfolder per class)"
            )
        labels = source.labels()
        self._labeled = sample_labeled(
            labels,
            source.class_names,
            fraction=settings.label_fraction,
            per_class=settings.labels_per_class,
            seed=self.config.optimization.seed,
        )
        self._all_images = source
        count = len(self._labeled)
        if len(np.unique(labels[self._labeled])) < 2:
            raise UserError(
                f"--train_split={data.train_split}: expected labels of at least 2 classes, got 1. "
                "Fix: use a split with more classes"
            )
        if count < len(labels):
            self.train = source.subset(self._labeled)
            logger.info(f"using {count} of {len(labels)} labels, listed in labelled.csv")
        if self._num_replicas_to_fit:
            self.config = shrink_batch(self.config, count, self._num_replicas_to_fit)

    def _validation_evaluator(self, held_out: ImageSource) -> Evaluator:
        return classifier_evaluator(held_out, self.config.augmentation.evaluation_size)

    def _copy_weights(self, source: Any, model: Classifier) -> None:
        super()._copy_weights(source, model)
        if num_layers := self.config.finetuning.ft_proj_selector:
            head = getattr(source, "projection_head", None)
            layers = None if head is None else truncate_projection_head(head, num_layers)
            self._copy_part("projection_head", layers, model.projection)

    def write_extra_files(self, run: RunDir) -> None:
        write_labeled_list(run, self._all_images, self._labeled)


class DistillTask(TrainingTask):
    """Distillation of a teacher's predictions into an encoder with a linear classifier."""

    def open_data(self, run: RunDir | None = None) -> None:
        settings, size = self.config.distillation, self.config.augmentation.image_size
        self.teacher = load_teacher(settings.teacher)
        if self.teacher.image_size != size:
            raise UserError(
                f"--image_size={size}: expected {self.teacher.image_size}, the image size of the "
                f"teacher {settings.teacher}. Fix: set --image_size={self.teacher.image_size}"
            )
        super().open_data(run)
        logger.info(
            f"the teacher {settings.teacher} predicts {len(self.teacher.class_names)} classes, at "
            f"temperature {settings.distill_temperature:g}"
        )
        self.config = self.config.override(
            {"distillation": {"teacher_weights": self.teacher.identity[:16]}}
        )
        self._labeled = self._sample_labeled(self.train)
        if count := len(self._labeled):
            logger.info(f"using {count} labels, listed in labelled.csv")
            if count < np.sum(self.train.labels() >= 0):
                self.train = mask_labels(self.train, self._labeled)

    def complete_plan(self, plan: TrainingPlan) -> TrainingPlan:
        return dataclasses.replace(
            plan,
            num_classes=len(self.teacher.class_names),
            class_names=self.teacher.class_names,
            num_labels=len(self._labeled),
        )

    def _validation_evaluator(self, held_out: ImageSource) -> Evaluator:
        return classifier_evaluator(held_out, self.config.augmentation.image_size, self.teacher)

    def build_model(self, plan: TrainingPlan, steps_per_execution: int) -> MultiViewModel:
        model: Any = super().build_model(plan, steps_per_execution)
        teacher = self.teacher
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            # Each replica needs a copy of the weights, which the strategy in scope makes.
            teacher = load_teacher(self.config.distillation.teacher)
        model.teacher = teacher.logits
        return model

    def write_extra_files(self, run: RunDir) -> None:
        if len(self._labeled):
            write_labeled_list(run, self.train, self._labeled)

    def _sample_labeled(self, source: ImageSource) -> np.ndarray:
        """Returns the indices of the images whose labels are used, int64, perhaps none."""
        settings, names = self.config.distillation, self.teacher.class_names
        if settings.distill_alpha == 1:
            return np.empty(0, np.int64)
        flag = f"--distill_alpha={settings.distill_alpha:g}"
        if source.class_names != names or source.multi_label:
            raise UserError(
                f"{flag}: expected labels of the teacher's {len(names)} classes, but those of "
                f"{source.name} differ. Fix: use a dataset with the teacher's classes, or omit "
                "--distill_alpha"
            )
        labeled = sample_labeled(
            source.labels(),
            names,
            fraction=settings.label_fraction,
            per_class=settings.labels_per_class,
            seed=self.config.optimization.seed,
        )
        if not len(labeled):
            raise UserError(
                f"{flag}: no image of {source.name} has a label. Fix: omit --distill_alpha"
            )
        return labeled


def shrink_batch(config: FinetuneConfig, count: int, num_replicas: int) -> FinetuneConfig:
    """Returns the config with a batch of at most `count` images, a multiple of the replicas."""
    batch, max_batch = config.optimization.train_batch_size, count // num_replicas * num_replicas
    if not 2 <= max_batch < batch:
        return config
    logger.warning(
        f"note: --train_batch_size is {max_batch} instead of {batch}, because there are {count} "
        "labeled images"
    )
    return config.override({"optimization": {"train_batch_size": max_batch}})


def supervised_baseline_config(
    config: PretrainConfig, plan: TrainingPlan, splits: Splits
) -> FinetuneConfig:
    """Returns the supervised baseline of a pretraining run, with the same number of steps."""
    data = {
        "dataset": splits.dataset,
        "train_split": splits.train_split,
        "eval_split": splits.test_split,
        "data_dir": splits.data_dir,
        "labels": splits.labels,
        "skip_unreadable": splits.skip_unreadable,
        "duplicates": splits.duplicates,
        "max_pixels": splits.max_pixels,
        "validation_fraction": 0.0,  # it trains on all labels, as the protocols do
    }
    steps = {"train_steps": plan.total_steps}
    return config.override({"data": data, "optimization": steps}).to_supervised_baseline()


def train_supervised_baseline(run: RunDir, splits: Splits) -> Path:
    """Trains or resumes the supervised baseline of a run, and returns its run directory."""
    config, plan = run.read_config()
    path = run.supervised_dir(splits.train_split)
    finetune(supervised_baseline_config(config, plan, splits), path)
    return path


def _label_problem(source: ImageSource) -> str:
    """Returns what prevents one label per image, or an empty string."""
    if source.multi_label:
        return "several labels per image"
    return "" if source.class_names else "no labels"
