"""Which classes are taken for which: a confusion matrix as tables and as a picture."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simclr_tf.evaluation.metrics import average_precision_11
from simclr_tf.utils.files import atomic_write, write_csv

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
        f"{average_precision_11(scores[:, [i]], labels[:, [i]]):.4f}" if n else ""
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
