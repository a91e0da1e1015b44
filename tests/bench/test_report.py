"""Tables and their JSON."""

import json

from simclr_tf.bench.measure import HardwareInfo
from simclr_tf.bench.report import Report, table

MACHINE = HardwareInfo("Some CPU", 1, "2.0", ["Some GPU", "Some GPU"])


def test_columns_are_flush_right_and_a_remark_runs_on():
    rows = [["4096", "dense", "1.25"], ["8", "a remark as wide as it is"], ["9", "no"]]
    lines = table(["N", "form", "s"], rows)
    assert lines.splitlines() == [
        "   N   form     s",
        "----  -----  ----",
        "4096  dense  1.25",
        "   8  a remark as wide as it is",
        "   9  no",
    ]


def test_report_says_what_it_ran_on():
    report = Report(MACHINE, ["N"], [["3"]], ["A note."], [{"n": 3}])
    machine = "Some CPU, 1 core, Some GPU, Some GPU, TensorFlow 2.0"
    assert report.text().splitlines()[-2:] == ["A note.", machine]
    assert json.loads(report.to_json("any", {"repeats": 2})) == {
        "bench": "any",
        "options": {"repeats": 2},
        "machine": {
            "cpu": "Some CPU",
            "cores": 1,
            "tensorflow": "2.0",
            "gpus": ["Some GPU", "Some GPU"],
        },
        "notes": ["A note."],
        "results": [{"n": 3}],
    }
