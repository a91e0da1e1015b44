"""SimCLR's augmentation policy [v1 App. A], as a function and as a Keras layer."""

import itertools
import os
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.augment import color, ops
from simclr_tf.augment.crop import crop_and_resize, sample_crop_boxes
from simclr_tf.augment.eval_transform import eval_transform
from simclr_tf.augment.per_image import PerImagePolicy, ViewParams
from simclr_tf.augment.rng import rescale, shared_view_seed, stateless_uniform, view_of_seed

# Each random draw of the policy has its own stream; crop uses 0 and color jitter 2.
_FLIP, _GRAYSCALE, _BLUR, _SOLARIZE = 1, 3, 4, 5


class SimCLRAugment:
    """Makes one random view of every image of a batch.

    In the paper's order: random resized crop; flip (p 0.5); color jitter (p 0.8); grayscale
    (p 0.2); Gaussian blur (p 0.5, sigma uniform in [0.1, 2.0] px per image); and, if asked for,
    BYOL's solarization. Image i of a call depends on (seed, offset + i) alone, so a step can be
    replayed on any number of replicas. It compiles under XLA.

    Args:
        image_size: side of the views, in pixels.
        color_jitter_strength: s ≥ 0: 1 for ImageNet, 0.5 for CIFAR-10; 0 disables color jitter
            (not grayscale).
        use_blur: whether a part of the views is blurred; off for CIFAR-10.
        brightness: "v2" (multiplicative) or "v1" (additive).
        crop_area: limits of the crop's fraction of the image area, 0 < low ≤ high ≤ 1.
        flip: whether half of the views are mirrored: each with p 0.5 (True), or exactly one of
            the two views of every image ("alternating").
        grayscale: whether a part of the views loses its color. Without it and blur, at strength
            0, the policy is the crop and flip of linear evaluation and fine-tuning.
        vectorized: whether every operation runs on the whole batch, which suits accelerators, or
            images are transformed one by one, each by its own operations only, which suits CPUs.
            The views are equal up to rounding. None: vectorized if TensorFlow has an accelerator
            or functions run eagerly (a loop would then take minutes).
        jitter_probability, grayscale_probability, blur_probability, solarize_probability: in
            [0, 1], the expected fraction of the views that each operation changes.

    Raises:
        ValueError: if an argument lies outside its range.

    Example:
        >>> import numpy as np
        >>> import simclr_tf as st
        >>> augment = st.augment.SimCLRAugment(24, color_jitter_strength=0.5)
        >>> seed = st.augment.view_seed(0, step=0, view=1)
        >>> augment(np.full((2, 32, 32, 3), 128, np.uint8), seed).shape.as_list()
        [2, 24, 24, 3]
    """

    def __init__(
        self,
        image_size: int,
        color_jitter_strength: float = 1.0,
        use_blur: bool = True,
        brightness: str = "v2",
        crop_area: tuple[float, float] = (0.08, 1.0),
        flip: bool | str = True,
        grayscale: bool = True,
        vectorized: bool | None = None,
        jitter_probability: float = 0.8,
        grayscale_probability: float = 0.2,
        blur_probability: float = 0.5,
        solarize_probability: float = 0.0,
    ):
        if image_size < 1:
            raise ValueError(f"image_size must be positive, not {image_size}")
        if color_jitter_strength < 0:
            raise ValueError(f"color_jitter_strength must be ≥ 0, not {color_jitter_strength}")
        if brightness not in ("v1", "v2"):
            raise ValueError(f"brightness must be 'v1' or 'v2', not {brightness!r}")
        if not 0 < crop_area[0] <= crop_area[1] <= 1:
            raise ValueError(f"crop_area must be 0 < low ≤ high ≤ 1, not {crop_area}")
        if flip not in (True, False, "alternating"):
            raise ValueError(f"flip must be True, False or 'alternating', not {flip!r}")
        self.probabilities = {
            "jitter": jitter_probability,
            "grayscale": grayscale_probability,
            "blur": blur_probability,
            "solarize": solarize_probability,
        }
        for name, probability in self.probabilities.items():
            if not 0 <= probability <= 1:
                raise ValueError(f"{name}_probability must be in [0, 1], not {probability}")
        self.image_size = image_size
        self.color_jitter_strength = color_jitter_strength
        self.use_blur = use_blur
        self.brightness = brightness
        self.crop_area = (float(crop_area[0]), float(crop_area[1]))
        self.flip = flip
        self.grayscale = grayscale
        self.vectorized = vectorized
        # Compiled here, so that every caller gets the several times faster version.
        self._batched_fn = tf.function(self._transform_batch, jit_compile=True, autograph=False)
        per_image = PerImagePolicy(
            image_size,
            color_jitter_strength,
            use_blur,
            brightness,
            bool(flip),
            grayscale,
            solarize_probability > 0,
        )
        self._per_image_fn = tf.function(
            per_image.transform_images, jit_compile=True, autograph=False
        )
        # A graph, whose parts run in parallel.
        self._multicore_fn = tf.function(self._split_across_cores, autograph=False)

    @tf.autograph.experimental.do_not_convert  # has no control flow to convert
    def __call__(
        self,
        images: tf.Tensor,
        seed: tf.Tensor,
        offset: int | tf.Tensor = 0,
        aspect: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the views, float32 [N, image_size, image_size, 3] in [0, 1].

        Args:
            images: uint8, or float in [0, 1], [N, H, W, 3] with static height and width.
            seed: int32 [2], made from (run seed, step, view) by `view_seed`.
            offset: global position of the first image.
            aspect: float32 [N], width / height of the originals, if the images were resized.
        """
        images = tf.convert_to_tensor(images)
        if images.dtype != tf.uint8:
            images = ops.to_float(images)
        params = self._sample_params(images, seed, offset, aspect)
        if _prefer_vectorized() if self.vectorized is None else self.vectorized:
            return self._batched_fn(images, params)
        return self._multicore_fn(images, params)

    def _sample_params(self, images, seed, offset, aspect):
        _, height, width, _ = images.shape
        n = images.shape[0] or tf.shape(images)[0]
        chance = self.probabilities
        blurred, sigma = tf.unstack(stateless_uniform(seed, _BLUR, offset, n, 2), axis=1)
        alternating = self.flip == "alternating"
        flip_seed = shared_view_seed(seed) if alternating else seed
        flipped = stateless_uniform(flip_seed, _FLIP, offset, n, 1)[:, 0] < 0.5
        if alternating:
            flipped = tf.not_equal(flipped, view_of_seed(seed) == 1)

        def draw(stream, name):
            return stateless_uniform(seed, stream, offset, n, 1)[:, 0] < chance[name]

        return ViewParams(
            boxes=sample_crop_boxes(seed, offset, n, height, width, self.crop_area, aspect=aspect),
            flipped=flipped,
            jitter=color.sample_jitter(
                seed, offset, n, self.color_jitter_strength, chance["jitter"]
            ),
            gray=draw(_GRAYSCALE, "grayscale"),
            blurred=blurred < chance["blur"],
            sigma=rescale(sigma, 0.1, 2.0),
            solarized=draw(_SOLARIZE, "solarize"),
        )

    def _transform_batch(self, images: tf.Tensor, params: ViewParams) -> tf.Tensor:
        views = crop_and_resize(ops.to_float(images), params.boxes, self.image_size)
        if self.flip:
            views = ops.flip_left_right(views, params.flipped)
        views = tf.clip_by_value(views, 0.0, 1.0)  # bicubic interpolation overshoots
        if self.color_jitter_strength > 0:
            views = color.apply_jitter(views, params.jitter, self.brightness)
        if self.grayscale:
            views = color.to_grayscale(views, params.gray)
        if self.use_blur:
            size = ops.kernel_size_for(self.image_size)
            blurry = ops.gaussian_blur(views, params.sigma, size)
            is_blurred = params.blurred[:, tf.newaxis, tf.newaxis, tf.newaxis]
            views = tf.where(is_blurred, blurry, views)
        if self.probabilities["solarize"] > 0:
            is_solarized = params.solarized[:, tf.newaxis, tf.newaxis, tf.newaxis]
            views = tf.where(is_solarized, ops.solarize(views), views)
        return tf.clip_by_value(views, 0.0, 1.0)

    def _split_across_cores(self, images: tf.Tensor, params: ViewParams) -> tf.Tensor:
        """Transforms one part of the images on each CPU core."""
        n = images.shape[0] or tf.shape(images)[0]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        count = min(images.shape[0] or cores or 1, cores or 1)
        bounds = [n * i // count for i in range(count + 1)]
        slices = [slice(*pair) for pair in itertools.pairwise(bounds)]
        parts = [tf.nest.map_structure(lambda x, s=s: x[s], (images, params)) for s in slices]
        return tf.concat([self._per_image_fn(*part) for part in parts], axis=0)


def _prefer_vectorized():
    accelerators = [d for d in tf.config.list_logical_devices() if d.device_type != "CPU"]
    return bool(accelerators) or tf.config.functions_run_eagerly()


@keras.saving.register_keras_serializable("simclr_tf")
class SimCLRAugmentation(keras.layers.Layer):
    """Keras layer that makes one random view of every image with `SimCLRAugment`.

    Each training call makes different views; the sequence of views is a function of the seed. Call
    c makes the views of `SimCLRAugment` with seed (seed, c), so that the calls 2s and 2s + 1 are
    the two views of step s. With `training=False` the layer applies the evaluation preprocessing
    (`eval_transform`) and does not count the call. In `tf.data` pipelines, create the layer outside
    of `map` and map sequentially for a reproducible order.

    Args:
        image_size: side S of the views, in pixels; this, the arguments up to `grayscale` and the
            probabilities are those of `SimCLRAugment`.
        seed: seed of all views, an int32.
        jitter_probability, grayscale_probability, blur_probability, solarize_probability: in
            [0, 1].
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        images: uint8, or float in [0, 1], [N, H, W, 3]; N may be unknown.
        training: whether to make random views (default) or apply the evaluation preprocessing.

    Returns:
        float32 [N, S, S, 3] in [0, 1].

    Example:
        >>> import numpy as np
        >>> import simclr_tf as st
        >>> images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
        >>> layer = st.augment.SimCLRAugmentation(24, seed=1)
        >>> bool(np.allclose(layer(images), layer(images)))
        False
    """

    def __init__(
        self,
        image_size: int,
        color_jitter_strength: float = 1.0,
        use_blur: bool = True,
        brightness: str = "v2",
        crop_area: tuple[float, float] = (0.08, 1.0),
        flip: bool | str = True,
        grayscale: bool = True,
        seed: int = 0,
        jitter_probability: float = 0.8,
        grayscale_probability: float = 0.2,
        blur_probability: float = 0.5,
        solarize_probability: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self._arguments: dict[str, Any] = {
            "image_size": image_size,
            "color_jitter_strength": color_jitter_strength,
            "use_blur": use_blur,
            "brightness": brightness,
            "crop_area": tuple(crop_area),
            "flip": flip,
            "grayscale": grayscale,
            "jitter_probability": jitter_probability,
            "grayscale_probability": grayscale_probability,
            "blur_probability": blur_probability,
            "solarize_probability": solarize_probability,
        }
        self.seed = seed
        self._augment = SimCLRAugment(**self._arguments)
        # Created here, because tf.data's map cannot. Every replica counts for itself.
        self._num_calls = self.add_weight(
            "num_calls",
            shape=(),
            dtype=tf.int32,
            initializer="zeros",
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    @property
    def policy(self) -> SimCLRAugment:
        """The augmentation as a function of (images, seed, offset, aspect)."""
        return self._augment

    def call(self, images: tf.Tensor, training: bool | tf.Tensor = True) -> tf.Tensor:
        """Returns views, or evaluation images if not `training`."""
        images = tf.convert_to_tensor(images)
        if tf.is_tensor(training):
            return tf.cond(
                tf.cast(training, tf.bool),
                lambda: self._random_views(images),
                lambda: eval_transform(images, self._augment.image_size),
            )
        if training:
            return self._random_views(images)
        return eval_transform(images, self._augment.image_size)

    def _random_views(self, images: tf.Tensor) -> tf.Tensor:
        call = self._num_calls.assign_add(1, read_value=True) - 1
        context = tf.distribute.get_replica_context()
        replica = 0 if context is None else context.replica_id_in_sync_group
        offset = tf.cast(replica, tf.int32) * tf.shape(images)[0]
        return self._augment(images, tf.stack([self.seed, call]), offset)

    def compute_output_shape(self, input_shape: Any) -> tf.TensorShape:
        """Returns [N, S, S, 3]."""
        size = self._augment.image_size
        return tf.TensorShape([input_shape[0], size, size, 3])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), **self._arguments, "seed": self.seed}
