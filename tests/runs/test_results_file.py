"""evaluations.json and its tables."""

import json
import threading

import pytest

from simclr_tf.errors import UserError
from simclr_tf.runs.results_file import (
    append_evaluations,
    format_results,
    group_into_tables,
    read_evaluations,
)


def _record(protocol, top1, **changes):
    return {
        "protocol": protocol,
        "dataset": "shapes",
        "train_split": "train",
        "test_split": "test",
        "top1": top1,
        "top5": 1.0,
        "num_train": 100,
        "num_test": 20,
        "step": 7,
        "seconds": 1.5,
        **changes,
    }


def test_append_evaluations_preserves_earlier_records(tmp_path):
    path = tmp_path / "run" / "evaluations.json"
    assert read_evaluations(path) == []
    append_evaluations(path, [_record("knn", 0.5)])
    append_evaluations(path, [_record("logistic", 0.25), _record("knn/pca", 0.125)])
    assert [r["protocol"] for r in json.loads(path.read_text())] == ["knn", "logistic", "knn/pca"]
    assert read_evaluations(path)[0] == _record("knn", 0.5)
    assert [p.name for p in path.parent.iterdir()] == ["evaluations.json"]


@pytest.mark.parametrize(
    "content", [b'[{"protocol": "knn"', b'{"knn": 1}', b"[1]", b"\xff\xfe", b""]
)
def test_append_evaluations_refuses_a_damaged_file(tmp_path, content):
    path = tmp_path / "evaluations.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"evaluations\.json"):
        append_evaluations(path, [_record("knn", 0.5)])
    assert path.read_bytes() == content


def test_append_evaluations_replaces_a_record_that_differs_in_seconds(tmp_path):
    path = tmp_path / "evaluations.json"
    append_evaluations(path, [_record("knn", 0.5), _record("knn", 0.6)])
    append_evaluations(path, [{**_record("knn", 0.5), "seconds": 9.0}])
    assert [record["top1"] for record in read_evaluations(path)] == [0.6, 0.5]
    assert read_evaluations(path)[-1]["seconds"] == 9.0


def test_append_evaluations_refuses_nan(tmp_path):
    path = tmp_path / "evaluations.json"
    append_evaluations(path, [_record("knn", 0.5)])
    with pytest.raises(ValueError):
        append_evaluations(path, [_record("knn", float("nan"))])
    assert read_evaluations(path) == [_record("knn", 0.5)]


RECORDS = [
    _record("knn", 0.1),
    _record("knn", 0.876),
    _record("logistic", 1.0),
    _record("knn/pca", 0.2149),
    _record("logistic/random", 0.15),
]


@pytest.mark.parametrize("markdown", [False, True])
def test_format_results_has_a_row_per_protocol_and_a_column_per_encoder(markdown):
    title, *lines = format_results(RECORDS, markdown).replace("|", " ").splitlines()
    assert all(part in title for part in ("shapes", "step 7", "100 images of train", "20 of test"))
    assert [line.split() for line in lines if line.strip(" -:")] == [
        ["top-1", "%", "encoder", "pca", "random"],
        ["knn", "87.6", "21.5", "–"],
        ["logistic", "100.0", "–", "15.0"],
    ]


@pytest.mark.parametrize("key", ["dataset", "train_split", "test_split", "step", "metric"])
def test_group_into_tables_separates_datasets_splits_steps_and_metrics(key):
    other = _record("knn", 0.5, value=0.7, **{key: 8 if key == "step" else "other"})
    first, second = group_into_tables([*RECORDS, other])
    assert [row[1] for row in first.rows[1:]] == ["87.6", "100.0"]
    assert [row[1:] for row in second.rows[1:]] == [["70.0"]]
    assert second.metric == ("other %" if key == "metric" else "top-1 %")


def test_tables_distinguish_settings_and_label_counts():
    records = [
        _record("knn", 0.1, setting="k=5, T=0.1", metric="top-1", value=0.1),
        _record("knn", 0.2, setting="k=20, T=0.1", metric="top-1", value=0.2),
        _record("logistic", 0.3, setting="L2=1, chosen of 45", metric="top-1", value=0.3),
        _record("finetune", 0.4, num_train=10),
    ]
    assert [row[0] for table in group_into_tables(records) for row in table.rows[1:]] == [
        *("knn (k=5, T=0.1)", "knn (k=20, T=0.1)", "logistic", "finetune (10 labels)")
    ]


def test_append_evaluations_is_safe_in_parallel(tmp_path):
    path = tmp_path / "evaluations.json"

    def add(worker):
        for number in range(20):
            append_evaluations(path, [_record("knn", 0.5, step=100 * worker + number)])

    threads = [threading.Thread(target=add, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_evaluations(path)) == 80
