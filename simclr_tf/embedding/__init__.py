"""Embeddings: features of datasets as arrays and files, and nearest-neighbor search."""

from typing import TYPE_CHECKING

from simclr_tf.embedding.options import FORMATS, EmbedOptions
from simclr_tf.utils.lazy import lazy_attributes

if TYPE_CHECKING:
    from simclr_tf.embedding.embed import EmbedResult, embed_run, embed_saved_model

__all__ = ["FORMATS", "EmbedOptions", "EmbedResult", "embed_run", "embed_saved_model"]

# The options must not wait for TensorFlow, nor training for PyArrow.
__getattr__, __dir__ = lazy_attributes(__name__, dict.fromkeys(__all__, "embed"))
