"""Runs a notebook from its first cell to its last, and keeps what it shows.

python docs/run_notebook.py docs/quickstart.ipynb [OUTPUT]

It runs in its own directory, or in OUTPUT's. A cell that fails ends it, and nothing is written.
What programs say on stderr is not kept: TensorFlow's notes on the machine that it ran on.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

source = Path(sys.argv[1])
output = Path(sys.argv[-1])
notebook = nbformat.read(source, as_version=4)
client = NotebookClient(
    notebook,
    timeout=1800,  # seconds for a cell
    coalesce_streams=True,
    record_timing=False,
    resources={"metadata": {"path": output.parent}},
)
client.execute()
for cell in notebook.cells:
    if cell.cell_type == "code":
        cell.outputs = [kept for kept in cell.outputs if kept.get("name") != "stderr"]
nbformat.write(notebook, output)
