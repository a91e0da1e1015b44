"""How good an encoder is: protocols, baselines and their records."""

from simclr_tf.evaluation.evaluate import (
    BASELINES,
    EvalContext,
    Evaluation,
    Representation,
    check_splits,
    evaluate,
)
from simclr_tf.evaluation.features import FeatureExtractor, Features, extract_features
from simclr_tf.evaluation.knn import KNN, knn_predict
from simclr_tf.evaluation.linear import Linear
from simclr_tf.evaluation.logistic import Logistic
from simclr_tf.runs.results_file import append_evaluations, format_results, read_evaluations

__all__ = [
    "BASELINES",
    "KNN",
    "EvalContext",
    "Evaluation",
    "FeatureExtractor",
    "Features",
    "Linear",
    "Logistic",
    "Representation",
    "append_evaluations",
    "check_splits",
    "evaluate",
    "extract_features",
    "format_results",
    "knn_predict",
    "read_evaluations",
]
