"""Write the encoder in a format that other programs load.

Exports a checkpoint of a run to RUN/export/STEP (or to --output): a SavedModel that maps images in
[0, 1] to features, with a model card next to it. Programs that use it do not need this package.
docs/export.md shows how to load each format.

  simclr-tf export --model_dir=runs/a
  simclr-tf export --model_dir=runs/a --format=tflite_int8 --output=encoder.tflite
"""

from absl import flags

from simclr_tf.api.results import export
from simclr_tf.cli.flags import Groups, define_command, explicit_options


def define(values: flags.FlagValues) -> Groups:
    return define_command(values, export.option_sets, {"model_dir": "Run directory."})


def run(values: flags.FlagValues) -> None:
    export(values.model_dir, **explicit_options(values, export.option_sets))
