"""Embeddings: features of datasets as arrays and files, and nearest-neighbor search."""

import importlib
from typing import TYPE_CHECKING, Any

from simclr_tf.embedding.options import FORMATS, EmbedOptions

if TYPE_CHECKING:
    from simclr_tf.embedding.embed import EmbedResult, embed_run, embed_saved_model

__all__ = ["FORMATS", "EmbedOptions", "EmbedResult", "embed_run", "embed_saved_model"]


def __getattr__(name: str) -> Any:
    # The options must not wait for TensorFlow, nor training for PyArrow.
    if name in __all__:
        return getattr(importlib.import_module("simclr_tf.embedding.embed"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
