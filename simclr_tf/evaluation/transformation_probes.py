"""What h and g(h) still know of how an image was transformed [v1 Table 3]."""

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
from simclr_tf.evaluation.features import kept, require_finite, trace_per_shape

_NUM_TRAIN, _NUM_TEST = 10_000, 2_000
_LEAST = 40
_NOISE_STD = 0.1
_HIDDEN = 256

# Called on images float32 [N, S, S, 3] in [0, 1]; returns [N, D] by name.
OutputsFn = Callable[[tf.Tensor], Mapping[str, tf.Tensor]]


@dataclass(frozen=True)
class _Transformation:
    """`apply(images, labels int32 [N], seed, offset)` transforms each image as its label says."""

    names: tuple[str, ...]
    apply: Callable[..., tf.Tensor]


def _where(labels, changed, images):
    return tf.where(labels[:, tf.newaxis, tf.newaxis, tf.newaxis] == 1, changed, images)


TRANSFORMATIONS = {
    "color": _Transformation(
        ("original", "grayscale"),
        lambda x, y, *_: _where(y, tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(x)), x),
    ),
    "rotation": _Transformation(("0°", "90°", "180°", "270°"), lambda x, y, *_: rotate90(x, y)),
    "noise": _Transformation(
        ("original", "noisy"),
        lambda x, y, seed, offset: _where(y, gaussian_noise(x, _NOISE_STD, seed, offset), x),
    ),
    "sobel": _Transformation(("original", "Sobel"), lambda x, y, *_: _where(y, sobel(x), x)),
}


@dataclass(frozen=True)
class ProbeResult:
    """How well one representation tells the ways of one transformation apart."""

    transformation: str
    representation: str
    class_names: tuple[str, ...]
    scores: np.ndarray
    labels: np.ndarray
    num_train: int
    seconds: float
    notice: str = ""


def check_probes(train: ImageSource, test: ImageSource) -> None:
    """Raise UserError where a split has fewer than 40 images."""
    for source in (train, test):
        if source.num_examples < _LEAST:
            raise UserError(
                f"--protocols=probes: {source.name} has {source.num_examples} images, and the "
                f"probes of transformations need {_LEAST}; take a larger split"
            )


def probe_transformations(
    represent: OutputsFn,
    train: ImageSource,
    test: ImageSource,
    image_size: int,
    transformations: Sequence[str],
    *,
    batch_size: int = 256,
    seed: int = 0,
    cache_dir: Path | None = None,
    identity: str = "",
) -> Iterator[ProbeResult]:
    """Yield what an MLP with one hidden layer of 256 learns of each representation.

    Every image is shown in one way, drawn from the seed with all ways equally often: colour or
    grayscale; turned by 0, 90, 180 or 270 degrees; as it is or with normal noise of 0.1; as it is
    or Sobel-filtered. Of the splits 10,000 and 2,000 evenly spaced images are taken.

    Args:
        represent: gives the representations.
        train, test: what is learnt from and judged on, labelled or not; see `check_probes`.
        image_size: S, in pixels.
        transformations: any of TRANSFORMATIONS.
        batch_size: images at a time.
        seed: of the ways, the noise and the MLP.
        cache_dir: where answers are kept, and found again by content; None: nowhere.
        identity: of the representations, for the cache.

    Raises:
        UserError: while iterating, an image cannot be read or a feature is not finite.
    """
    splits = [_evenly(train, _NUM_TRAIN), _evenly(test, _NUM_TEST)]

    def shown(name: str, place: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        source = splits[place]
        return _represented(represent, source, image_size, name, batch_size, seed + place)

    for name in transformations:

        def answers(name: str = name) -> dict[str, np.ndarray]:
            started = time.monotonic()
            (learn, ways), (judge, truth) = shown(name, 0), shown(name, 1)
            extraction = time.monotonic() - started
            arrays = {"labels": truth, "num_train": np.array(len(ways))}
            for key in learn:
                started = time.monotonic()
                scores, notice = _fit(learn[key], ways, judge[key], seed)
                seconds = round(extraction + time.monotonic() - started, 3)
                arrays |= {
                    f"{key} scores": scores,
                    f"{key} notice": np.array(notice),
                    f"{key} seconds": np.array(seconds),
                }
            return arrays

        path = None
        if cache_dir is not None:
            of_data = (train.fingerprint(), test.fingerprint(), image_size, seed)
            key = content_hash(__version__, identity, *of_data)
            path = cache_dir / f"probe-{name}-{key[:16]}.npz"
        found = kept(path, answers)
        for key in (entry.removesuffix(" scores") for entry in found if entry.endswith(" scores")):
            yield ProbeResult(
                name,
                key,
                TRANSFORMATIONS[name].names,
                found[f"{key} scores"],
                found["labels"],
                int(found["num_train"]),
                float(found[f"{key} seconds"]),
                str(found[f"{key} notice"]),
            )


def _evenly(source: ImageSource, most: int) -> ImageSource:
    if source.num_examples <= most:
        return source
    return source.subset(np.linspace(0, source.num_examples - 1, most).astype(np.int64))


def _represented(
    represent: OutputsFn,
    source: ImageSource,
    image_size: int,
    name: str,
    batch_size: int,
    seed: int,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every representation of every image, and which way each was shown in."""
    transformation = TRANSFORMATIONS[name]
    count = source.num_examples
    ways = np.arange(count) % len(transformation.names)
    ways = np.random.Generator(np.random.Philox(seed)).permutation(ways)

    @trace_per_shape
    def show(images, aspect, labels, offset):
        images = eval_transform(images, image_size, aspect)
        return represent(transformation.apply(images, labels, view_seed(seed, 0, 0), offset))

    parts: list[dict[str, np.ndarray]] = []
    with decode_errors_name_image(source):
        for number, batch in enumerate(sequential_batches(source, batch_size)):
            offset = number * batch_size
            images, aspect = batch["image"], batch.get("aspect")
            labels = tf.constant(ways[offset : offset + len(images)], tf.int32)
            outputs = show(images, aspect, labels, tf.constant(offset))
            parts.append({key: value.numpy() for key, value in outputs.items()})
            for values in parts[-1].values():
                require_finite(values, offset, source)
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}, ways


def _fit(
    learn: np.ndarray, ways: np.ndarray, judge: np.ndarray, seed: int
) -> tuple[np.ndarray, str]:
    mlp = MLPClassifier((_HIDDEN,), early_stopping=True, random_state=seed, max_iter=100)
    model = make_pipeline(StandardScaler(), mlp)
    # One thread, as in logistic.py.
    with threadpool_limits(1, "blas"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(learn, ways)
    unfinished = any(issubclass(w.category, ConvergenceWarning) for w in caught)
    notice = "the probe's MLP was still learning after 100 epochs" if unfinished else ""
    return model.predict_proba(judge), notice
