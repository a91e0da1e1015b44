"""metrics.jsonl, read and cut back."""

import json

import pytest

from simclr_tf.errors import UserError
from simclr_tf.runs.metrics_log import has_finite_value, read_metrics, truncate_metrics


def test_rows_after_a_step_and_a_cut_off_line_are_removed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    truncate_metrics(path, 5)
    assert not path.exists() and read_metrics(path) == []
    rows = [{"step": step, "epoch": step / 3, "loss": 0.1 * step} for step in range(1, 6)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text + '{"step": 6, "ep', encoding="utf-8")
    assert read_metrics(path) == rows
    truncate_metrics(path, 3)
    assert path.read_text(encoding="utf-8") == "".join(text.splitlines(keepends=True)[:3])


@pytest.mark.parametrize("line", ["{", "[1]", '{"step": 1}', "null"])
def test_a_damaged_line_is_named_and_nothing_is_removed(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "epoch": 1.0}}\n{line}\n', encoding="utf-8")
    before = path.read_bytes()
    for use in (read_metrics, lambda path: truncate_metrics(path, 0)):
        with pytest.raises(UserError, match="damaged in line 2"):
            use(path)
    assert path.read_bytes() == before


def test_only_numbers_are_figures():
    row = {"a": 1, "b": 0.5, "c": float("nan"), "d": float("inf"), "e": None, "f": "x"}
    assert [name for name in "abcdefg" if has_finite_value(row, name)] == ["a", "b"]
