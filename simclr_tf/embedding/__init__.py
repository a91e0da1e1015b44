"""Embeddings: features of datasets as arrays and files, and nearest-neighbor search.

Attributes are imported on first use: the options must not wait for TensorFlow, nor training for
PyArrow.
"""

from simclr_tf.utils.lazy import lazy_attributes

_MODULES = {
    "FORMATS": "options",
    "EmbedOptions": "options",
    "EmbedResult": "embed",
    "embed_run": "embed",
    "embed_saved_model": "embed",
}

__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
