"""Protocols × (the trained encoder and its baselines): every figure as soon as it is known."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simclr_tf.data import ImageSource
from simclr_tf.data.base import content_hash
from simclr_tf.errors import UserError
from simclr_tf.evaluation.array_cache import kept
from simclr_tf.evaluation.features import Encoder, FeatureExtractor, Features
from simclr_tf.evaluation.metrics import METRICS, top_k
from simclr_tf.evaluation.protocols import (
    AffineClassifier,
    EvaluationProtocol,
    Prediction,
    Task,
)

BASELINES = ("pca", "random", "supervised")


@dataclass(frozen=True)
class Setting:
    """What figures are about, and how they are taken.

    Attributes:
        dataset: recorded, like the splits and the step.
        train_split: what is learnt from.
        test_split: what is judged on.
        metric: one of METRICS, recorded as `value`.
        image_size: S, in pixels, at which encoders see the images.
        step: the training step of the encoder.
        batch_size: images per call of an encoder.
        seed: of the protocols' own draws.
        cache_dir: where features are kept; None: nowhere.
    """

    dataset: str
    train_split: str
    test_split: str
    metric: str = "top-1"
    image_size: int = 32
    step: int = 0
    batch_size: int = 256
    seed: int = 0
    cache_dir: Path | None = None

    def words(self, *words: str) -> str:
        """Return what tells a figure from others of its kind: `words`, and a seed other than 0."""
        return ", ".join(filter(None, (*words, f"seed {self.seed}" if self.seed else "")))


@dataclass(frozen=True)
class Representation:
    """An encoder among those that are compared; made only when its turn comes.

    Attributes:
        name: "" for the trained encoder, else that of a baseline.
        make: returns (encoder, identity): the encoder is called as encoder(images float32
            [B, S, S, 3] in [0, 1], training=False); the identity, a string, changes with whatever
            changes its features.
    """

    name: str
    make: Callable[[], tuple[Encoder, str]]


@dataclass(frozen=True)
class Evaluation:
    """One entry of evaluations.json, and what a reader wants beside it.

    `top1`, `top5` and `value`, which is of `metric`, are fractions in [0, 1]; with several labels
    per image, `top1` is how often the best-scored class is one of them. `seconds` is wall-clock
    time when it was computed, the extraction of features included where they were not there yet.
    """

    protocol: str
    dataset: str
    train_split: str
    test_split: str
    top1: float
    top5: float
    num_train: int
    num_test: int
    step: int
    seconds: float
    setting: str
    metric: str
    value: float
    scores: np.ndarray = field(metadata={"record": False})
    labels: np.ndarray = field(metadata={"record": False})
    notice: str = field(default="", metadata={"record": False})
    classifier: AffineClassifier | None = field(default=None, metadata={"record": False})

    def record(self) -> dict[str, str | int | float]:
        """Return the entry of evaluations.json."""
        fields = self.__dataclass_fields__.values()
        return {f.name: getattr(self, f.name) for f in fields if f.metadata.get("record", True)}


def judged(about: Setting, /, scores: np.ndarray, labels: np.ndarray, **rest: Any) -> Evaluation:
    """Return the evaluation of scores [M, C] for images with these labels."""
    top1, top5 = top_k(scores, labels)
    return Evaluation(
        dataset=about.dataset,
        train_split=about.train_split,
        test_split=about.test_split,
        top1=top1,
        top5=top5,
        num_test=len(scores),
        step=about.step,
        metric=about.metric,
        value=METRICS[about.metric](scores, labels),
        scores=scores,
        labels=labels,
        **rest,
    )


def evaluate(
    representations: Sequence[Representation],
    train: ImageSource,
    test: ImageSource,
    protocols: Sequence[EvaluationProtocol],
    setting: Setting,
) -> Iterator[Evaluation]:
    """Check everything that can be checked, then yield one Evaluation after the other.

    Each representation's features are extracted once and shared by the protocols. A protocol is
    named `knn` for the trained encoder, `knn/pca` and so on for baselines. With a `cache_dir` what
    a protocol answered is kept there beside the features, and found again.

    Raises:
        UserError: at once, where settings or splits do not go together; while iterating, where
            images or features turn out unusable.
    """
    num_classes = len(check_splits(train, test, protocols, setting))

    def run() -> Iterator[Evaluation]:
        for representation in representations:
            encoder, identity = representation.make()
            started = time.monotonic()
            extract = FeatureExtractor(
                encoder, setting.image_size, setting.batch_size, setting.cache_dir, identity
            )
            learnt = extract(train)
            if learnt.labels.ndim == 2:
                learnt = Features(learnt.features, np.maximum(learnt.labels, 0))
            task = Task(
                learnt,
                extract(test),
                num_classes,
                encoder=encoder,
                source=train,
                image_size=setting.image_size,
                scratch=extract.place(train),
                seed=setting.seed,
            )
            extraction = time.monotonic() - started
            for protocol in protocols:
                place = None
                if task.scratch is not None:
                    key = content_hash(protocol, test.fingerprint(), num_classes, setting.seed)
                    place = task.scratch / f"{protocol.name}-{key[:16]}.npz"
                predictions, seconds = _answers(protocol, task, place, extraction)
                name = representation.name
                for prediction in predictions:
                    yield judged(
                        setting,
                        prediction.scores,
                        task.test.labels,
                        protocol=f"{protocol.name}/{name}" if name else protocol.name,
                        num_train=task.train.num_examples,
                        seconds=seconds,
                        setting=setting.words(prediction.setting),
                        notice=prediction.notice,
                        classifier=prediction.classifier,
                    )

    return run()


def _answers(
    protocol: EvaluationProtocol, task: Task, place: Path | None, extraction: float
) -> tuple[list[Prediction], float]:
    """Return a protocol's predictions and the seconds that they took, perhaps in another call."""

    def compute() -> dict[str, np.ndarray]:
        started = time.monotonic()
        predictions = protocol.predict(task)
        seconds = extraction + time.monotonic() - started
        arrays = {
            f"{number} {name}": array
            for number, prediction in enumerate(predictions)
            for name, array in prediction.arrays().items()
        }
        return {"seconds": np.array(round(seconds, 3)), **arrays}

    found: dict[str, dict[str, np.ndarray]] = {}
    arrays = dict(kept(place, compute))
    seconds = float(arrays.pop("seconds"))
    for name, array in arrays.items():
        number, _, part = name.partition(" ")
        found.setdefault(number, {})[part] = array
    return [Prediction.of(parts) for parts in found.values()], seconds


def check_splits(
    train: ImageSource, test: ImageSource, protocols: Sequence[EvaluationProtocol], setting: Setting
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
    train: np.ndarray, test: np.ndarray, class_names: tuple[str, ...], setting: Setting
) -> None:
    """Raise UserError where labels cannot be learned or judged."""
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
