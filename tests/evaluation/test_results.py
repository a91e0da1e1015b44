"""Result files: confusion matrices, per-class tables and their plots."""

import csv
import logging

import numpy as np
import pytest
from PIL import Image

from simclr_tf.errors import UserError
from simclr_tf.evaluation.results import (
    EvalContext,
    ResultWriter,
    make_evaluation,
    plot_confusion,
    read_confusion,
    result_dir,
    write_average_precisions,
    write_confusion,
    write_per_class,
)
from simclr_tf.runs.results_file import read_evaluations

MATRIX = np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]])
NAMES = ("cat, tabby", "=HYPERLINK(1)", "$\\frac{1}{$ <script>")


def _read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_confusion_tables_contain_counts_and_accuracy(tmp_path):
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
    matrix, names = read_confusion(tmp_path)
    np.testing.assert_array_equal(matrix, MATRIX)
    assert names == list(NAMES)
    with Image.open(tmp_path / "confusion.png") as image:
        assert min(image.size) > 200


def test_read_confusion_refuses_a_damaged_file(tmp_path):
    assert read_confusion(tmp_path) is None
    write_confusion(tmp_path, MATRIX, (*NAMES[:2], "\udcff"), "")  # a name that is not UTF-8
    assert read_confusion(tmp_path)[1][2] == "\udcff"
    path = tmp_path / "confusion.npz"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UserError, match=r"confusion\.npz: damaged"):
        read_confusion(tmp_path)


def test_per_class_table_of_several_labels_contains_average_precisions(tmp_path):
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]])
    scores = np.array([[3.0, 1, 0], [2, 3, 0], [1, 2, 0]])
    write_average_precisions(tmp_path, scores, labels, NAMES)
    header, *rows = _read(tmp_path / "per_class.csv")
    assert header == ["class", "images", "average precision"]
    assert [row[1:] for row in rows] == [["2", "1.0000"], ["2", "1.0000"], ["0", ""]]
    # The image that lacks the class scores above one that has it: 6 levels at 1, 5 at 2/3.
    write_average_precisions(tmp_path, scores[[0, 2, 1]], labels, NAMES)
    assert _read(tmp_path / "per_class.csv")[1][2] == f"{(6 + 5 * 2 / 3) / 11:.4f}"


def test_confusion_plot_shows_the_matrix():
    plot, diagonal = plot_confusion(MATRIX, NAMES), plot_confusion(np.eye(3, dtype=int), NAMES)
    assert plot.dtype == np.uint8 and plot.shape[2] == 3
    assert (plot != diagonal).any()
    names = [f"class {i}" for i in range(300)]
    assert plot_confusion(np.eye(300, dtype=int), names).shape[0] < 3000


def _evaluation(scores, labels):
    fields = {"protocol": "knn", "num_train": 8, "seconds": 1.0, "setting": "k=2"}
    context = EvalContext("shapes", "train", "test")
    return make_evaluation(context, scores, np.array(labels), warning="slow", **fields)


def test_writer_logs_results_and_warnings(tmp_path, caplog):
    caplog.set_level(logging.INFO, "simclr_tf")
    writer = ResultWriter(tmp_path)
    writer.add(_evaluation(np.eye(2, 1001), [0, 5]), [f"class {i}" for i in range(1001)])
    assert caplog.messages == [
        "note: slow",
        "knn (k=2): top-1 0.5000 on shapes test (1.0 s)",
        "note: no confusion matrix is written for 1,001 classes",
    ]
    files = result_dir(tmp_path, writer.records[0])
    assert [file.name for file in files.iterdir()] == ["per_class.csv"]
    writer.add(_evaluation(np.eye(2), [0, 1]), ("a", "b"))
    assert caplog.messages.count("note: slow") == 1  # a baseline repeats it


def test_writer_writes_a_record_before_it_logs_it(tmp_path, monkeypatch):
    def kill(record):
        raise KeyboardInterrupt

    monkeypatch.setattr(logging.getLogger("simclr_tf.evaluation.results"), "handle", kill)
    evaluation = _evaluation(np.eye(2), [0, 1])
    with pytest.raises(KeyboardInterrupt):
        ResultWriter(tmp_path).add(evaluation, ("a", "b"))
    (record,) = read_evaluations(tmp_path / "evaluations.json")
    assert record == evaluation.record()
