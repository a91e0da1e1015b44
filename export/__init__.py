"""Exported encoders: Reusable SavedModels that need nothing of this package."""

from simclr_tf.export.exporter import export_saved_model
from simclr_tf.export.files import export_keras, export_tflite
from simclr_tf.export.model_card import model_card

__all__ = ["export_keras", "export_saved_model", "export_tflite", "model_card"]
