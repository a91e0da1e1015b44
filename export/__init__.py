"""Exported encoders: Reusable SavedModels that need nothing of this package."""

from simclr_tf.export.exporter import export_saved_model, export_step
from simclr_tf.export.model_card import model_card

__all__ = ["export_saved_model", "export_step", "model_card"]
