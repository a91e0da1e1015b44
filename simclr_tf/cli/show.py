"""Show a run in the terminal: progress, latest metrics and evaluations.

simclr-tf show RUN
simclr-tf show RUN --metric=knn_top1
"""

import json
from pathlib import Path

from absl import flags

from simclr_tf.errors import UserError

POSITIONAL_DEFAULT = ""


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    flags.DEFINE_string(
        "metric",
        "loss",
        "Metric of metrics.jsonl whose first, last, minimum and maximum are shown.",
        flag_values=values,
    )
    flags.DEFINE_boolean("json", False, "Print JSON with all values.", flag_values=values)
    return {"Output": ["metric", "json"]}


def run(values: flags.FlagValues, path: str) -> None:
    if not path:
        raise UserError(
            "simclr-tf show: expected a run directory, got none. Fix: name it, such as "
            "simclr-tf show runs/quickstart"
        )

    from simclr_tf.runs.listing import format_run_details, read_run_details

    details = read_run_details(Path(path), values.metric)
    print(json.dumps(details.to_json(), indent=1) if values.json else format_run_details(details))
