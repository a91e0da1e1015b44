"""Import of weights that the authors' TF2 code trained."""

from typing import TYPE_CHECKING

from simclr_tf.utils.lazy import lazy_attributes

if TYPE_CHECKING:
    from simclr_tf.weights_import.convert import import_run

__all__ = ["import_run"]

__getattr__, __dir__ = lazy_attributes(__name__, {"import_run": "convert"})
