"""SimCLR's augmentation policy [v1 App. A]."""

import itertools
import os

import tensorflow as tf

from simclr_tf.augment import blur, color
from simclr_tf.augment import per_image as imagewise
from simclr_tf.augment import rng as draws
from simclr_tf.augment.crop import crop_and_resize, sample_crop_boxes
from simclr_tf.augment.flip import flip_left_right

# Each draw of the policy has its own stream: crop takes 0 and colour jitter 2.
_FLIP, _GRAYSCALE, _BLUR = 1, 3, 4


class SimCLRAugment:
    """Makes one random view of every image of a batch.

    In the paper's order: random resized crop; flip (p 0.5); colour jitter (p 0.8); grayscale
    (p 0.2); Gaussian blur (p 0.5, sigma uniform in [0.1, 2.0] px per image). Image i of a call
    depends on (seed, offset + i) alone, so a step can be replayed on any number of replicas. Static
    shapes and no host operation: it compiles under XLA and runs on the accelerator.

    Args:
        image_size: side of the views, in pixels.
        color_jitter_strength: s ≥ 0: 1 for ImageNet, 0.5 for CIFAR-10; 0 leaves colour jitter out
            (grayscale stays).
        use_blur: whether half of the views are blurred; off for CIFAR-10.
        brightness: "v2" (multiplicative) or "v1" (additive).
        crop_area: limits of the crop's share of the image, 0 < low ≤ high ≤ 1.
        flip: whether half of the views are mirrored.
        grayscale: whether a fifth of the views lose their colour. Without it and blur, at strength
            0, the policy is the crop and flip of linear evaluation and fine-tuning.
        vectorized: whether every operation runs on the whole batch, which suits accelerators. If
            False, images are transformed one by one, each by its own operations only, which suits
            CPUs. The views are equal up to rounding. None: vectorized if TensorFlow has an
            accelerator or functions run eagerly (a loop would then take minutes).

    Raises:
        ValueError: if an argument lies outside its range.
    """

    def __init__(
        self,
        image_size: int,
        color_jitter_strength: float = 1.0,
        use_blur: bool = True,
        brightness: str = "v2",
        crop_area: tuple[float, float] = (0.08, 1.0),
        flip: bool = True,
        grayscale: bool = True,
        vectorized: bool | None = None,
    ):
        if image_size < 1:
            raise ValueError(f"image_size must be positive, not {image_size}")
        if color_jitter_strength < 0:
            raise ValueError(f"color_jitter_strength must be ≥ 0, not {color_jitter_strength}")
        if brightness not in ("v1", "v2"):
            raise ValueError(f"brightness must be 'v1' or 'v2', not {brightness!r}")
        if not 0 < crop_area[0] <= crop_area[1] <= 1:
            raise ValueError(f"crop_area must be 0 < low ≤ high ≤ 1, not {crop_area}")
        self.image_size = image_size
        self.color_jitter_strength = color_jitter_strength
        self.use_blur = use_blur
        self.brightness = brightness
        self.crop_area = (float(crop_area[0]), float(crop_area[1]))
        self.flip = flip
        self.grayscale = grayscale
        self.vectorized = vectorized
        # Compiled here, so that every caller has it several times faster.
        self._batched_fn = tf.function(self._batch, jit_compile=True)
        self._one_by_one = tf.function(self._images, jit_compile=True)
        # A graph, whose parts run beside one another.
        self._in_parts = tf.function(self._dealt_out)

    def __call__(
        self,
        images: tf.Tensor,
        seed: tf.Tensor,
        offset: int | tf.Tensor = 0,
        aspect: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the views.

        Args:
            images: uint8, or float in [0, 1], [N, H, W, 3] with static shape.
            seed: int32 [2], made from (run seed, step, view) by `view_seed`.
            offset: global position of the first image.
            aspect: float32 [N], width / height of the originals, where the images were resized to
                a square.

        Returns:
            float32 [N, image_size, image_size, 3] in [0, 1].
        """
        images = tf.convert_to_tensor(images)
        if images.dtype != tf.uint8:
            images = to_float(images)
        n, height, width, _ = images.shape
        gray = draws.uniform(seed, _GRAYSCALE, offset, n, 1)[:, 0] < 0.2
        blurred, sigma = tf.unstack(draws.uniform(seed, _BLUR, offset, n, 2), axis=1)
        drawn = (
            sample_crop_boxes(seed, offset, n, height, width, self.crop_area, aspect=aspect),
            draws.uniform(seed, _FLIP, offset, n, 1)[:, 0] < 0.5,
            color.sample_jitter(seed, offset, n, self.color_jitter_strength),
            gray,
            blurred < 0.5,
            draws.scale(sigma, 0.1, 2.0),
        )
        if _prefer_vectorized() if self.vectorized is None else self.vectorized:
            return self._batched_fn(images, *drawn)
        return self._in_parts(images, *drawn)

    def _batch(self, images, boxes, flipped, jitter, gray, blurred, sigma):
        views = crop_and_resize(to_float(images), boxes, self.image_size)
        if self.flip:
            views = flip_left_right(views, flipped)
        views = tf.clip_by_value(views, 0.0, 1.0)  # bicubic interpolation overshoots
        if self.color_jitter_strength > 0:
            views = color.apply_jitter(views, jitter, self.brightness)
        if self.grayscale:
            views = color.to_grayscale(views, gray)
        if self.use_blur:
            size = blur.kernel_size_for(self.image_size)
            blurry = blur.gaussian_blur(views, sigma, size)
            views = tf.where(blurred[:, tf.newaxis, tf.newaxis, tf.newaxis], blurry, views)
        return tf.clip_by_value(views, 0.0, 1.0)

    def _dealt_out(self, *inputs):
        """Each of the processor's cores has its part of the images."""
        n = inputs[0].shape[0]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        count = min(n, cores or 1)
        bounds = [n * i // count for i in range(count + 1)]
        slices = [slice(*pair) for pair in itertools.pairwise(bounds)]
        parts = [tf.nest.map_structure(lambda x, s=s: x[s], inputs) for s in slices]
        return tf.concat([self._one_by_one(*part) for part in parts], axis=0)

    def _images(self, *inputs):
        return imagewise.map_images(self._image, inputs, self.image_size)

    def _image(self, image, box, flipped, jitter, gray, blurred, sigma):
        planes = imagewise.crop_resize_flip(image, box, flipped & self.flip, self.image_size)
        if self.color_jitter_strength > 0:
            planes = imagewise.jitter(planes, jitter, self.brightness)
        if self.grayscale:
            planes = imagewise.to_grayscale(planes, gray)
        if self.use_blur:
            size = blur.kernel_size_for(self.image_size)
            planes = imagewise.gaussian_blur(planes, blurred, sigma, size)
        return [tf.clip_by_value(plane, 0.0, 1.0) for plane in planes]


def _prefer_vectorized():
    accelerators = [d for d in tf.config.list_logical_devices() if d.device_type != "CPU"]
    return bool(accelerators) or tf.config.functions_run_eagerly()


def to_float(images: tf.Tensor) -> tf.Tensor:
    """uint8 images → float32 in [0, 1]; float images pass as float32.

    Raises:
        ValueError: for other integers, whose range is not known.
    """
    images = tf.convert_to_tensor(images)
    if images.dtype != tf.uint8 and not images.dtype.is_floating:
        raise ValueError(f"images must be uint8, or float in [0, 1], not {images.dtype.name}")
    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) * (1.0 / 255.0)
    return tf.cast(images, tf.float32)
