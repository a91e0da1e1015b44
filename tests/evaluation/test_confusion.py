"""The confusion matrix as tables and picture, whatever the classes are called."""

import csv

import numpy as np
from PIL import Image

from simclr_tf.evaluation.results import (
    confusion_image,
    write_average_precisions,
    write_confusion,
    write_per_class,
)

MATRIX = np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]])
NAMES = ("cat, tabby", "=HYPERLINK(1)", "$\\frac{1}{$ <script>")


def _read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_tables_hold_counts_and_accuracy(tmp_path):
    write_confusion(tmp_path, MATRIX, NAMES, "knn $x$")
    write_per_class(tmp_path, MATRIX, NAMES)
    safe = ["cat, tabby", "'=HYPERLINK(1)", "$\\frac{1}{$ <script>"]
    assert _read(tmp_path / "confusion.csv") == [
        ["true class", *safe],
        *([name, *map(str, row)] for name, row in zip(safe, MATRIX.tolist(), strict=True)),
    ]
    assert _read(tmp_path / "per_class.csv") == [
        ["class", "images", "accuracy"],
        [safe[0], "10", "0.8000"],
        [safe[1], "4", "0.7500"],
        [safe[2], "0", ""],
    ]


def test_classes_of_several_labels_have_their_average_precision(tmp_path):
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]])
    scores = np.array([[3.0, 1, 0], [2, 3, 0], [1, 2, 0]])
    write_average_precisions(tmp_path, scores, labels, NAMES)
    header, *rows = _read(tmp_path / "per_class.csv")
    assert header == ["class", "images", "average precision"]
    assert [row[1:] for row in rows] == [["2", "1.0000"], ["2", "1.0000"], ["0", ""]]
    # The image that lacks the class scores above one that has it: 6 levels at 1, 5 at 2/3.
    write_average_precisions(tmp_path, scores[[0, 2, 1]], labels, NAMES)
    assert _read(tmp_path / "per_class.csv")[1][2] == f"{(6 + 5 * 2 / 3) / 11:.4f}"


def test_picture_shows_the_matrix(tmp_path):
    write_confusion(tmp_path, MATRIX, NAMES, "title")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert min(picture.size) > 200
    drawn, diagonal = confusion_image(MATRIX, NAMES), confusion_image(np.eye(3, dtype=int), NAMES)
    assert drawn.dtype == np.uint8 and drawn.shape[2] == 3
    assert (drawn != diagonal).any()


def test_many_classes_have_a_picture(tmp_path):
    names = [f"class {i}" for i in range(300)]
    assert confusion_image(np.eye(300, dtype=int), names).shape[0] < 3000
