"""Encoders as single files: Keras's own, and TensorFlow Lite's."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from simclr_tf.exporter.inference_copy import plain_copy
from simclr_tf.exporter.model_card import with_checksum
from simclr_tf.exporter.output_path import check_free
from simclr_tf.exporter.saved_model import export_saved_model
from simclr_tf.utils.files import atomic_path, atomic_write

QUANTIZATIONS = ("float32", "float16", "int8")


def export_keras(
    encoder: keras.Model, output: str | Path, *, model_card: str, overwrite: bool = False
) -> Path:
    """Write a `.keras` file of built-in layers, which tf_keras loads without this package.

    Args:
        encoder: functional or Sequential, images → [N, D].
        output: the file, ending in .keras; the card stands beside it as OUTPUT.md.
        model_card: Markdown; a checksum is added.
        overwrite: replace `output` if it is there.

    Raises:
        UserError: `output` is there, or the model has no graph of layers.
    """
    check_free(output, overwrite)
    copy = plain_copy(encoder)
    with atomic_path(output) as scratch:
        copy.save(scratch)
    return _with_card(Path(output), model_card)


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
    """Write a TensorFlow Lite model: signature `serving_default`, `images` → `features`.

    Both are float32 and of any batch size, whatever is inside.

    Args:
        encoder: functional or Sequential, images → [N, D].
        output: the file; the card stands beside it as OUTPUT.md.
        image_size: S, in pixels.
        model_card: Markdown; a checksum is added.
        quantization: one of QUANTIZATIONS. float16: weights of half the size, computed with in
            float32 on a CPU. int8: weights and activations of 8 bits.
        calibration: for int8, float32 [M, S, S, 3] in [0, 1], some hundred images such as the
            encoder will see, from which the ranges of the activations are taken.
        overwrite: replace `output` if it is there.

    Raises:
        UserError: `output` is there, or the model has no graph of layers.
        ValueError: int8 without calibration images.
    """
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantization must be one of {', '.join(QUANTIZATIONS)}")
    check_free(output, overwrite)
    with atomic_path(output) as scratch, tempfile.TemporaryDirectory() as directory:
        # Through a SavedModel, for the names of input and output.
        place = Path(directory) / "encoder"
        export_saved_model(encoder, place, image_size=image_size, model_card="")
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(place), signature_keys=["serving_default"]
        )
        if quantization != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantization == "int8":
            if calibration is None or not len(calibration):
                raise ValueError("int8 needs calibration images")
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = lambda: _one_by_one(calibration)
        scratch.write_bytes(converter.convert())
    return _with_card(Path(output), model_card)


def _one_by_one(images: np.ndarray) -> Iterator[dict[str, Any]]:
    for image in images:
        yield {"images": image[np.newaxis]}


def _with_card(output: Path, card: str) -> Path:
    card = with_checksum(card, output.parent, output.name)
    atomic_write(output.with_name(f"{output.name}.md"), card)
    return output
