"""Show a run in the terminal: its curve and its evaluations.

  simclr-tf show RUN
  simclr-tf show RUN --metric=knn_top1

Any figure of metrics.jsonl can be the curve.
"""

import json
import shutil
from pathlib import Path

from absl import flags

from simclr_tf.errors import UserError

POSITIONAL_DEFAULT = ""  # unless given
_WIDEST = 100


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    flags.DEFINE_string("metric", "loss", "The figure that is drawn.", flag_values=values)
    flags.DEFINE_boolean("json", False, "Print all of it for programs.", flag_values=values)
    return {"Output": ["metric", "json"]}


def run(values: flags.FlagValues, path: str) -> None:
    if not path:
        raise UserError("name the run, as in: simclr-tf show runs/quickstart")

    from simclr_tf.runs.show import as_json, show

    if values.json:
        print(json.dumps(as_json(Path(path), values.metric), indent=1))
    else:
        width = min(_WIDEST, max(24, shutil.get_terminal_size().columns))
        print(show(Path(path), values.metric, width))
