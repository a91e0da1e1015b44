"""List runs: state, progress, best probe, size.

  simclr-tf runs [DIR]

All runs in DIR and below it; unless given, in runs. A run is running, done, interrupted (it goes on
with the command that started it) or failed, and below the table stands why. A ? says that it may
still run on a machine that cannot be seen from this one.
"""

import dataclasses
import json
from pathlib import Path

from absl import flags

POSITIONAL_DEFAULT = "runs"  # unless given


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    flags.DEFINE_boolean("json", False, "Print a list for programs.", flag_values=values)
    return {"Output": ["json"]}


def run(values: flags.FlagValues, directory: str) -> None:
    from simclr_tf.runs.listing import table
    from simclr_tf.runs.summary import find_runs, summarize

    summaries = [summarize(path) for path in find_runs(Path(directory))]
    if values.json:
        print(json.dumps([dataclasses.asdict(summary) for summary in summaries], indent=1))
    elif summaries:
        print(table(summaries))
    else:
        print(f"no runs in {directory}")
