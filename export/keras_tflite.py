"""Export to a single file: Keras or TensorFlow Lite."""

import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

from simclr_tf.exporter.inference_copy import float32_inference_copy
from simclr_tf.exporter.model_card import add_checksum
from simclr_tf.exporter.saved_model import check_does_not_exist, export_saved_model
from simclr_tf.utils.files import atomic_path, atomic_write
from simclr_tf.utils.paths import user_path

_QUANTIZATIONS = ("float32", "float16", "int8")


def export_keras(
    encoder: keras.Model, output: str | Path, *, model_card: str, overwrite: bool = False
) -> Path:
    """Writes a `.keras` file of built-in layers, which tf_keras loads without this package.

    >>> import os, tempfile
    >>> from simclr_tf.exporter import export_keras
    >>> import tf_keras as keras
    >>> encoder = keras.Sequential(
    ...     [keras.Input((8, 8, 3)), keras.layers.Conv2D(32, 3), keras.layers.GlobalMaxPool2D()])
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = export_keras(encoder, f"{directory}/encoder.keras", model_card="# Encoder")
    ...     sorted(os.listdir(directory))
    ['encoder.keras', 'encoder.keras.md']

    Args:
        encoder: functional or Sequential model, images → [N, D].
        output: the file, with extension .keras; the model card is written to OUTPUT.md.
        model_card: Markdown; a checksum is appended.
        overwrite: replace `output` if it exists.

    Returns:
        `output` as a Path.

    Raises:
        UserError: `output` exists or cannot be written, or the model is a subclass without a graph
            of layers.
    """
    output = user_path(output)
    check_does_not_exist(output, overwrite)
    copy = float32_inference_copy(encoder)
    with atomic_path(output) as temporary:
        copy.save(temporary)
    return _write_card(output, model_card)


def export_tflite(
    encoder: keras.Model,
    output: str | Path,
    *,
    image_size: int,
    model_card: str,
    quantization: str = "float32",
    calibration: np.ndarray | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a TensorFlow Lite model with the signature `serving_default`: `images` → `features`.

    Input and output are float32 with any batch size, for every quantization.

    >>> import tempfile
    >>> import numpy as np
    >>> import tensorflow as tf
    >>> from simclr_tf.exporter import export_tflite
    >>> import tf_keras as keras
    >>> encoder = keras.Sequential(
    ...     [keras.Input((8, 8, 3)), keras.layers.Conv2D(32, 3), keras.layers.GlobalMaxPool2D()])
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = export_tflite(
    ...         encoder, f"{directory}/encoder.tflite", image_size=8, model_card="# Encoder")
    ...     run = tf.lite.Interpreter(str(path)).get_signature_runner()
    ...     run(images=np.zeros([2, 8, 8, 3], np.float32))["features"].shape
    (2, 32)

    Args:
        encoder: functional or Sequential model, images → [N, D].
        output: the file; the model card is written to OUTPUT.md.
        image_size: S, in pixels.
        model_card: Markdown; a checksum is appended.
        quantization: "float32"; "float16", weights of half the size, computed in float32 on a CPU;
            or "int8", 8-bit weights and activations.
        calibration: for int8, float32 [M, S, S, 3] in [0, 1]: a few hundred typical images, which
            set the ranges of the activations.
        overwrite: replace `output` if it exists.

    Returns:
        `output` as a Path.

    Raises:
        UserError: `output` exists or cannot be written, or the model is a subclass without a graph
            of layers.
        ValueError: int8 without calibration images.
    """
    if quantization not in _QUANTIZATIONS:
        raise ValueError(f"quantization must be one of {', '.join(_QUANTIZATIONS)}")
    output = user_path(output)
    check_does_not_exist(output, overwrite)
    with atomic_path(output) as temporary, tempfile.TemporaryDirectory() as directory:
        # A SavedModel gives input and output their names.
        saved_model_dir = Path(directory) / "encoder"
        export_saved_model(encoder, saved_model_dir, image_size=image_size, model_card="")
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(saved_model_dir), signature_keys=["serving_default"]
        )
        if quantization != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantization == "int8":
            if calibration is None or not len(calibration):
                raise ValueError("int8 needs calibration images")
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            images = calibration[:, np.newaxis]
            converter.representative_dataset = lambda: ({"images": image} for image in images)
        temporary.write_bytes(converter.convert())
    return _write_card(output, model_card)


def _write_card(output: Path, card: str) -> Path:
    atomic_write(
        output.with_name(f"{output.name}.md"), add_checksum(card, output.parent, output.name)
    )
    return output
