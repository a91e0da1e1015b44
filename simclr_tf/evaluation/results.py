"""Evaluation results: records, confusion matrices, plots and TensorBoard."""

import logging
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from simclr_tf.errors import UserError
from simclr_tf.evaluation.metrics import (
    METRIC_FUNCTIONS,
    confusion_matrix,
    top_k,
    voc07_mean_average_precision,
)
from simclr_tf.evaluation.protocols import AffineClassifier
from simclr_tf.runs.results_file import Record, append_evaluations, format_results
from simclr_tf.utils.figures import new_figure
from simclr_tf.utils.files import atomic_path, save_npz, slugify, truncate_filename, write_csv
from simclr_tf.utils.paths import printable

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

logger = logging.getLogger(__name__)

PER_CLASS_FILE = "per_class.csv"
_CONFUSION_FILE = "confusion.npz"
_MAX_CONFUSION_CLASSES = 1000
_MAX_ANNOTATED_CLASSES = 20
_MAX_TICK_LABELS = 60


@dataclass(frozen=True)
class EvalContext:
    """Data, encoder step and settings that the evaluations of an encoder share.

    >>> from simclr_tf.evaluation import EvalContext
    >>> EvalContext("shapes", "train", "test", seed=1).describe("k=20")
    'k=20, seed 1'

    Attributes:
        dataset: dataset name.
        train_split: split that protocols are fitted to.
        test_split: split that they predict.
        metric: one of METRICS, recorded as `value`.
        image_size: side length S of the encoder's images in pixels.
        step: training step of the encoder.
        batch_size: images per call of an encoder.
        seed: seed of the protocols.
        cache_dir: directory of the feature cache; None disables it.
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

    def describe(self, *parts: str) -> str:
        """Returns the `setting` of a record: `parts`, and the seed if it is not 0."""
        return ", ".join(filter(None, (*parts, f"seed {self.seed}" if self.seed else "")))


@dataclass(frozen=True)
class Evaluation:
    """A record of evaluations.json with the predictions behind it.

    `top1`, `top5` and `value`, which is of `metric`, are fractions in [0, 1]; with several labels
    per image, `top1` is the fraction of images whose best-scored class is one of them. `seconds` is
    the wall-clock time, including the extraction of features that were not cached.

    >>> import numpy as np
    >>> from simclr_tf.evaluation import EvalContext, make_evaluation
    >>> fields = dict(protocol="knn", num_train=5, seconds=0.1, setting="k=1")
    >>> context, labels = EvalContext("shapes", "train", "test"), np.array([0, 1])
    >>> make_evaluation(context, np.eye(2), labels, **fields).record()["top1"]
    1.0
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
    warning: str = field(default="", metadata={"record": False})
    classifier: AffineClassifier | None = field(default=None, metadata={"record": False})

    def record(self) -> dict[str, str | int | float]:
        """Returns the record for evaluations.json."""
        fields = self.__dataclass_fields__.values()
        return {f.name: getattr(self, f.name) for f in fields if f.metadata.get("record", True)}


def make_evaluation(
    context: EvalContext, /, scores: np.ndarray, labels: np.ndarray, **fields: Any
) -> Evaluation:
    """Returns the evaluation of scores [M, C] for images with these labels.

    >>> import numpy as np
    >>> from simclr_tf.evaluation import EvalContext, make_evaluation
    >>> context = EvalContext("shapes", "train", "test")
    >>> fields = dict(protocol="knn", num_train=5, seconds=0.1, setting="")
    >>> make_evaluation(context, np.eye(2), np.array([0, 0]), **fields).value
    0.5

    Scores are higher for more likely classes; labels are int [M], or [M, C] of 1, 0 and -1.
    `fields` are the other fields of `Evaluation`.
    """
    top1, top5 = top_k(scores, labels)
    return Evaluation(
        dataset=context.dataset,
        train_split=context.train_split,
        test_split=context.test_split,
        top1=top1,
        top5=top5,
        num_test=len(scores),
        step=context.step,
        metric=context.metric,
        value=METRIC_FUNCTIONS[context.metric](scores, labels),
        scores=scores,
        labels=labels,
        **fields,
    )


