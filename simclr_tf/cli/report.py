"""Write an HTML report of a run, or compare runs.

The file needs no network. The report of a run shows results next to baselines, metric curves,
views, a map of the embedding, nearest neighbors, the worst positive pairs, near-duplicates, classes
and settings; a comparison shows results, curves and differing settings. docs/report.md describes
how each part is computed.

  simclr-tf report --model_dir=runs/a --map=umap
  simclr-tf report --runs=runs/a,runs/b --output=comparison.html
"""

from absl import flags

from simclr_tf.api.results import report
from simclr_tf.cli.flags import Groups, define_command, explicit_options, warn_ignored_flags


def define(values: flags.FlagValues) -> Groups:
    inputs = {
        "model_dir": "Run directory; the report uses its newest checkpoint.",
        "runs": "Two or more run directories to compare, comma-separated; requires output.",
    }
    output = {"output": "HTML file to write. Default: RUN/report.html."}
    return define_command(values, report.option_sets, inputs, output)


def run(values: flags.FlagValues) -> None:
    explicit = explicit_options(values, report.option_sets)
    if values.runs:
        warn_ignored_flags(values, explicit)
    report(values.model_dir, runs=values.runs, output=values.output, **explicit)
