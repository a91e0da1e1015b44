"""Probes that predict from h and g(h) how an image was transformed [v1 Table 3]."""

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from simclr_tf import __version__
from simclr_tf.augment import eval_transform, view_seed
from simclr_tf.augment.ops import gaussian_noise, rotate90, sobel
from simclr_tf.data import ImageSource, decode_errors_name_image, sequential_batches
from simclr_tf.data.base import content_hash
from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import load_or_compute, require_finite, trace_per_shape
from simclr_tf.evaluation.results import EvalContext, Evaluation, make_evaluation

_MIN_IMAGES = 40
_NOISE_STD = 0.1
_HIDDEN_WIDTH = 256

# Called on images float32 [N, S, S, 3] in [0, 1]; returns [N, D] by name.
OutputsFn = Callable[[tf.Tensor], Mapping[str, tf.Tensor]]


@dataclass(frozen=True)
class _Transformation:
    """`apply(images, labels int32 [N], seed, offset)` transforms each image by its label."""

    class_names: tuple[str, ...]
    apply: Callable[..., tf.Tensor]


def _where_label_is_1(labels, changed, images):
    return tf.where(labels[:, tf.newaxis, tf.newaxis, tf.newaxis] == 1, changed, images)


def _to_gray(images):
    return tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(images))


# Keys: options.TRANSFORMATIONS.
TRANSFORMATION_FUNCTIONS = {
    "color": _Transformation(
        ("original", "grayscale"), lambda x, y, *_: _where_label_is_1(y, _to_gray(x), x)
    ),
    "rotation": _Transformation(("0°", "90°", "180°", "270°"), lambda x, y, *_: rotate90(x, y)),
    "noise": _Transformation(
        ("original", "noisy"),
        lambda x, y, seed, offset: _where_label_is_1(
            y, gaussian_noise(x, _NOISE_STD, seed, offset), x
        ),
    ),
    "sobel": _Transformation(
        ("original", "Sobel"), lambda x, y, *_: _where_label_is_1(y, sobel(x), x)
    ),
}


@dataclass(frozen=True)
class ProbeResult:
    """Predictions of one transformation from one representation.

    Attributes:
        transformation: name of the transformation.
        representation: name of the representation.
        class_names: variants of the transformation.
        scores: [M, C] for the test images.
        labels: applied variants, int [M].
        num_train: number of training images.
        seconds: wall-clock time.
        warning: message for the user, or "".
    """

    transformation: str
    representation: str
    class_names: tuple[str, ...]
    scores: np.ndarray
    labels: np.ndarray
    num_train: int
    seconds: float
    warning: str = ""

    def to_evaluation(self, context: EvalContext) -> Evaluation:
        """Returns the result as an evaluation, named probe:TRANSFORMATION/REPRESENTATION."""
        protocol = f"probe:{self.transformation}"
        return make_evaluation(
            dataclasses.replace(context, metric="top-1"),
            self.scores,
            self.labels,
            protocol=f"{protocol}/{self.representation}" if self.representation else protocol,
            num_train=self.num_train,
            seconds=self.seconds,
            setting=context.describe(),
            warning=self.warning,
        )


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
    image_size: int,
    transformations: Sequence[str],
    *,
    batch_size: int = 256,
    seed: int = 0,
    cache_dir: Path | None = None,
    fingerprint: str = "",
    max_train: int = 10_000,
    max_test: int = 2_000,
) -> Iterator[ProbeResult]:
    """Trains an MLP with a hidden layer of 256 for each transformation and representation.

    Each image is shown in one variant, sampled with equal frequency: color or grayscale; rotated by
    0, 90, 180 or 270 degrees; unchanged or with normal noise of 0.1; unchanged or Sobel-filtered.

    Args:
        outputs_fn: returns the representations.
        train, test: splits, labeled or not; see `check_probes`.
        image_size: side length S in pixels.
        transformations: names of the transformations.
        batch_size: images per call.
        seed: seed of the variants, the noise and the MLP.
        cache_dir: directory of the result cache; None disables it.
        fingerprint: cache key of the representations.
        max_train, max_test: maximum number of images, evenly spaced in the splits.

    Yields:
        The results in the order of the transformations.

    Raises:
        UserError: while iterating, if an image cannot be read or a feature is not finite.
    """
    splits = [_subsample(train, max_train), _subsample(test, max_test)]

    def compute(name: str) -> dict[str, np.ndarray]:
        start = time.monotonic()
        (train_features, train_labels), (test_features, test_labels) = (
            _extract_transformed(outputs_fn, source, image_size, name, batch_size, seed + i)
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
        if cache_dir is not None:
            data_key = (train.fingerprint(), test.fingerprint(), image_size, seed)
            key = content_hash(__version__, fingerprint, *data_key)
            path = cache_dir / f"probe-{name}-{key[:16]}.npz"
        arrays = load_or_compute(path, functools.partial(compute, name))
        for key in [k.removesuffix(" scores") for k in arrays if k.endswith(" scores")]:
            yield ProbeResult(
                name,
                key,
                TRANSFORMATION_FUNCTIONS[name].class_names,
                arrays[f"{key} scores"],
                arrays["labels"],
                int(arrays["num_train"]),
                float(arrays[f"{key} seconds"]),
                str(arrays[f"{key} notice"]),
            )


def _subsample(source: ImageSource, max_count: int) -> ImageSource:
    if source.num_examples <= max_count:
        return source
    return source.subset(np.linspace(0, source.num_examples - 1, max_count).astype(np.int64))


def _extract_transformed(
    outputs_fn: OutputsFn,
    source: ImageSource,
    image_size: int,
    name: str,
    batch_size: int,
    seed: int,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns every representation of every transformed image, and the applied variants."""
    transformation = TRANSFORMATION_FUNCTIONS[name]
    all_labels = np.arange(source.num_examples) % len(transformation.class_names)
    all_labels = np.random.Generator(np.random.Philox(seed)).permutation(all_labels)

    @trace_per_shape
    def extract(images, aspect, labels, offset):
        images = eval_transform(images, image_size, aspect)
        return outputs_fn(transformation.apply(images, labels, view_seed(seed, 0, 0), offset))

    parts: list[dict[str, np.ndarray]] = []
    with decode_errors_name_image(source):
        for number, batch in enumerate(sequential_batches(source, batch_size)):
            offset = number * batch_size
            images, aspect = batch["image"], batch.get("aspect")
            labels = tf.constant(all_labels[offset : offset + len(images)], tf.int32)
            outputs = extract(images, aspect, labels, tf.constant(offset))
            parts.append({key: value.numpy() for key, value in outputs.items()})
            for values in parts[-1].values():
                require_finite(values, offset, source)
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}, all_labels


def _fit_mlp(
    train_features: np.ndarray, train_labels: np.ndarray, test_features: np.ndarray, seed: int
) -> tuple[np.ndarray, str]:
    mlp = MLPClassifier((_HIDDEN_WIDTH,), early_stopping=True, random_state=seed, max_iter=100)
    model = make_pipeline(StandardScaler(), mlp)
    # One thread, as in logistic.py.
    with threadpool_limits(1, "blas"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(train_features, train_labels)
    unconverged = any(issubclass(w.category, ConvergenceWarning) for w in caught)
    warning = "the MLP of the probe had not converged after 100 epochs" if unconverged else ""
    return model.predict_proba(test_features), warning
