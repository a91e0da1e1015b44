"""Bringing in weights of the authors' TF2 code: their names, their shapes, a run made of them."""

from simclr_tf.weights_import.import_run import import_run

__all__ = ["import_run"]
