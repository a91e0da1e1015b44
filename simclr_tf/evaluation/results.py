"""Where figures go as soon as they are known: evaluations.json, pictures, TensorBoard, the user."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simclr_tf.evaluation.metrics import (
    METRICS,
    confusion_matrix,
    top_k,
    voc07_mean_average_precision,
)
from simclr_tf.evaluation.protocols import AffineClassifier
from simclr_tf.runs.results_file import Record, append_evaluations, format_results
from simclr_tf.utils.files import atomic_write, slugify, truncate_filename, write_csv


@dataclass(frozen=True)
class EvalContext:
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


def make_evaluation(
    about: EvalContext, /, scores: np.ndarray, labels: np.ndarray, **rest: Any
) -> Evaluation:
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


_MOST_CLASSES = 1000  # of which a confusion matrix is written


class ResultWriter:
    """Writes figures into a run directory (or another).

    Args:
        directory: gets evaluations.json, tensorboard/ and evaluations/STEP-DATASET-…-PROTOCOL-…/
            with per_class.csv and, where an image has one of up to 1,000 classes, confusion.csv and
            confusion.png.
        say: takes the lines for the user.
    """

    def __init__(self, directory: Path, say: Callable[[str], None]):
        self._directory, self._say = directory, say
        self._file = directory / "evaluations.json"
        self._writer: tf.summary.SummaryWriter | None = None
        self._records: list[Record] = []

    def add(self, evaluation: Evaluation, class_names: Sequence[str]) -> None:
        """Keeps a figure, and shows it; `class_names` are those of its scores."""
        record = evaluation.record()
        self._records.append(record)
        append_evaluations(self._file, self._records[-1:])  # what is shown is there to stay
        if evaluation.notice:
            self._say(f"note: {evaluation.notice}")
        name = _name(record)
        self._say(
            f"{name}: {evaluation.metric} {evaluation.value:.4f} ({evaluation.seconds:.1f} s)"
        )
        # One writer: each makes a file of its own.
        directory = str(self._directory / "tensorboard")
        self._writer = self._writer or tf.summary.create_file_writer(directory)
        tag = f"evaluation/{_about(record)}"
        place = result_dir(self._directory, record)
        scores, labels = evaluation.scores, evaluation.labels
        with self._writer.as_default(step=evaluation.step):
            tf.summary.scalar(tag, evaluation.value)
            if labels.ndim == 2:
                write_average_precisions(place, scores, labels, class_names)
            elif len(class_names) > _MOST_CLASSES:
                write_per_class(
                    place, confusion_matrix(scores, labels, len(class_names)), class_names
                )
                self._say(f"note: no confusion matrix is drawn of {len(class_names):,} classes")
            else:
                matrix = confusion_matrix(scores, labels, len(class_names))
                title = f"{name}: {evaluation.dataset}, {evaluation.metric} {evaluation.value:.1%}"
                write_per_class(place, matrix, class_names)
                write_confusion(place, matrix, class_names, title)
                image = confusion_image(matrix, class_names)
                tf.summary.image(f"{tag}/confusion", image[tf.newaxis])
        self._writer.flush()

    def close(self) -> None:
        """Shows the table of what was added."""
        self._say(f"\n{format_results(self._records)}\n\nwritten to {self._file}")


def result_dir(directory: Path, record: Record) -> Path:
    """Return the directory of the tables and pictures of a figure."""
    about = f"{record['step']}-{_about(record).replace('/', '-')}"
    return directory / "evaluations" / truncate_filename(about)


def _name(record: Record) -> str:
    return record["protocol"] + (f" ({record['setting']})" if record["setting"] else "")


def _about(record: Record) -> str:
    """What a figure is of, as part of a path: DATASET-TRAIN-TEST/PROTOCOL-N-images."""
    data = (record["dataset"], record["train_split"], record["test_split"])
    protocol = re.sub(r"[^\w.]+", "-", _name(record)).strip("-")
    return f"{'-'.join(map(slugify, data))}/{protocol}-{record['num_train']}-images"


CONFUSION_FILE = "confusion.csv"
PER_CLASS_FILE = "per_class.csv"

_MOST_NUMBERS = 20  # classes up to which the cells' values can be read
_MOST_NAMES = 60  # classes up to which each has its name


def write_confusion(
    directory: Path, matrix: np.ndarray, class_names: Sequence[str], title: str
) -> None:
    """Write confusion.csv and confusion.png into a directory.

    In the tables a name that a spreadsheet would take for a formula has an apostrophe before it.

    Args:
        directory: made where it does not exist.
        matrix: int [C, C], how many images of the row's class are taken for the column's.
        class_names: of both.
        title: of the picture.
    """
    rows = [[name, *counts] for name, counts in zip(class_names, matrix.tolist(), strict=True)]
    write_csv(directory / CONFUSION_FILE, [["true class", *class_names], *rows])
    file = io.BytesIO()
    _draw(matrix, class_names, title).print_png(file)
    atomic_write(directory / "confusion.png", file.getvalue())


def write_per_class(directory: Path, matrix: np.ndarray, class_names: Sequence[str]) -> None:
    """Write per_class.csv: of every class the number of images and the share that is found."""
    images = matrix.sum(axis=1)
    right = matrix.diagonal()
    shares = [f"{r / n:.4f}" if n else "" for r, n in zip(right, images, strict=True)]
    _write_per_class(directory, class_names, images, "accuracy", shares)


def write_average_precisions(
    directory: Path, scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> None:
    """Write per_class.csv of labels [M, C]: of every class its images and average precision."""
    images = (labels > 0).sum(axis=0)
    found = [
        f"{voc07_mean_average_precision(scores[:, [i]], labels[:, [i]]):.4f}" if n else ""
        for i, n in enumerate(images)
    ]
    _write_per_class(directory, class_names, images, "average precision", found)


def _write_per_class(
    directory: Path, class_names: Sequence[str], images: np.ndarray, what: str, values: list[str]
) -> None:
    rows = zip(class_names, images.tolist(), values, strict=True)
    write_csv(directory / PER_CLASS_FILE, [["class", "images", what], *rows])


def confusion_image(matrix: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Return the picture as uint8 [H, W, 3]."""
    canvas = _draw(matrix, class_names, "")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw(matrix: np.ndarray, class_names: Sequence[str], title: str) -> FigureCanvasAgg:
    count = len(class_names)
    side = min(14.0, 4.0 + 0.35 * count)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, label="share of the true class", shrink=0.8)
    ticks = range(0, count, -(-count // _MOST_NAMES))
    names = [class_names[i] for i in ticks]
    # Names and titles are strangers': a dollar sign is no formula.
    axes.set_xticks(ticks, names, rotation=90, parse_math=False)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    axes.set_title(title, parse_math=False, fontsize="medium")
    if count <= _MOST_NUMBERS:
        for row in range(count):
            for column in range(count):
                share = shares[row, column]
                colour = "white" if share > 0.5 else "black"
                axes.text(
                    column, row, f"{share:.0%}", ha="center", va="center", fontsize=7, color=colour
                )
    return canvas
