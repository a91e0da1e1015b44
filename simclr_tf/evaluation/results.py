"""Where figures go as soon as they are known: evaluations.json, pictures, TensorBoard, the user."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf

from simclr_tf.evaluation.confusion import (
    confusion_image,
    write_average_precisions,
    write_confusion,
    write_per_class,
)
from simclr_tf.evaluation.evaluate import Evaluation
from simclr_tf.evaluation.metrics import confusion
from simclr_tf.runs.results_file import Record, append_evaluations, format_results
from simclr_tf.utils.files import slugify, truncate_filename

_MOST_CLASSES = 1000  # of which a confusion matrix is written


class Recorder:
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
        place = place_of(self._directory, record)
        scores, labels = evaluation.scores, evaluation.labels
        with self._writer.as_default(step=evaluation.step):
            tf.summary.scalar(tag, evaluation.value)
            if labels.ndim == 2:
                write_average_precisions(place, scores, labels, class_names)
            elif len(class_names) > _MOST_CLASSES:
                write_per_class(place, confusion(scores, labels, len(class_names)), class_names)
                self._say(f"note: no confusion matrix is drawn of {len(class_names):,} classes")
            else:
                matrix = confusion(scores, labels, len(class_names))
                title = f"{name}: {evaluation.dataset}, {evaluation.metric} {evaluation.value:.1%}"
                write_per_class(place, matrix, class_names)
                write_confusion(place, matrix, class_names, title)
                image = confusion_image(matrix, class_names)
                tf.summary.image(f"{tag}/confusion", image[tf.newaxis])
        self._writer.flush()

    def close(self) -> None:
        """Shows the table of what was added."""
        self._say(f"\n{format_results(self._records)}\n\nwritten to {self._file}")


def place_of(directory: Path, record: Record) -> Path:
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
