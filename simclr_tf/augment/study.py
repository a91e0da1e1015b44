"""Augmentations of the paper's study: named transformations of one view, and RandAugment."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.augment import color, ops
from simclr_tf.augment.crop import crop_and_resize, sample_crop_boxes
from simclr_tf.augment.rng import rescale, shared_view_seed, stateless_uniform
from simclr_tf.augment.simclr import SimCLRAugment
from simclr_tf.errors import UserError

# Maps (images float32 [N, S, S, 3] in [0, 1], seed, offset) to images of the same shape.
_Transformation = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

# Each random draw has its own stream; crop uses 0, color jitter 2 and noise 16.
_FLIP, _GRAYSCALE, _BLUR, _CUTOUT, _ROTATION = 1, 3, 4, 17, 18
_NOISE_STD = 0.1


class NamedTransforms:
    """Makes one view of every image: a crop that both views share, then named transformations.

    In the paper's study of transformations [v1 §3.1], one view is transformed and the other is not
    (`names` is empty). Image i of a call depends on (seed, offset + i) alone, as with
    `SimCLRAugment`; the shared crop depends on the step's part of the seed.

    The transformations: `crop`, random crop and resize again, flipped with p 0.5; `color`, jitter
    with p 0.8 and grayscale with p 0.2; `blur` with p 0.5, sigma uniform in [0.1, 2.0] px and a
    kernel of a tenth of the image, at least 3 px: as in SimCLR's policy [v1 App. A]. The paper does
    not specify the others: `cutout` covers a gray square of half the side whose center is uniform
    over the pixels; `noise` is normal with standard deviation 0.1; `rotation` is by 0, 90, 180 or
    270 degrees; `sobel` always replaces every channel by the magnitude of its gradient.

    Args:
        image_size: S, side of the views, in pixels.
        names: any of these transformations, each at most once, in the order of application.
        color_jitter_strength: s ≥ 0, of `color`.
        brightness: "v2" (multiplicative) or "v1" (additive), of `color`.
        crop_area: limits of the fraction of the image area of the shared crop and `crop`.
        flip: whether `crop` flips.
        grayscale: whether `color` includes grayscale.
        jitter_probability, grayscale_probability, blur_probability: in [0, 1], of the operations
            of `color` and `blur`.

    Raises:
        ValueError: a name is unknown or given twice.

    Example:
    >>> import tensorflow as tf
    >>> from simclr_tf.augment import NamedTransforms, view_seed
    >>> augment = NamedTransforms(16, ["color", "sobel"])
    >>> augment(tf.zeros([2, 20, 20, 3], tf.uint8), view_seed(0, 1, 0)).shape
    TensorShape([2, 16, 16, 3])
    """

    def __init__(
        self,
        image_size: int,
        names: Sequence[str] = (),
        color_jitter_strength: float = 1.0,
        brightness: str = "v2",
        crop_area: tuple[float, float] = (0.08, 1.0),
        flip: bool = True,
        grayscale: bool = True,
        jitter_probability: float = 0.8,
        grayscale_probability: float = 0.2,
        blur_probability: float = 0.5,
    ):
        self.image_size = image_size
        self.names = tuple(names)
        self.color_jitter_strength = color_jitter_strength
        self.brightness = brightness
        self.crop_area = (float(crop_area[0]), float(crop_area[1]))
        self.flip = flip
        self.grayscale = grayscale
        self.jitter_probability = jitter_probability
        self.grayscale_probability = grayscale_probability
        self.blur_probability = blur_probability
        registry: dict[str, _Transformation] = {
            "crop": self._crop,
            "cutout": self._cutout,
            "color": self._color,
            "sobel": lambda images, *_: ops.sobel(images),
            "noise": lambda images, *rng_args: ops.gaussian_noise(images, _NOISE_STD, *rng_args),
            "blur": self._blur,
            "rotation": self._rotation,
        }
        if not set(names) <= set(registry) or len(set(names)) < len(names):
            raise ValueError(f"names must be of {', '.join(registry)}, each once, not {names}")
        self._transformations = [registry[name] for name in names]
        # Compiled here, so that every caller gets the several times faster version.
        self._apply = tf.function(self._transform, jit_compile=True)

    def __call__(
        self,
        images: tf.Tensor,
        seed: tf.Tensor,
        offset: int | tf.Tensor = 0,
        aspect: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the views; arguments as of `SimCLRAugment`."""
        offset = tf.convert_to_tensor(offset)  # each Python number would be compiled again
        return self._apply(tf.convert_to_tensor(images), seed, offset, aspect)

    def _transform(self, images, seed, offset, aspect):
        images, shared_seed = ops.to_float(images), shared_view_seed(seed)
        views = self._random_resized_crop(images, shared_seed, offset, aspect)
        for transformation in self._transformations:
            views = transformation(views, seed, offset)
        return views

    def _random_resized_crop(self, images, seed, offset, aspect=None):
        n, height, width, _ = images.shape
        boxes = sample_crop_boxes(seed, offset, n, height, width, self.crop_area, aspect=aspect)
        # Bicubic interpolation overshoots.
        return tf.clip_by_value(crop_and_resize(images, boxes, self.image_size), 0.0, 1.0)

    def _crop(self, images, seed, offset):
        views = self._random_resized_crop(images, seed, offset)
        return ops.flip_left_right(views, _bernoulli(seed, _FLIP, offset, views, 0.5) & self.flip)

    def _color(self, images, seed, offset):
        if self.color_jitter_strength > 0:
            n, strength = images.shape[0], self.color_jitter_strength
            jitter = color.sample_jitter(seed, offset, n, strength, self.jitter_probability)
            images = color.apply_jitter(images, jitter, self.brightness)
        if self.grayscale:
            gray = _bernoulli(seed, _GRAYSCALE, offset, images, self.grayscale_probability)
            images = color.to_grayscale(images, gray)
        return tf.clip_by_value(images, 0.0, 1.0)

    def _blur(self, images, seed, offset):
        draws = stateless_uniform(seed, _BLUR, offset, images.shape[0], 2)
        chance, sigma = tf.unstack(draws, axis=1)
        size = max(3, ops.kernel_size_for(self.image_size))
        blurry = ops.gaussian_blur(images, rescale(sigma, 0.1, 2.0), size)
        blurred = chance[:, tf.newaxis, tf.newaxis, tf.newaxis] < self.blur_probability
        return tf.where(blurred, blurry, images)

    def _cutout(self, images, seed, offset):
        center = stateless_uniform(seed, _CUTOUT, offset, images.shape[0], 2)
        centers = tf.cast(center * self.image_size, tf.int32)
        return ops.cutout(images, centers, self.image_size // 2)

    def _rotation(self, images, seed, offset):
        turns = stateless_uniform(seed, _ROTATION, offset, images.shape[0], 1)[:, 0] * 4.0
        return ops.rotate90(images, tf.cast(turns, tf.int32))


def _bernoulli(seed, stream, offset, images, probability):
    """Returns bool [N], each true with that probability."""
    return stateless_uniform(seed, stream, offset, images.shape[0], 1)[:, 0] < probability


class RandAugment:
    """Makes one view of every image by crop, flip and RandAugment (arXiv 1909.13719).

    KerasCV's layer at its defaults: three operations of magnitude 0.5 ± 0.15, each skipped with
    probability 1/11. Crop and flip are a function of seed and offset; RandAugment's draws are not:
    they come from TensorFlow's global generators, partly with a seed that cannot be set. Views, and
    therefore runs, are not reproducible.

    >>> import simclr_tf as st
    >>> encoder = st.models.ResNet(18, stem="cifar")
    >>> policy = st.augment.RandAugment(image_size=32)
    >>> model = st.models.SimCLR(encoder, st.models.ProjectionHead(), policy)

    Args:
        image_size: side of the views, in pixels.
        crop_area: limits of the crop's fraction of the image area.
        flip: whether half of the views are mirrored, as in `SimCLRAugment`.
    """

    def __init__(
        self,
        image_size: int,
        crop_area: tuple[float, float] = (0.08, 1.0),
        flip: bool | str = True,
    ):
        self._crop_and_flip = SimCLRAugment(
            image_size, 0.0, use_blur=False, crop_area=crop_area, flip=flip, grayscale=False
        )
        # One trace for all views. Not compiled by XLA, which lacks the projections.
        self._apply = tf.function(self._transform)
        self._layer: Any = None

    def __call__(
        self,
        images: tf.Tensor,
        seed: tf.Tensor,
        offset: int | tf.Tensor = 0,
        aspect: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the views; arguments as of `SimCLRAugment`."""
        if self._layer is None:  # here, because models load without KerasCV, too
            require_keras_cv()
            layers = importlib.import_module("keras_cv.layers")
            self._layer = layers.RandAugment(value_range=(0, 1))
        return self._apply(self._crop_and_flip(images, seed, offset, aspect))

    def _transform(self, images):
        views = tf.ensure_shape(self._layer(images, training=True), images.shape)
        return tf.clip_by_value(views, 0.0, 1.0)


def require_keras_cv() -> None:
    """Raises `UserError` if KerasCV is not installed or does not use tf_keras."""
    if tf.keras.Model is not keras.Model:  # noqa: TID251
        raise UserError(
            "--policy=randaugment: KerasCV uses tf.keras, which is Keras 3 here. Fix: set "
            "TF_USE_LEGACY_KERAS=1 before TensorFlow is imported."
        )
    try:
        importlib.import_module("keras_cv")
    except ImportError as error:
        raise UserError(
            f"--policy=randaugment needs KerasCV ({error}). Fix: pip install 'simclr_tf[keras-cv]'"
        ) from None
