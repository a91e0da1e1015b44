"""The Python API: every command as a function, with the flags as keyword arguments."""

from simclr_tf.api.results import embed, evaluate, export, import_weights, report
from simclr_tf.api.run import Run
from simclr_tf.api.training import distill, finetune, pretrain

__all__ = [
    "Run",
    "distill",
    "embed",
    "evaluate",
    "export",
    "finetune",
    "import_weights",
    "pretrain",
    "report",
]
