"""Features of many images as files that other programs read, and the search among them."""

from simclr_tf.embedding.embed import FORMATS, EmbedRequest, embed_run, embed_saved_model

__all__ = ["FORMATS", "EmbedRequest", "embed_run", "embed_saved_model"]