class ResultWriter:
    """Writes evaluations to a run directory as soon as they are computed.

    The directory gets evaluations.json, tensorboard/ and evaluations/STEP-DATASET-…-PROTOCOL-…/
    with per_class.csv and, for up to 1,000 classes and one label per image, confusion tables.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self._file = directory / "evaluations.json"
        self._summary_writer: tf.summary.SummaryWriter | None = None
        self._warnings: set[str] = set()
        self.records: list[Record] = []

    def add(self, evaluation: Evaluation, class_names: Sequence[str]) -> None:
        """Writes and logs an evaluation; `class_names` belong to its scores."""
        record = evaluation.record()
        self.records.append(record)
        append_evaluations(self._file, [record])  # before it is shown
        if evaluation.warning not in ("", *self._warnings):  # baselines have the same
            logger.warning(f"note: {evaluation.warning}")
            self._warnings.add(evaluation.warning)
        name, dataset = _display_name(record), printable(evaluation.dataset)
        logger.info(
            f"{name}: {evaluation.metric} {evaluation.value:.4f} on {dataset} "
            f"{evaluation.test_split} ({evaluation.seconds:.1f} s)"
        )
        # One writer, because each creates a file.
        self._summary_writer = self._summary_writer or tf.summary.create_file_writer(
            str(self._directory / "tensorboard")
        )
        tag = f"evaluation/{_result_path(record)}"
        path = result_dir(self._directory, record)
        with self._summary_writer.as_default(step=evaluation.step):
            tf.summary.scalar(tag, evaluation.value)
            if evaluation.labels.ndim == 2:
                write_average_precisions(path, evaluation.scores, evaluation.labels, class_names)
            else:
                matrix = confusion_matrix(evaluation.scores, evaluation.labels, len(class_names))
                write_per_class(path, matrix, class_names)
                if len(class_names) > _MAX_CONFUSION_CLASSES:
                    logger.warning(
                        f"note: no confusion matrix is written for {len(class_names):,} classes"
                    )
                else:
                    title = f"{name}: {dataset}, {evaluation.metric}"
                    title += f" {evaluation.value:.1%}"
                    write_confusion(path, matrix, class_names, title)
                    image = plot_confusion(matrix, class_names)
                    tf.summary.image(f"{tag}/confusion", image[tf.newaxis])
        self._summary_writer.flush()

    def log_table(self) -> None:
        """Logs the table of all added evaluations."""
        logger.info(f"\n{format_results(self.records)}\n\nwritten to {self._file}")


def result_dir(directory: Path, record: Record) -> Path:
    """Returns the directory of the tables and plots of a record."""
    name = f"{record['step']}-{_result_path(record).replace('/', '-')}"
    return directory / "evaluations" / truncate_filename(name)


def _display_name(record: Record) -> str:
    return record["protocol"] + (f" ({record['setting']})" if record["setting"] else "")


def _result_path(record: Record) -> str:
    """Returns DATASET-TRAIN-TEST/PROTOCOL-N-images."""
    data = (record["dataset"], record["train_split"], record["test_split"])
    protocol = re.sub(r"[^\w.]+", "-", _display_name(record)).strip("-")
    return f"{'-'.join(map(slugify, data))}/{protocol}-{record['num_train']}-images"


def write_confusion(
    directory: Path, matrix: np.ndarray, class_names: Sequence[str], title: str
) -> None:
    """Writes confusion.npz, confusion.csv and confusion.png of counts by true class (row)."""
    save_npz(directory / _CONFUSION_FILE, matrix=matrix, class_names=np.array(class_names))
    rows = [[name, *counts] for name, counts in zip(class_names, matrix.tolist(), strict=True)]
    write_csv(directory / "confusion.csv", [["true class", *class_names], *rows])
    with atomic_path(directory / "confusion.png") as temporary:
        _draw_confusion(matrix, class_names, title).print_png(temporary)


def read_confusion(directory: Path) -> tuple[np.ndarray, list[str]] | None:
    """Returns the confusion matrix [C, C] of a result directory and its class names, if any."""
    path = directory / _CONFUSION_FILE
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            matrix, names = file["matrix"], [str(name) for name in file["class_names"]]
        if matrix.shape != (len(names), len(names)):
            raise ValueError(f"shape {matrix.shape}, {len(names)} classes")
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged file ({error}). Fix: evaluate the run again") from None
    return matrix, names


def write_per_class(directory: Path, matrix: np.ndarray, class_names: Sequence[str]) -> None:
    """Writes per_class.csv with the number of images and the accuracy of each class."""
    images, correct = matrix.sum(axis=1), matrix.diagonal()
    _write_per_class(directory, class_names, images, "accuracy", lambda i: correct[i] / images[i])


def write_average_precisions(
    directory: Path, scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> None:
    """Writes per_class.csv for labels [M, C] with images and average precision of each class."""

    def precision(i: int) -> float:
        return voc07_mean_average_precision(scores[:, [i]], labels[:, [i]])

    images = (labels > 0).sum(axis=0)
    _write_per_class(directory, class_names, images, "average precision", precision)


def _write_per_class(
    directory: Path,
    class_names: Sequence[str],
    images: np.ndarray,
    metric: str,
    value: Callable[[int], float],
) -> None:
    values = [f"{value(i):.4f}" if count else "" for i, count in enumerate(images)]
    rows = zip(class_names, images.tolist(), values, strict=True)
    write_csv(directory / PER_CLASS_FILE, [["class", "images", metric], *rows])


def plot_confusion(matrix: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Returns a plot of a confusion matrix as uint8 [H, W, 3]."""
    canvas = _draw_confusion(matrix, class_names, "")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_confusion(
    matrix: np.ndarray, class_names: Sequence[str], title: str
) -> "FigureCanvasAgg":
    count = len(class_names)
    side = min(14.0, 4.0 + 0.35 * count)
    figure, canvas = new_figure(side + 1, side)
    axes = figure.add_subplot()
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="fraction of the true class", shrink=0.8)
    ticks = range(0, count, -(-count // _MAX_TICK_LABELS))
    # Names of folders may contain bytes that are not UTF-8.
    names = [class_names[i].encode(errors="backslashreplace").decode() for i in ticks]
    # A dollar sign in a class name does not start a formula.
    axes.set_xticks(ticks, names, rotation=90, parse_math=False)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title, parse_math=False, fontsize="medium")
    if count <= _MAX_ANNOTATED_CLASSES:
        for (row, column), fraction in np.ndenumerate(fractions):
            color = "white" if fraction > 0.5 else "black"
            text = f"{fraction:.0%}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    return canvas
