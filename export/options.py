"""Options of `simclr-tf export`; imports no TensorFlow."""

import dataclasses

from simclr_tf.errors import UserError
from simclr_tf.options import OptionGroup, option

FORMATS = (
    *("saved_model", "saved_model_float16", "keras"),
    *("tflite", "tflite_float16", "tflite_int8"),
)


@dataclasses.dataclass(frozen=True)
class ExportOptions(OptionGroup):
    """Options"""

    output: str | None = option(
        None,
        "SavedModel directory or file to write. Default: RUN/export.",
        heading="Output",
        is_path=True,
    )
    format: str = option(
        "saved_model",
        "SavedModel with float32 or float16 weights, .keras file for tf_keras, or TensorFlow Lite "
        "model with float32, float16 or int8 weights.",
        choices=FORMATS,
        heading="Output",
    )
    step: int | None = option(None, "Step of the checkpoint. Default: the newest.", min=0)
    image_size: int | None = option(
        None,
        "Side of the input images in pixels. Default: the run's evaluation size.",
        min=8,
        max=16384,
    )
    with_preprocessing: bool = option(
        False, "Add the signature `serving_encoded`, which takes JPEG and PNG files."
    )
    calibration_images: int = option(
        256, "For tflite_int8: number of training images that calibrate the value ranges.", min=1
    )
    data_dir: str = option(
        "", "For tflite_int8: directory of the TFDS datasets. Default: the run's.", is_path=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.with_preprocessing and not self.format.startswith("saved_model"):
            raise UserError(
                f"--with_preprocessing: expected --format=saved_model, got {self.format}, which "
                "does not take encoded images. Fix: omit --with_preprocessing"
            )

    def file_name(self, step: int) -> str:
        """Returns the name of the export in RUN/export."""
        kind, _, precision = self.format.removeprefix("saved_").partition("_")
        extension = "" if kind == "model" else f".{kind}"
        return f"{step}{f'-{precision}' if precision else ''}{extension}"
