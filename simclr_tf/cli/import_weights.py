"""Make a run of weights that the authors' TF2 code trained.

Takes one of their published SavedModels, or a checkpoint of their code, and reads depth, width, SK
and projection head off its shapes; every variable must find its place, and none may be left over.
The run can be exported, evaluated, fine-tuned and pretrained from like any other.

  simclr-tf import --checkpoint=r50_1x_sk0/saved_model --model_dir=runs/r50
"""

from absl import flags

from simclr_tf.errors import UserError
from simclr_tf.weights_import.options import ImportOptions


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    flags.DEFINE_string(
        "checkpoint",
        None,
        "A SavedModel (its directory), or a TensorFlow checkpoint (PREFIX, or its directory).",
        flag_values=values,
    )
    flags.DEFINE_string("model_dir", None, "The run directory to make.", flag_values=values)
    flags.DEFINE_integer(
        "image_size",
        None,
        "Side in pixels of the images it is for; unless given 224, or 32 with the CIFAR stem.",
        flag_values=values,
    )
    return {"What": ["checkpoint", "image_size"], "Where": ["model_dir"]}


def run(values: flags.FlagValues) -> None:
    if not values.checkpoint:
        raise UserError("--checkpoint is missing: the SavedModel or checkpoint to bring in")
    if not values.model_dir:
        raise UserError("--model_dir is missing: the run directory to make of it")

    from simclr_tf.weights_import import import_run

    import_run(values.checkpoint, values.model_dir, ImportOptions(image_size=values.image_size))
