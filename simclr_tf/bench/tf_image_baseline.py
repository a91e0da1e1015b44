"""Baseline of the augmentation benchmark: the paper's recipe for single images, with `tf.image`.

It runs in tf.data's parallel map on the host, as most SimCLR code does, neither slowed down nor
tuned, and shares no code with `simclr_tf.augment`.
"""

import tensorflow as tf


def tf_image_dataset(
    images: tf.Tensor, batch_size: int, image_size: int, strength: float, use_blur: bool
) -> tf.data.Dataset:
    """Returns an infinite dataset of pairs of views, float32 [B, S, S, 3] in [0, 1].

    The images, uint8 [N, H, W, 3], are repeated in their order. Strength 0 disables color jitter.
    """

    def two_views(image):
        return tuple(random_view(image, image_size, strength, use_blur) for _ in range(2))

    return (
        tf.data.Dataset.from_tensor_slices(images)
        .repeat()
        .map(two_views, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def random_view(image: tf.Tensor, image_size: int, strength: float, use_blur: bool) -> tf.Tensor:
    """Makes one view of one image [v1 App. A]: uint8 [H, W, 3] → float32 [S, S, 3] in [0, 1]."""
    image = tf.image.convert_image_dtype(image, tf.float32)
    image = _random_resized_crop(image, image_size)
    image = tf.image.random_flip_left_right(image)
    if strength > 0:
        image = _with_probability(0.8, lambda x: _color_jitter(x, strength), image)
    image = _with_probability(0.2, _grayscale, image)
    if use_blur:
        image = _with_probability(0.5, lambda x: blur(x, image_size), image)
    return tf.ensure_shape(tf.clip_by_value(image, 0.0, 1.0), [image_size, image_size, 3])


def _with_probability(probability, operation, image):
    chosen = tf.random.uniform([]) < probability
    return tf.cond(chosen, lambda: operation(image), lambda: image)


def _random_resized_crop(image, size):
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image),
        bounding_boxes=tf.zeros([1, 0, 4]),
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.image.resize(tf.slice(image, begin, extent), [size, size], method="bicubic")


def _color_jitter(image, strength):
    spread = 0.8 * strength
    low, high = max(0.0, 1.0 - spread), 1.0 + spread
    image = tf.clip_by_value(image, 0.0, 1.0)  # bicubic interpolation overshoots
    order = tf.random.shuffle(tf.range(4))
    for turn in range(4):
        image = tf.switch_case(
            order[turn],
            [
                lambda x=image: x * tf.random.uniform([], low, high),
                lambda x=image: tf.image.random_contrast(x, low, high),
                lambda x=image: tf.image.random_saturation(x, low, high),
                lambda x=image: tf.image.random_hue(x, 0.2 * strength),
            ],
        )
        image = tf.clip_by_value(image, 0.0, 1.0)
    return image


def _grayscale(image):
    return tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))


def blur(image: tf.Tensor, image_size: int) -> tf.Tensor:
    """Blurs one image, float32 [H, W, 3], with a kernel of a tenth of the views' side."""
    radius = image_size // 10 // 2
    sigma = tf.random.uniform([], 0.1, 2.0)
    taps = tf.range(-radius, radius + 1, dtype=tf.float32)
    weights = tf.nn.softmax(-tf.square(taps / sigma) / 2.0)
    column = tf.tile(weights[:, tf.newaxis, tf.newaxis, tf.newaxis], [1, 1, 3, 1])
    images = image[tf.newaxis]
    for kernel in (column, tf.transpose(column, [1, 0, 2, 3])):
        images = tf.nn.depthwise_conv2d(images, kernel, [1, 1, 1, 1], "SAME")
    return images[0]
