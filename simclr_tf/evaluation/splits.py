"""Labeled training and test split of an evaluation."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.data import ImageSource, open_source
from simclr_tf.data.folder import log_shared_images
from simclr_tf.data.label_subset import sample_labeled
from simclr_tf.errors import UserError
from simclr_tf.evaluation.options import EvalOptions
from simclr_tf.evaluation.protocols import EvaluationProtocol
from simclr_tf.evaluation.results import EvalContext
from simclr_tf.evaluation.transfer_datasets import lookup_transfer_dataset
from simclr_tf.option_groups import MAX_PIXELS, Data


@dataclasses.dataclass(frozen=True)
class Splits:
    """Dataset and its two splits.

    >>> from simclr_tf.evaluation.splits import Splits
    >>> train, test = Splits("shapes", "train[:8]", "test[:4]", storage_size=16).open()
    >>> train.num_examples, test.num_examples
    (8, 4)
    """

    dataset: str
    train_split: str
    test_split: str
    data_dir: str = ""
    storage_size: int | None = None
    skip_unreadable: bool = False
    metric: str = "top-1"
    labels: str = "auto"
    duplicates: str = "keep"
    max_pixels: int = MAX_PIXELS

    @classmethod
    def from_config(cls, data: Data) -> "Splits":
        """Returns the splits of a run's data options."""
        return cls(
            data.dataset,
            data.train_split,
            data.eval_split,
            metric=lookup_transfer_dataset(data.dataset).metric,
            **data.reading,
        )

    @classmethod
    def labeled(cls, config: PretrainConfig, plan: TrainingPlan | None = None) -> "Splits":
        """Returns the splits on which a run is evaluated, as `PretrainConfig.labeled_data`.

        Without a plan, the training images are opened to find whether they have labels.
        """
        own = cls.from_config(config.data)
        if config.monitoring.probe_dataset in ("", config.data.dataset):
            has_labels = True
        elif plan is None:
            has_labels = bool(own.open_split(own.train_split).class_names)
        else:
            has_labels = plan.num_classes is not None
        return cls.from_config(config.labeled_data(has_labels))

    def override(self, options: EvalOptions, dataset: str) -> "Splits":
        """Returns the splits of a dataset.

        A split is, in this order: the option, this object's split if it is the same dataset, the
        dataset's standard split, "train" or "test".
        """
        standard = lookup_transfer_dataset(dataset)
        default = self if dataset == self.dataset else standard
        return dataclasses.replace(
            self,
            dataset=dataset,
            train_split=options.train_split or default.train_split or "train",
            test_split=options.eval_split or default.test_split or "test",
            metric=options.metric or standard.metric,
            data_dir=options.data_dir or self.data_dir,
            skip_unreadable=options.skip_unreadable or self.skip_unreadable,
            max_pixels=options.max_pixels or self.max_pixels,
            labels="auto" if options.dataset_names else self.labels,
            duplicates=self.duplicates if dataset == self.dataset else "keep",
        )

    def with_data(self, options: Any, *, train_split: str = "", test_split: str = "") -> "Splits":
        """Returns the splits of `options.dataset`, opened with the data options of both.

        Splits that are "" are those of this object, or of another dataset "train" and "test".
        """
        default = self if options.dataset in ("", self.dataset) else Splits("", "train", "test")
        return dataclasses.replace(
            self,
            dataset=options.dataset or self.dataset,
            labels=default.labels,
            duplicates=default.duplicates,
            train_split=train_split or default.train_split,
            test_split=test_split or default.test_split,
            data_dir=options.data_dir or self.data_dir,
            skip_unreadable=options.skip_unreadable or self.skip_unreadable,
            max_pixels=options.max_pixels or self.max_pixels,
        )

    def open_split(self, split: str) -> ImageSource:
        """Opens one split."""
        return open_source(
            self.dataset,
            split,
            data_dir=self.data_dir,
            storage_size=self.storage_size,
            labels=self.labels,
            skip_unreadable=self.skip_unreadable,
            duplicates=self.duplicates,
            max_pixels=self.max_pixels,
        )

    def open(self) -> tuple[ImageSource, ImageSource]:
        """Opens both splits."""
        train, test = self.open_split(self.train_split), self.open_split(self.test_split)
        log_shared_images(train, test)
        return train, test

    def open_with_options(self, options: EvalOptions) -> tuple[ImageSource, ImageSource]:
        """Opens both splits, the training split reduced to the label budget of `options`."""
        train, test = self.open()
        if train.class_names and (options.label_fraction < 1 or options.labels_per_class):
            indices = sample_labeled(
                train.labels(),
                train.class_names,
                fraction=options.label_fraction,
                per_class=options.labels_per_class,
                seed=options.seed,
            )
            train = train.subset(indices)
        return train, test

    def context(self, **fields: Any) -> EvalContext:
        """Returns the context of evaluations on these splits with further fields."""
        return EvalContext(
            self.dataset, self.train_split, self.test_split, metric=self.metric, **fields
        )


