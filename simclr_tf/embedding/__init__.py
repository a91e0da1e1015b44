"""Features of many images as files that other programs read, and the search among them."""

from simclr_tf.embedding.embed import FORMATS, EmbedOptions, embed_run, embed_saved_model

__all__ = ["FORMATS", "EmbedOptions", "embed_run", "embed_saved_model"]
