"""Exported encoders: SavedModels, Keras and TensorFlow Lite files that do not need this package."""

from typing import TYPE_CHECKING

from simclr_tf.utils.lazy import lazy_attributes

if TYPE_CHECKING:
    from simclr_tf.exporter.keras_tflite import export_keras, export_tflite
    from simclr_tf.exporter.model_card import make_model_card
    from simclr_tf.exporter.saved_model import export_saved_model

__all__ = ["export_keras", "export_saved_model", "export_tflite", "make_model_card"]

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "export_keras": "keras_tflite",
        "export_saved_model": "saved_model",
        "export_tflite": "keras_tflite",
        "make_model_card": "model_card",
    },
)