def check_evaluation(splits: Splits, protocols: Sequence[EvaluationProtocol]) -> ImageSource:
    """Checks that a run can be evaluated, before it is trained; returns the training split."""
    train, test = splits.open()
    check_splits(train, test, protocols, splits.context())
    return train


def check_splits(
    train: ImageSource,
    test: ImageSource,
    protocols: Sequence[EvaluationProtocol],
    context: EvalContext,
) -> tuple[str, ...]:
    """Checks labels, classes, metric and protocols without decoding images; returns the classes."""
    dataset = context.dataset
    splits = ((context.train_split, train), (context.test_split, test))
    for split, source in splits:
        if not source.class_names:
            raise UserError(
                f"--dataset={dataset}: split {split!r} has no labels, which evaluation requires. "
                "Fix: choose a labeled dataset (for folder:PATH, one subfolder per class)"
            )
    class_names = tuple(train.class_names or ())
    if class_names != tuple(test.class_names or ()):
        raise UserError(
            f"--dataset={dataset}: splits {context.train_split!r} and {context.test_split!r} have "
            "different classes. Fix: choose splits with the same classes"
        )
    if len(class_names) < 2:
        raise UserError(
            f"--dataset={dataset}: expected at least two classes, got the single class "
            f"{class_names[0]!r}. Fix: choose another dataset"
        )
    if train.multi_label != (context.metric == "11-point mAP"):
        count, fix = "one label", "top-1 or mean per class"
        if train.multi_label:
            count, fix = "several labels", "11-point mAP"
        raise UserError(
            f"--metric={context.metric}: the images of --dataset={dataset} have {count} each. "
            f"Fix: --metric={fix!r}"
        )
    for protocol in protocols:
        protocol.check(train.num_examples)
    present = []
    for split, source in splits:
        labels = source.labels()
        if labels.ndim == 1 and (labels < 0).any():
            raise UserError(
                f"--dataset={dataset}: split {split!r} has images without a label. "
                "Fix: choose a split in which every image has one"
            )
        present.append(
            np.flatnonzero((labels > 0).any(0)) if labels.ndim == 2 else np.unique(labels)
        )
    train_classes, test_classes = present
    if len(train_classes) < 2:
        found = "no class"
        if len(train_classes):
            found = f"the single class {class_names[train_classes[0]]!r}"
        raise UserError(
            f"--train_split={context.train_split}: expected at least two classes, got {found}. "
            "Fix: choose a larger split (a slice of sorted data may contain one class only)"
        )
    if not len(test_classes):
        raise UserError(
            f"--eval_split={context.test_split}: no image of --dataset={dataset} has a class. "
            "Fix: choose a larger split"
        )
    unknown = np.setdiff1d(test_classes, train_classes)
    if len(unknown):
        raise UserError(
            f"--train_split={context.train_split}: lacks {len(unknown)} of the classes of "
            f"{context.test_split!r}, such as {class_names[unknown[0]]!r}. "
            "Fix: choose a larger training split"
        )
    return class_names
