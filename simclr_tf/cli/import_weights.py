"""Create a run from weights that the reference implementation trained.

Takes one of the published SavedModels, or a checkpoint of the authors' TF2 code, and derives depth,
width, selective kernels and projection head from the shapes of its variables, all of which must be
used. The run can be exported, evaluated, fine-tuned and pretrained from like any other.

  simclr-tf import --checkpoint=r50_1x_sk0/saved_model --model_dir=runs/r50
"""

from absl import flags

from simclr_tf.api.results import import_weights
from simclr_tf.cli.flags import Groups, define_command, explicit_options


def define(values: flags.FlagValues) -> Groups:
    checkpoint = "SavedModel directory, or a TensorFlow checkpoint (prefix or directory)."
    inputs, outputs = {"checkpoint": checkpoint}, {"model_dir": "Run directory to create."}
    return define_command(values, import_weights.option_sets, inputs, outputs)


def run(values: flags.FlagValues) -> None:
    explicit = explicit_options(values, import_weights.option_sets)
    import_weights(values.checkpoint, values.model_dir, **explicit)
