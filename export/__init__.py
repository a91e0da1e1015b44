"""Exported encoders: Reusable SavedModels that need nothing of this package."""

from simclr_tf.exporter.keras_tflite import export_keras, export_tflite
from simclr_tf.exporter.model_card import model_card
from simclr_tf.exporter.saved_model import export_saved_model

__all__ = ["export_keras", "export_saved_model", "export_tflite", "model_card"]
