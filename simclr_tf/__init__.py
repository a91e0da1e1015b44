"""SimCLR for TensorFlow 2 and Keras: contrastive learning of image encoders without labels.

Every command is a function with the same options: `pretrain`, `finetune`, `distill`, and so on. The
building blocks are in `losses`, `models`, `optimizers` and `augment`. TensorFlow is imported when
something is used that needs it.

Example:
    >>> import simclr_tf as st
    >>> run = st.pretrain(  # doctest: +SKIP
    ...     "runs/photos", dataset="folder:photos", image_size=96, resnet_depth=18
    ... )
    >>> features = run.encoder(images, training=False)  # doctest: +SKIP
"""

import importlib
import os
from typing import Any

# KerasCV and TensorFlow Addons use whatever `tf.keras` names when first accessed; this package is
# written against tf_keras, so that both must be the same library.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# TensorFlow disables oneDNN's kernels on processors without AVX-512 VNNI; with AVX2 alone they make
# the backward pass of a convolution several times faster. Set to 0 to restore the default.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.1.0"

# Public name → the module that defines it. They are imported on first use (PEP 562), because
# TensorFlow takes seconds to import.
_API = ("Run", "distill", "embed", "evaluate", "export", "finetune", "import_weights")
_DEFINED_IN = {
    **dict.fromkeys((*_API, "pretrain", "report"), "api"),
    **dict.fromkeys(("list_encoders", "list_losses", "list_optimizers"), "api.catalog"),
    **{"list_protocols": "api.catalog", "UserError": "errors"},
}
_MODULES = (
    *("augment", "config", "data", "embedding", "evaluation", "exporter", "losses", "models"),
    *("optimizers", "reporting", "runs", "study", "training", "weights_import"),
)

__all__ = ["__version__", "load", *_DEFINED_IN, *_MODULES]


def __getattr__(name: str) -> Any:
    if name == "load":
        from simclr_tf.runs.load import load_model

        value: Any = load_model
    elif name in _DEFINED_IN:
        value = getattr(importlib.import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
