"""Labeled splits of an evaluation."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from simclr_tf.config import Data
from simclr_tf.data import ImageSource, open_source
from simclr_tf.errors import UserError
from simclr_tf.evaluation.protocols import EvaluationProtocol
from simclr_tf.evaluation.results import EvalContext
from simclr_tf.evaluation.transfer_datasets import lookup_transfer_dataset


@dataclasses.dataclass(frozen=True)
class Splits:
    """The labelled data of an evaluation: what is learnt from, and what is judged on."""

    dataset: str
    train_split: str
    test_split: str
    data_dir: str = ""
    storage_size: int | None = None
    skip_unreadable: bool = False
    metric: str = "top-1"

    @classmethod
    def from_config(cls, data: Data) -> "Splits":
        """Those that a run's data settings name."""
        return cls(
            data.dataset,
            data.train_split,
            data.eval_split,
            data.data_dir,
            data.storage_size,
            data.skip_unreadable,
            lookup_transfer_dataset(data.dataset).metric,
        )

    @classmethod
    def for_exported_model(cls, image_size: int) -> "Splits":
        """None, but stored as a run at that size would store them."""
        return cls("", "", "", storage_size=round(1.5 * image_size))

    def open(self) -> tuple[ImageSource, ImageSource]:
        """Opens both splits.

        Raises:
            UserError: if one is not to be had.
        """
        train, test = (
            open_source(
                self.dataset,
                split,
                data_dir=self.data_dir or None,
                storage_size=self.storage_size,
                skip_unreadable=self.skip_unreadable,
            )
            for split in (self.train_split, self.test_split)
        )
        return train, test

    def setting(self, **rest: Any) -> EvalContext:
        """Returns what figures on them are about."""
        return EvalContext(
            self.dataset, self.train_split, self.test_split, metric=self.metric, **rest
        )


def check_evaluation(data: Data, protocols: Sequence[EvaluationProtocol]) -> None:
    """Checks what `evaluate_run` will need, before the run that it is to follow.

    Raises:
        UserError: if the splits that `data` names cannot be evaluated on.
    """
    splits = Splits.from_config(data)
    train, test = splits.open()
    check_splits(train, test, protocols, splits.setting())


def check_splits(
    train: ImageSource,
    test: ImageSource,
    protocols: Sequence[EvaluationProtocol],
    setting: EvalContext,
) -> tuple[str, ...]:
    """Return the class names of two splits that go together, before an image is decoded.

    Raises:
        UserError: a split has images without a label, the classes differ or are fewer than two,
            train lacks a class of test, the metric is not for such labels, or a protocol cannot
            learn from so few images.
    """
    dataset, splits = setting.dataset, (setting.train_split, setting.test_split)
    for split, source in zip(splits, (train, test), strict=True):
        if not source.class_names:
            raise UserError(
                f"--dataset={dataset}: split {split!r} has no labels, and evaluation needs them; "
                "name a labelled dataset (for folder:PATH, one subfolder per class)"
            )
    class_names = tuple(train.class_names or ())
    if class_names != tuple(test.class_names or ()):
        raise UserError(
            f"--dataset={dataset}: splits {splits[0]!r} and {splits[1]!r} have different "
            "classes; choose splits of one labelling"
        )
    if len(class_names) < 2:
        raise UserError(
            f"--dataset={dataset} has the single class {class_names[0]!r}: any answer would be "
            "right; name a dataset with two classes or more"
        )
    if train.multi_label != (setting.metric == "11-point mAP"):
        raise UserError(
            f"--metric={setting.metric} does not go with --dataset={dataset}, whose images have "
            + ("several labels: take 11-point mAP" if train.multi_label else "one label each")
        )
    for protocol in protocols:
        protocol.check(train.num_examples)
    _check_labels(train.labels(), test.labels(), class_names, setting)
    return class_names


def _check_labels(
    train: np.ndarray, test: np.ndarray, class_names: tuple[str, ...], setting: EvalContext
) -> None:
    """Raise UserError where labels cannot be used for training or testing."""
    for split, labels in ((setting.train_split, train), (setting.test_split, test)):
        if labels.ndim == 1 and (labels < 0).any():
            raise UserError(
                f"--dataset={setting.dataset}: split {split!r} holds images without a label; "
                "choose a split in which every image has one"
            )
    known, asked = (
        np.flatnonzero((x > 0).any(0)) if x.ndim == 2 else np.unique(x) for x in (train, test)
    )
    if len(known) < 2:
        held = f"the single class {class_names[known[0]]!r}" if len(known) else "no class at all"
        raise UserError(
            f"--train_split={setting.train_split} holds {held}; take a split with two classes or "
            "more (a slice of sorted data may hold one only)"
        )
    if not len(asked):
        raise UserError(
            f"{setting.test_split!r} of --dataset={setting.dataset} has no image of any class; "
            "take a larger split to judge on"
        )
    unknown = np.setdiff1d(asked, known)
    if len(unknown):
        raise UserError(
            f"--train_split={setting.train_split} lacks class {class_names[unknown[0]]!r}, which "
            f"{setting.test_split!r} has ({len(unknown)} such classes); take a larger split to "
            "learn from"
        )
