"""Named transformations of one view alone, after a crop that both views share [v1 §3]."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from simclr_tf.augment import blur, color
from simclr_tf.augment import rng as draws
from simclr_tf.augment.crop import crop_and_resize, sample_crop_boxes
from simclr_tf.augment.flip import flip_left_right
from simclr_tf.augment.ops import cutout, gaussian_noise, rotate90, sobel
from simclr_tf.augment.simclr import to_float

# Called as (images float32 [N, S, S, 3] in [0, 1], seed, offset); returns as many.
_Transformation = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

# Each draw has its own stream: crop takes 0, colour jitter 2 and noise 16.
_FLIP, _GRAYSCALE, _BLUR, _CUTOUT, _ROTATION = 1, 3, 4, 17, 18
_NOISE_STD = 0.1


class NamedTransforms:
    """Makes one view of every image: the shared crop, then transformations in the order given.

    The paper's study of single transformations and pairs [v1 §3.1]: every image is first cropped at
    random and resized, one crop for both views; then one view is transformed and the other stays as
    it is, which is the composition of nothing. Image i of a call depends on (seed, offset + i)
    alone, as with `SimCLRAugment`, and the shared crop on what the views' seeds have in common.

    The transformations: `crop`, once more at random, resized and flipped with p 0.5; `color`,
    jitter with p 0.8 and grayscale with p 0.2; `blur` with p 0.5, sigma uniform in [0.1, 2.0] px,
    a kernel of a tenth of the image, of 3 px at least: these as in SimCLR's policy [v1 App. A].
    The paper does not say how it sets the others: `cutout` covers a gray square of half the side
    whose centre is uniform over the pixels; `noise` is normal with standard deviation 0.1;
    `rotation` is by 0, 90, 180 or 270 degrees; `sobel` replaces every channel by the length of its
    gradient, always.

    Args:
        image_size: S, side of the views, in pixels.
        names: any of these transformations, each once.
        color_jitter_strength: s ≥ 0, of `color`.
        brightness: "v2" (multiplicative) or "v1" (additive), of `color`.
        crop_area: limits of the share of the image that the shared crop and `crop` take.
        flip: whether `crop` flips.
        grayscale: whether `color` takes the colour out.

    Raises:
        ValueError: a name is unknown or given twice.
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
    ):
        self.image_size = image_size
        self.names = tuple(names)
        self.color_jitter_strength = color_jitter_strength
        self.brightness = brightness
        self.crop_area = (float(crop_area[0]), float(crop_area[1]))
        self.flip = flip
        self.grayscale = grayscale
        known: dict[str, _Transformation] = {
            "crop": self._crop,
            "cutout": self._cutout,
            "color": self._color,
            "sobel": lambda images, *_: sobel(images),
            "noise": lambda images, *place: gaussian_noise(images, _NOISE_STD, *place),
            "blur": self._blur,
            "rotation": self._rotation,
        }
        if not set(names) <= set(known) or len(set(names)) < len(names):
            raise ValueError(f"names must be of {', '.join(known)}, each once, not {names}")
        self._transformations = [known[name] for name in names]
        # Compiled here, so that every caller has it several times faster.
        self._apply = tf.function(self._transform, jit_compile=True)

    def __call__(
        self,
        images: tf.Tensor,
        seed: tf.Tensor,
        offset: int | tf.Tensor = 0,
        aspect: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the views; arguments and result as of `SimCLRAugment`."""
        offset = tf.convert_to_tensor(offset)  # of a number each would be compiled anew
        return self._apply(tf.convert_to_tensor(images), seed, offset, aspect)

    def _transform(self, images, seed, offset, aspect):
        views = self._cropped(to_float(images), draws.shared_view_seed(seed), offset, aspect)
        for transformation in self._transformations:
            views = transformation(views, seed, offset)
        return views

    def _cropped(self, images, seed, offset, aspect=None):
        n, height, width, _ = images.shape
        boxes = sample_crop_boxes(seed, offset, n, height, width, self.crop_area, aspect=aspect)
        # Bicubic interpolation overshoots.
        return tf.clip_by_value(crop_and_resize(images, boxes, self.image_size), 0.0, 1.0)

    def _crop(self, images, seed, offset):
        views = self._cropped(images, seed, offset)
        return flip_left_right(views, _chance(seed, _FLIP, offset, views, 0.5) & self.flip)

    def _color(self, images, seed, offset):
        if self.color_jitter_strength > 0:
            strength = self.color_jitter_strength
            images = color.color_jitter(images, seed, offset, strength, self.brightness)
        if self.grayscale:
            gray = _chance(seed, _GRAYSCALE, offset, images, 0.2)
            images = color.to_grayscale(images, gray)
        return tf.clip_by_value(images, 0.0, 1.0)

    def _blur(self, images, seed, offset):
        chance, sigma = tf.unstack(draws.uniform(seed, _BLUR, offset, images.shape[0], 2), axis=1)
        size = max(3, blur.kernel_size_for(self.image_size))
        blurry = blur.gaussian_blur(images, draws.scale(sigma, 0.1, 2.0), size)
        return tf.where(chance[:, tf.newaxis, tf.newaxis, tf.newaxis] < 0.5, blurry, images)

    def _cutout(self, images, seed, offset):
        place = draws.uniform(seed, _CUTOUT, offset, images.shape[0], 2)
        centers = tf.cast(place * self.image_size, tf.int32)
        return cutout(images, centers, self.image_size // 2)

    def _rotation(self, images, seed, offset):
        turns = draws.uniform(seed, _ROTATION, offset, images.shape[0], 1)[:, 0] * 4.0
        return rotate90(images, tf.cast(turns, tf.int32))


def _chance(seed, operation, offset, images, probability):
    """Returns bool [N], true with that probability."""
    return draws.uniform(seed, operation, offset, images.shape[0], 1)[:, 0] < probability
