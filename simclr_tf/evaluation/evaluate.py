"""Protocols × (the trained encoder and its baselines): every figure as soon as it is known."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from simclr_tf.data import Source
from simclr_tf.errors import UserError
from simclr_tf.evaluation.baselines import pca_features
from simclr_tf.evaluation.features import Encoder, FeatureExtractor, Features
from simclr_tf.evaluation.protocols import EvaluationProtocol, top_k_accuracy

BASELINES = ("pca", "random")


@dataclass(frozen=True)
class Evaluation:
    """One line of evaluations.json, and a notice about it for the user's eyes (mostly empty).

    `top1` and `top5` are fractions in [0, 1]; `seconds` is wall-clock time, the extraction of
    features included, as if the protocol had been run alone.
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
    notice: str = ""

    def record(self) -> dict[str, str | int | float]:
        """Return the entry of evaluations.json."""
        return {key: value for key, value in vars(self).items() if key != "notice"}


def evaluate(
    encoder: Encoder,
    train: Source,
    test: Source,
    protocols: Sequence[EvaluationProtocol],
    *,
    dataset: str,
    train_split: str,
    test_split: str,
    image_size: int,
    step: int,
    baselines: Sequence[str] = (),
    random_encoder: Encoder | None = None,
    batch_size: int = 256,
    seed: int = 0,
) -> Iterator[Evaluation]:
    """Check everything that can be checked, then yield one Evaluation after the other.

    Each encoder's features are extracted once and shared by the protocols. A protocol is named
    `knn` for the trained encoder, `knn/pca` and `knn/random` for baselines.

    Args:
        encoder: called as encoder(images float32 [B, S, S, 3] in [0, 1], training=False).
        train: labelled images from which a protocol learns.
        test: labelled images on which it is judged.
        protocols: such as KNN(k=200) and Logistic().
        dataset: recorded, like `train_split`, `test_split` and `step`.
        train_split: the split of `train`.
        test_split: the split of `test`.
        image_size: S, in pixels.
        step: the training step of `encoder`.
        baselines: any of BASELINES.
        random_encoder: the same encoder untrained, for the baseline `random`.
        batch_size: images per call of an encoder.
        seed: of the baselines' own draws.

    Raises:
        UserError: at once, where settings or splits do not go together; while iterating, where
            labels or features turn out unusable.
    """
    class_names = check_splits(train, test, protocols, dataset, train_split, test_split)
    for baseline in baselines:
        if baseline not in BASELINES:
            raise UserError(f"--baselines: {baseline!r} is none of {', '.join(BASELINES)}")
    if "random" in baselines and random_encoder is None:
        raise UserError(
            "--baselines=random needs the encoder's architecture, which an exported model does "
            "not tell; leave it out or evaluate a run with --model_dir"
        )
    encoders = {"": encoder}
    if random_encoder is not None:
        encoders["random"] = random_encoder

    def extract(which: str) -> tuple[Features, Features]:
        if which == "pca":
            return pca_features(train, test, image_size, batch_size, seed)
        extractor = FeatureExtractor(encoders[which], image_size, batch_size)
        return extractor(train), extractor(test)

    def run() -> Iterator[Evaluation]:
        for which in ("", *baselines):
            started = time.monotonic()
            learn, judge = extract(which)
            _check_labels(learn, judge, class_names, dataset, train_split, test_split)
            extraction = time.monotonic() - started
            for protocol in protocols:
                started = time.monotonic()
                answer = protocol.predict(learn, judge, len(class_names))
                top1, top5 = top_k_accuracy(answer.classes, judge.labels)
                yield Evaluation(
                    protocol=f"{protocol.name}/{which}" if which else protocol.name,
                    dataset=dataset,
                    train_split=train_split,
                    test_split=test_split,
                    top1=top1,
                    top5=top5,
                    num_train=learn.num_examples,
                    num_test=judge.num_examples,
                    step=step,
                    seconds=round(extraction + time.monotonic() - started, 3),
                    notice=answer.notice,
                )

    return run()


def check_splits(
    train: Source,
    test: Source,
    protocols: Sequence[EvaluationProtocol],
    dataset: str,
    train_split: str,
    test_split: str,
) -> tuple[str, ...]:
    """Return the class names of two splits that go together, before an image is read.

    Raises:
        UserError: a split has no labels, the classes differ or are fewer than two, or a protocol
            cannot learn from so few images.
    """
    for split, source in ((train_split, train), (test_split, test)):
        if not source.class_names:
            raise UserError(
                f"--dataset={dataset}: split {split!r} has no labels, and evaluation needs them; "
                "name a labelled dataset (for folder:PATH, one subfolder per class)"
            )
    class_names = tuple(train.class_names or ())
    if class_names != tuple(test.class_names or ()):
        raise UserError(
            f"--dataset={dataset}: splits {train_split!r} and {test_split!r} have different "
            "classes; choose splits of one labelling"
        )
    if len(class_names) < 2:
        raise UserError(
            f"--dataset={dataset} has the single class {class_names[0]!r}: any answer would be "
            "right; name a dataset with two classes or more"
        )
    for protocol in protocols:
        protocol.check(train.num_examples)
    return class_names


def _check_labels(
    train: Features,
    test: Features,
    class_names: tuple[str, ...],
    dataset: str,
    train_split: str,
    test_split: str,
) -> None:
    """Raise UserError where the labels that came with the images cannot be learned or judged."""
    for split, features in ((train_split, train), (test_split, test)):
        if (features.labels < 0).any():
            raise UserError(
                f"--dataset={dataset}: split {split!r} holds images without a label; choose a "
                "split in which every image has one"
            )
    if len(np.unique(train.labels)) < 2:
        raise UserError(
            f"--train_split={train_split} holds the single class "
            f"{class_names[train.labels[0]]!r}; take a split with two classes or more "
            "(a slice of sorted data may hold one only)"
        )
    unknown = np.setdiff1d(test.labels, train.labels)
    if len(unknown):
        raise UserError(
            f"--train_split={train_split} lacks class {class_names[unknown[0]]!r}, which "
            f"{test_split!r} has ({len(unknown)} such classes); take a larger split to learn from"
        )
