"""Write what a run has learned as one HTML file, or compare several runs.

The file needs no network. Of one run it shows figures beside baselines, curves, views, a map of the
embedding, nearest neighbours, the worst positive pairs, near-duplicates, classes, and how to make
the run again; of several their figures, curves and differing settings. docs/report.md says what is
computed from what.

  simclr-tf report --model_dir=runs/a --map=umap
  simclr-tf report --runs=runs/a,runs/b --output=comparison.html
"""

from typing import Any

from absl import flags

from simclr_tf.cli.flags import warn_ignored_flags
from simclr_tf.errors import UserError
from simclr_tf.options import split_commas

_OF_ONE = (
    *("dataset", "train_split", "eval_split", "data_dir", "skip_unreadable"),
    *("map", "images", "map_images"),
)


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    def string(name, default, text):
        flags.DEFINE_string(name, default, text, flag_values=values)

    def integer(name, default, text, high=None):
        flags.DEFINE_integer(name, default, text, 5, high, flag_values=values)

    string("model_dir", None, "The run whose newest checkpoint is looked at.")
    string("runs", None, "Several runs, with commas between them, to compare; needs output.")
    string("output", None, "The file to write; empty: RUN/report.html.")
    string("dataset", "", "The images that are looked at; the run's own if empty.")
    string("train_split", "", "What is searched for neighbours; the run's, or train, if empty.")
    string("eval_split", "", "What the map is of, where it exists; the run's, or test, if empty.")
    string("data_dir", "", "Where TFDS datasets are prepared; the run's if empty.")
    flags.DEFINE_boolean(
        "skip_unreadable",
        False,
        "Leave files that are not images out; on where the run has it.",
        flag_values=values,
    )
    string("map", "pca", "pca, or another map beside it: umap (the extra umap) or tsne.")
    integer("images", 10_000, "The most images of a split that are looked at, evenly spaced.")
    integer(
        "map_images",
        2_000,
        "The most of these that the map and the positive pairs are of.",
        10_000,
    )
    return {
        "What": ["model_dir", "runs", "output"],
        "Data": ["dataset", "train_split", "eval_split", "data_dir", "skip_unreadable"],
        "How": ["map", "images", "map_images"],
    }


def run(values: flags.FlagValues) -> None:
    if bool(values.model_dir) == bool(values.runs):
        raise UserError("name what to report: either --model_dir=RUN or --runs=RUN,RUN")
    runs = split_commas(values.runs or "")
    if values.runs and (len(runs) < 2 or not values.output):
        raise UserError("--runs compares two runs or more, and needs --output=FILE")
    if values.output and "://" in values.output:
        raise UserError(
            f"--output={values.output}: must be a file of a file system; copy it there afterwards"
        )

    from simclr_tf.reporting import ReportOptions, report_run, report_runs

    if runs:
        warn_ignored_flags(values, _OF_ONE)
        report_runs(runs, values.output)
        return
    options: dict[str, Any] = {name: values[name].value for name in _OF_ONE}
    report_run(values.model_dir, ReportOptions(**options), values.output)
