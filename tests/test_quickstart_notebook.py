"""The quickstart notebook runs from its first cell to its last."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = DOCS / "quickstart.ipynb"


def shown(path):
    """Yields (source, printed text, media types of other outputs) of every code cell."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            parts = [output.get("text") or output["data"] for output in cell["outputs"]]
            text = "".join("".join(part) for part in parts if isinstance(part, list))
            kinds = {kind for part in parts if isinstance(part, dict) for kind in part}
            yield "".join(cell["source"]), text, kinds - {"text/plain"}


def output_of(cells, call):
    (text,) = [text for source, text, _ in cells if call in source]
    return text


@pytest.mark.slow
def test_notebook_runs_and_its_stored_outputs_are_current(tmp_path):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    again = tmp_path / "quickstart.ipynb"
    done = subprocess.run(
        [sys.executable, DOCS / "run_notebook.py", NOTEBOOK, again],
        **{"capture_output": True, "text": True, "env": {**os.environ, "PATH": path}},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells, stored = list(shown(again)), list(shown(NOTEBOOK))
    # The stored outputs belong to these cells and are of the same kinds.
    assert [cell[::2] for cell in cells] == [cell[::2] for cell in stored]
    assert [bool(cell[1]) for cell in cells] == [bool(cell[1]) for cell in stored]
    assert sum(bool(kinds) for *_, kinds in cells) == 4

    run = tmp_path / "runs" / "notebook"
    assert "done: 781 steps" in output_of(cells, "st.pretrain(")
    (table,) = re.findall(r"^knn  .*$", output_of(cells, "run.evaluate("), re.MULTILINE)
    encoder, pca, random = map(float, table.split()[1:])
    assert encoder > pca + 10 > random + 10
    assert (run / "report.html").stat().st_size > 4e6
    assert (run / "export" / "781" / "saved_model.pb").is_file()
    (accuracies,) = [text for *_, text, _ in cells if text.startswith("pixels")]
    pixels, features = (float(line.split()[1]) for line in accuracies.splitlines())
    assert features > pixels + 10
