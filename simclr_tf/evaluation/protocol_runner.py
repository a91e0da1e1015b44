"""Protocols × encoders: features and predictions of each pair, with a cache."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from simclr_tf.data import ImageSource
from simclr_tf.data.base import content_hash
from simclr_tf.evaluation.features import Encoder, FeatureExtractor, Features, load_or_compute
from simclr_tf.evaluation.protocols import EvaluationProtocol, Prediction, ProtocolInputs
from simclr_tf.evaluation.results import EvalContext, Evaluation, make_evaluation
from simclr_tf.evaluation.splits import check_splits

# Returns an encoder, called as encoder(images float32 [B, S, S, 3] in [0, 1], training=False), and
# its fingerprint, which differs between encoders with different features.
EncoderFactory = Callable[[], tuple[Encoder, str]]


def run_protocols(
    encoders: Mapping[str, EncoderFactory],
    train: ImageSource,
    test: ImageSource,
    protocols: Sequence[EvaluationProtocol],
    context: EvalContext,
) -> Iterator[Evaluation]:
    """Checks all inputs, then returns an iterator that runs every protocol on every encoder.

    The features of an encoder are extracted once. They and the predictions are cached in
    `context.cache_dir`.

    >>> import tensorflow as tf
    >>> from simclr_tf.data import open_source
    >>> from simclr_tf.evaluation import KNN, EvalContext, run_protocols
    >>> train = open_source("shapes", "train[:60]", storage_size=24)
    >>> test = open_source("shapes", "test[:20]", storage_size=24)
    >>> mean_color = lambda images, training: tf.reduce_mean(images, [1, 2])
    >>> encoders = {"": lambda: (mean_color, "mean color")}
    >>> context = EvalContext("shapes", "train[:60]", "test[:20]", image_size=16)
    >>> [result.protocol for result in run_protocols(encoders, train, test, [KNN((5,))], context)]
    ['knn']

    Args:
        encoders: encoder factories by name, called when needed; "" is the trained encoder, whose
            results are named `knn`, a baseline `pca` yields `knn/pca`.
        train, test: labeled splits.
        protocols: such as KNN() and Logistic().
        context: data and settings.

    Raises:
        UserError: at once if options and splits do not match; while iterating if images or
            features are not usable.
    """
    num_classes = len(check_splits(train, test, protocols, context))

    def run() -> Iterator[Evaluation]:
        for name, factory in encoders.items():
            encoder, fingerprint = factory()
            start = time.monotonic()
            extract = FeatureExtractor(
                encoder, context.image_size, context.batch_size, context.cache_dir, fingerprint
            )
            train_features = extract(train)
            if train_features.labels.ndim == 2:
                labels = np.maximum(train_features.labels, 0)
                train_features = Features(train_features.features, labels)
            inputs = ProtocolInputs(
                train_features,
                extract(test),
                num_classes,
                encoder=encoder,
                source=train,
                image_size=context.image_size,
                work_dir=extract.cache_path(train),
                seed=context.seed,
            )
            extraction_seconds = time.monotonic() - start
            for protocol in protocols:
                cache_path = None
                if inputs.work_dir is not None:
                    key = content_hash(protocol, test.fingerprint(), num_classes, context.seed)
                    cache_path = inputs.work_dir / f"{protocol.name}-{key[:16]}.npz"
                predictions, seconds = _predict_with_cache(
                    protocol, inputs, cache_path, extraction_seconds
                )
                for prediction in predictions:
                    yield make_evaluation(
                        context,
                        prediction.scores,
                        inputs.test.labels,
                        protocol=f"{protocol.name}/{name}" if name else protocol.name,
                        num_train=inputs.train.num_examples,
                        seconds=seconds,
                        setting=context.describe(prediction.setting),
                        warning=prediction.warning,
                        classifier=prediction.classifier,
                    )

    return run()


def _predict_with_cache(
    protocol: EvaluationProtocol,
    inputs: ProtocolInputs,
    path: Path | None,
    extraction_seconds: float,
) -> tuple[list[Prediction], float]:
    """Returns the predictions of a protocol and the seconds that they took when computed."""

    def compute() -> dict[str, np.ndarray]:
        start = time.monotonic()
        predictions = protocol.predict(inputs)
        seconds = extraction_seconds + time.monotonic() - start
        arrays = {"seconds": np.array(round(seconds, 3))}
        for number, prediction in enumerate(predictions):
            arrays |= {f"{number} {key}": value for key, value in prediction.to_arrays().items()}
        return arrays

    by_number: dict[str, dict[str, np.ndarray]] = {}
    arrays = dict(load_or_compute(path, compute))
    seconds = float(arrays.pop("seconds"))
    for key, array in arrays.items():
        number, _, name = key.partition(" ")
        by_number.setdefault(number, {})[name] = array
    return [Prediction.from_arrays(fields) for fields in by_number.values()], seconds
