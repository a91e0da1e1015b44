"""Where figures go as soon as they are known: evaluations.json, pictures, TensorBoard, the user."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf

from simclr_tf.evaluation.confusion import confusion_image, write_confusion
from simclr_tf.evaluation.evaluate import Evaluation
from simclr_tf.evaluation.metrics import confusion
from simclr_tf.evaluation.results import Record, append_evaluations, format_table

_MOST_CLASSES = 1000  # of which a confusion matrix is written


class Recorder:
    """Writes figures into a run directory (or another).

    Args:
        directory: gets evaluations.json, tensorboard/ and, for every protocol that answers with one
            class per image, evaluations/STEP-DATASET-PROTOCOL/ with confusion.csv, per_class.csv
            and confusion.png.
        say: takes the lines for the user.
    """

    def __init__(self, directory: Path, say: Callable[[str], None]):
        self._directory, self._say = directory, say
        self._file = directory / "evaluations.json"
        self._writer: tf.summary.SummaryWriter | None = None
        self._records: list[Record] = []

    def add(self, evaluation: Evaluation, class_names: Sequence[str]) -> None:
        """Keeps a figure, and shows it; `class_names` are those of its scores."""
        self._records.append(evaluation.record())
        append_evaluations(self._file, self._records[-1:])  # what is shown is there to stay
        if evaluation.notice:
            self._say(f"note: {evaluation.notice}")
        name = evaluation.protocol
        if evaluation.setting:
            name += f" ({evaluation.setting})"
        self._say(
            f"{name}: {evaluation.metric} {evaluation.value:.4f} ({evaluation.seconds:.1f} s)"
        )
        # One writer: each makes a file of its own.
        directory = str(self._directory / "tensorboard")
        self._writer = self._writer or tf.summary.create_file_writer(directory)
        tag = f"evaluation/{_plain(evaluation.dataset)}/{_plain(name)}"
        with self._writer.as_default(step=evaluation.step):
            tf.summary.scalar(tag, evaluation.value)
            scores, labels = evaluation.scores, evaluation.labels
            if len(class_names) <= _MOST_CLASSES and labels.ndim == 1:
                matrix = confusion(scores, labels, len(class_names))
                place = self._directory / "evaluations" / self._place(evaluation, name)
                title = f"{name}: {evaluation.dataset}, {evaluation.metric} {evaluation.value:.1%}"
                write_confusion(place, matrix, class_names, title)
                image = confusion_image(matrix, class_names)
                tf.summary.image(f"{tag}/confusion", image[tf.newaxis])
        self._writer.flush()

    def close(self) -> None:
        """Shows the table of what was added."""
        self._say(f"\n{format_table(self._records)}\n\nwritten to {self._file}")

    @staticmethod
    def _place(evaluation: Evaluation, name: str) -> str:
        labels = f"{evaluation.num_train}-labels"
        parts = (str(evaluation.step), evaluation.dataset, name, labels)
        return "-".join(_plain(part) for part in parts)


def _plain(name: str) -> str:
    """A name as part of a file's name: of `folder:SOME/PLACE` the last part alone."""
    last = name.rstrip("/").rpartition("/")[2] if name.startswith("folder:") else name
    return re.sub(r"[^\w.]+", "-", last).strip("-")
