"""Evaluation of encoders: protocols, baselines and results.

Attributes are imported on first use, so that `evaluation.options` does not import TensorFlow.
"""

from simclr_tf.utils.lazy import lazy_attributes

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
__getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
