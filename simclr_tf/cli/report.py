"""Write an HTML report of a run, or compare runs.

The file needs no network. The report of a run shows results next to baselines, metric curves,
views, a map of the embedding, nearest neighbors, the worst positive pairs, near-duplicates, classes
and settings; a comparison shows results, curves and differing settings. docs/report.md describes
how each part is computed.

  simclr-tf report --model_dir=runs/a --map=umap
  simclr-tf report --runs=runs/a,runs/b --output=comparison.html
"""

from absl import flags

from simclr_tf.cli.flags import define_options, explicit_options, warn_ignored_flags
from simclr_tf.errors import UserError
from simclr_tf.options import OptionSet, option_fields, split_commas
from simclr_tf.reporting.options import ReportOptions

_OPTIONS = [OptionSet.of(ReportOptions)]


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    for name, text in (
        ("model_dir", "Run directory; the report uses its newest checkpoint."),
        ("runs", "Two or more run directories to compare, comma-separated; requires output."),
        ("output", "HTML file to write. Default: RUN/report.html."),
    ):
        flags.DEFINE_string(name, None, text, flag_values=values)
    groups = {"Input": ["model_dir", "runs"], **define_options(values, _OPTIONS)}
    return groups | {"Output": ["output"]}


def run(values: flags.FlagValues) -> None:
    if bool(values.model_dir) == bool(values.runs):
        raise UserError("expected either --model_dir=RUN or --runs=RUN,RUN")
    runs = split_commas(values.runs or "")
    if values.runs and (len(runs) < 2 or not values.output):
        raise UserError("--runs requires two or more runs and --output=FILE")
    options = ReportOptions(**explicit_options(values, _OPTIONS))

    from simclr_tf.reporting import report_run, report_runs

    if runs:
        warn_ignored_flags(values, [field.name for field in option_fields(ReportOptions)])
        report_runs(runs, values.output)
    else:
        report_run(values.model_dir, options, values.output)
