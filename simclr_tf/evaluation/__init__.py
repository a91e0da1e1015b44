"""Evaluation of encoders: protocols, baselines and results.

Attributes are imported on first use, so that `evaluation.options` does not import TensorFlow.
"""

import importlib
from typing import Any

_MODULES = {
    "EvalContext": "results",
    "EvalOptions": "options",
    "Evaluation": "results",
    "FeatureExtractor": "features",
    "Features": "features",
    "KNN": "knn",
    "Linear": "linear",
    "Logistic": "logistic",
    "evaluate_classifier": "evaluate",
    "evaluate_run": "evaluate",
    "evaluate_saved_model": "evaluate",
    "extract_features": "features",
    "knn_predict": "knn",
    "make_evaluation": "results",
    "make_protocols": "evaluate",
    "run_protocols": "protocol_runner",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
