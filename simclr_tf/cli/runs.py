"""List runs: state, progress, best probe, size.

  simclr-tf runs [DIR]

Lists all runs in DIR and below it; the default is `runs`. A run is running, done, interrupted (run
its command again to resume) or failed; the reason is printed below the table.
"""

import dataclasses
import json
from pathlib import Path

from absl import flags

POSITIONAL_DEFAULT = "runs"


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    flags.DEFINE_boolean("json", False, "Print a JSON list.", flag_values=values)
    return {"Output": ["json"]}


def run(values: flags.FlagValues, directory: str) -> None:
    from simclr_tf.runs.listing import find_runs, format_runs, summarize_run

    summaries = [summarize_run(path) for path in find_runs(Path(directory))]
    if values.json:
        print(json.dumps([dataclasses.asdict(summary) for summary in summaries], indent=1))
    elif summaries:
        print(format_runs(summaries))
    else:
        print(f"no runs in {directory}")
