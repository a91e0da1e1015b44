"""Bringing in weights of the authors' TF2 code: their names, their shapes, a run made of them."""
