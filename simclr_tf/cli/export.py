"""Write the encoder in a form that any program can load.

Exports a checkpoint of a run to RUN/export/STEP (or to --output): a SavedModel that maps images in
[0, 1] to features, with a model card beside it. Using it needs nothing of this project.
docs/export.md shows how every kind of program loads it.

  simclr-tf export --model_dir=runs/a
  simclr-tf export --model_dir=runs/a --format=tflite_int8 --output=encoder.tflite
"""

from absl import flags

from simclr_tf.errors import UserError
from simclr_tf.exporter.options import FORMATS, ExportOptions


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    def string(name, default, text):
        flags.DEFINE_string(name, default, text, flag_values=values)

    string("model_dir", None, "The run whose encoder is exported.")
    string("output", None, "The SavedModel or file itself; empty: RUN/export/STEP.")
    string("data_dir", "", "For tflite_int8: where TFDS datasets are prepared; the run's if empty.")
    flags.DEFINE_integer(
        "step", None, "Of the checkpoint; the newest if empty.", 0, flag_values=values
    )
    flags.DEFINE_integer(
        "image_size", None, "Side of the images; the run's if empty.", 8, flag_values=values
    )
    flags.DEFINE_boolean(
        "with_preprocessing",
        False,
        "Add the signature `serving_encoded`, which takes JPEG and PNG files.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "format",
        "saved_model",
        FORMATS,
        "A SavedModel, of float32 or float16 weights; a .keras file for tf_keras; a TensorFlow "
        "Lite model, of float32, of float16 weights, or of 8 bits.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "calibration_images",
        256,
        "For tflite_int8: training images from which the ranges of 8 bits are taken.",
        1,
        flag_values=values,
    )
    return {
        "What": ["model_dir", "step"],
        "How": ["format", "image_size", "with_preprocessing", "calibration_images", "data_dir"],
        "Where": ["output"],
    }


def run(values: flags.FlagValues) -> None:
    if not values.model_dir:
        raise UserError("--model_dir is missing: the run whose encoder is to be exported")

    from simclr_tf.exporter.export_run import export_run

    export_run(
        values.model_dir,
        ExportOptions(
            output=values.output,
            format=values.format,
            step=values.step,
            image_size=values.image_size,
            with_preprocessing=values.with_preprocessing,
            calibration_images=values.calibration_images,
            data_dir=values.data_dir,
        ),
    )
