"""Probes that predict from h and g(h) how an image was transformed [v1 Table 3]."""

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from threadpoolctl import threadpool_limits

from simclr_tf import __version__
from simclr_tf.augment import eval_transform, view_seed
from simclr_tf.augment.ops import gaussian_noise, rotate90, sobel
from simclr_tf.data import ImageSource, decode_errors_name_image, sequential_batches
from simclr_tf.data.base import content_hash
from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import (
    load_or_compute,
    require_finite,
    sample_evenly,
    trace_per_shape,
)
from simclr_tf.evaluation.results import EvalContext, Evaluation, make_evaluation

_MIN_IMAGES = 40
_NOISE_STD = 0.1
_HIDDEN_WIDTH = 256

# Called on images float32 [N, S, S, 3] in [0, 1]; returns [N, D] by name.
OutputsFn = Callable[[tf.Tensor], Mapping[str, tf.Tensor]]


class _Transformation(NamedTuple):
    """`apply(images, labels int32 [N], seed, offset)` transforms each image by its label."""

    class_names: tuple[str, ...]
    apply: Callable[..., tf.Tensor]


def _where_label_is_1(change: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Returns a transformation of the images of label 1 by `change(images, seed, offset)`."""

    def apply(images, labels, seed, offset):
        is_1 = labels[:, tf.newaxis, tf.newaxis, tf.newaxis] == 1
        return tf.where(is_1, change(images, seed, offset), images)

    return apply


def _to_gray(images, *_):
    return tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(images))


def _add_noise(images, seed, offset):
    return gaussian_noise(images, _NOISE_STD, seed, offset)


# Keys: options.TRANSFORMATIONS.
TRANSFORMATION_FUNCTIONS = {
    "color": _Transformation(("original", "grayscale"), _where_label_is_1(_to_gray)),
    "rotation": _Transformation(("0°", "90°", "180°", "270°"), lambda x, y, *_: rotate90(x, y)),
    "noise": _Transformation(("original", "noisy"), _where_label_is_1(_add_noise)),
    "sobel": _Transformation(("original", "Sobel"), _where_label_is_1(lambda x, *_: sobel(x))),
}


def check_probes(train: ImageSource, test: ImageSource) -> None:
    """Raises UserError if a split has fewer than 40 images."""
    for source in (train, test):
        if source.num_examples < _MIN_IMAGES:
            raise UserError(
                f"--protocols=probes: requires at least {_MIN_IMAGES} images, and {source.name} "
                f"has {source.num_examples}. Fix: choose a larger split"
            )


def probe_transformations(
    outputs_fn: OutputsFn,
    train: ImageSource,
    test: ImageSource,
    transformations: Sequence[str],
    context: EvalContext,
    fingerprint: str = "",
    *,
    max_train: int = 10_000,
    max_test: int = 2_000,
) -> Iterator[tuple[Evaluation, tuple[str, ...]]]:
    """Trains an MLP with a hidden layer of 256 for each transformation and representation.

    Each image is shown in one variant, sampled with equal frequency: color or grayscale; rotated by
    0, 90, 180 or 270 degrees; unchanged or with normal noise of 0.1; unchanged or Sobel-filtered.
    Yields evaluations named probe:TRANSFORMATION/REPRESENTATION with the names of the variants.
    `fingerprint` is the cache key of the representations; larger splits are sampled evenly.
    """
    splits = [sample_evenly(train, max_train), sample_evenly(test, max_test)]
    seed = context.seed

    def compute(name: str) -> dict[str, np.ndarray]:
        start = time.monotonic()
        (train_features, train_labels), (test_features, test_labels) = (
            _extract_transformed(outputs_fn, source, name, context, seed + i)
            for i, source in enumerate(splits)
        )
        extraction = time.monotonic() - start
        arrays = {"labels": test_labels, "num_train": np.array(len(train_labels))}
        for key in train_features:
            start = time.monotonic()
            scores, warning = _fit_mlp(train_features[key], train_labels, test_features[key], seed)
            seconds = round(extraction + time.monotonic() - start, 3)
            arrays |= {
                f"{key} scores": scores,
                f"{key} notice": np.array(warning),
                f"{key} seconds": np.array(seconds),
            }
        return arrays

    for name in transformations:
        path = None
        if context.cache_dir is not None:
            data_key = (train.fingerprint(), test.fingerprint(), context.image_size, seed)
            cache_key = content_hash(__version__, fingerprint, *data_key)
            path = context.cache_dir / f"probe-{name}-{cache_key[:16]}.npz"
        arrays = load_or_compute(path, functools.partial(compute, name))
        for key in [k.removesuffix(" scores") for k in arrays if k.endswith(" scores")]:
            evaluation = make_evaluation(
                dataclasses.replace(context, metric="top-1"),
                arrays[f"{key} scores"],
                arrays["labels"],
                protocol=f"probe:{name}/{key}" if key else f"probe:{name}",
                num_train=int(arrays["num_train"]),
                seconds=float(arrays[f"{key} seconds"]),
                setting=context.describe(),
                warning=str(arrays[f"{key} notice"]),
            )
            yield evaluation, TRANSFORMATION_FUNCTIONS[name].class_names


def _extract_transformed(
    outputs_fn: OutputsFn, source: ImageSource, name: str, context: EvalContext, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns every representation of every transformed image, and the applied variants."""
    transformation = TRANSFORMATION_FUNCTIONS[name]
    all_labels = np.arange(source.num_examples) % len(transformation.class_names)
    all_labels = np.random.Generator(np.random.Philox(seed)).permutation(all_labels)

    @trace_per_shape
    def extract(images, aspect, labels, offset):
        images = eval_transform(images, context.image_size, aspect)
        return outputs_fn(transformation.apply(images, labels, view_seed(seed, 0, 0), offset))

    parts: list[dict[str, np.ndarray]] = []
    with decode_errors_name_image(source):
        for number, batch in enumerate(sequential_batches(source, context.batch_size)):
            offset, images = number * context.batch_size, batch["image"]
            labels = tf.constant(all_labels[offset : offset + len(images)], tf.int32)
            outputs = extract(images, batch.get("aspect"), labels, tf.constant(offset))
            parts.append({key: value.numpy() for key, value in outputs.items()})
            for values in parts[-1].values():
                require_finite(values, offset, source)
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}, all_labels


def _fit_mlp(
    train_features: np.ndarray, train_labels: np.ndarray, test_features: np.ndarray, seed: int
) -> tuple[np.ndarray, str]:
    """Returns the scores of the test images, and a warning or ""."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    mlp = MLPClassifier((_HIDDEN_WIDTH,), early_stopping=True, random_state=seed, max_iter=100)
    model = make_pipeline(StandardScaler(), mlp)
    # One thread, as in logistic.py.
    with threadpool_limits(1, "blas"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(train_features, train_labels)
    unconverged = any(issubclass(w.category, ConvergenceWarning) for w in caught)
    warning = "the MLP of the probe had not converged after 100 epochs" if unconverged else ""
    return model.predict_proba(test_features), warning
