"""Evaluate an encoder with frozen features.

Protocols are fitted to the labeled training split and predict the test split, next to baselines
on the same images. Dataset and splits default to the run's. Results are written to
evaluations.json; features are cached in the run directory, so that an interrupted command resumes.
docs/evaluation.md defines the protocols.

  simclr-tf evaluate --model_dir=runs/a --protocols=knn,logistic --baselines=pca,random
  simclr-tf evaluate --model_dir=runs/a,runs/b,runs/c --protocols= --table
"""

from pathlib import Path

from absl import flags

from simclr_tf.api.results import evaluate
from simclr_tf.cli.flags import Groups, define_command, explicit_options
from simclr_tf.evaluation.options import EvalOptions, EvalSource
from simclr_tf.options import OptionSet, make_group
from simclr_tf.utils.paths import shell_join

_SOURCE = (OptionSet.of(EvalSource),)


def define(values: flags.FlagValues) -> Groups:
    return define_command(values, (*_SOURCE, *evaluate.option_sets))


def run(values: flags.FlagValues) -> None:
    source = make_group(EvalSource, explicit_options(values, _SOURCE))
    explicit = explicit_options(values, evaluate.option_sets)
    options = make_group(EvalOptions, explicit)
    source.check(options)
    if options.protocol_names:
        evaluate(source.model_dirs, encoder=source.encoder, output=source.output, **explicit)
    if source.table and source.encoder:
        from simclr_tf.runs.results_file import format_results, read_evaluations

        records = read_evaluations(Path(source.output) / "evaluations.json")
        print(f"\n{format_results(records, markdown=True)}")
    elif source.table:
        from simclr_tf.evaluation.run_table import format_run_table

        print(f"\n{format_run_table(source.model_dirs)}")
    elif source.model_dirs and not options.save_classifier:
        first = source.model_dirs[0]
        print(f"next: {shell_join(['simclr-tf', 'export', f'--model_dir={first}'])}")
