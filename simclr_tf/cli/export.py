"""Write the encoder as a SavedModel that any program can load.

Exports the newest checkpoint of a run to RUN/export/STEP (or to --output): a SavedModel that maps
images in [0, 1] to features, with a model card beside it. Using it needs nothing of this project.

  simclr-tf export --model_dir=runs/a
"""

from absl import flags

from simclr_tf.errors import UserError


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    flags.DEFINE_string("model_dir", None, "The run whose encoder is exported.", flag_values=values)
    flags.DEFINE_string(
        "output", None, "The SavedModel itself; empty: RUN/export/STEP.", flag_values=values
    )
    return {"What": ["model_dir"], "Where": ["output"]}


def run(values: flags.FlagValues) -> None:
    if not values.model_dir:
        raise UserError("--model_dir is missing: the run whose encoder is to be exported")

    from simclr_tf.export.runs import export_run

    export_run(values.model_dir, values.output)
