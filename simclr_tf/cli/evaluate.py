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

from simclr_tf.cli.flags import Groups, define_options, explicit_options
from simclr_tf.evaluation.options import EvalOptions, EvalSource
from simclr_tf.options import OptionSet, make_group

_OPTION_SETS = (OptionSet.of(EvalSource), OptionSet.of(EvalOptions))


def define(values: flags.FlagValues) -> Groups:
    return define_options(values, _OPTION_SETS)


def run(values: flags.FlagValues) -> None:
    explicit = explicit_options(values, _OPTION_SETS)
    source, options = make_group(EvalSource, explicit), make_group(EvalOptions, explicit)
    source.check(options)

    from simclr_tf.evaluation.evaluate import check_runs, evaluate_run, evaluate_saved_model
    from simclr_tf.evaluation.run_table import format_run_table
    from simclr_tf.exporter.export_run import export_run
    from simclr_tf.runs.results_file import format_results, read_evaluations
    from simclr_tf.training.tasks import train_supervised_baseline

    if source.encoder:
        evaluate_saved_model(source.encoder, source.output, options)
        if source.table:
            records = read_evaluations(Path(source.output) / "evaluations.json")
            print(f"\n{format_results(records, markdown=True)}")
        return
    if options.protocol_names:
        check_runs(source.model_dirs)
        for model_dir in source.model_dirs:
            evaluate_run(model_dir, options, train_supervised=train_supervised_baseline)
            if options.save_classifier:
                export_run(model_dir)
    if source.table:
        print(f"\n{format_run_table(source.model_dirs)}")
    elif not options.save_classifier:
        print(f"next: simclr-tf export --model_dir={source.model_dirs[0]}")
