"""Run a notebook and store its outputs.

python docs/run_notebook.py docs/quickstart.ipynb [OUTPUT]

The notebook runs in its own directory, or in that of OUTPUT. If a cell fails, nothing is written.
Output on stderr is discarded, because it describes the machine.
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
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
nbformat.write(notebook, output)
