"""Random resized crop: the boxes' distribution, and the bicubic resize of each box."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from simclr_tf.augment.crop import crop_and_resize, sample_crop_boxes

SEED = tf.constant([3, 8])
P_VALUE = 1e-3  # fixed seeds: below this the distribution is wrong


def rejection_sampling(count, height, width, area=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """Heights and widths by [v1 App. A], one box at a time, drawn again until it fits."""
    random = np.random.default_rng(11)
    boxes = []
    while len(boxes) < count:
        pixels = random.uniform(*area) * height * width
        aspect = np.exp(random.uniform(*np.log(ratio)))
        h, w = np.sqrt(pixels / aspect), np.sqrt(pixels * aspect)
        if h <= height and w <= width:
            boxes.append((h, w))
    return np.array(boxes).T


# --- boxes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "area", "ratio"),
    [
        (4000, 4000, (0.08, 1.0), (3 / 4, 4 / 3)),
        (4000, 4000, (0.3, 0.9), (1 / 2, 2.0)),
        (3000, 4000, (0.08, 1.0), (3 / 4, 4 / 3)),
        (5000, 3500, (0.08, 1.0), (3 / 4, 4 / 3)),
    ],
)
def test_box_sizes_have_the_distribution_of_rejection_sampling(height, width, area, ratio):
    y, x, h, w = (
        sample_crop_boxes(SEED, 0, 5000, height, width, area, ratio).numpy().T.astype(float)
    )
    slow_h, slow_w = rejection_sampling(5000, height, width, area, ratio)
    assert stats.ks_2samp(h * w, slow_h * slow_w).pvalue > P_VALUE
    assert stats.ks_2samp(w / h, slow_w / slow_h).pvalue > P_VALUE
    # Area and aspect together: where they bind each other is in the corner of large boxes.
    assert stats.ks_2samp(w**2 * h, slow_w**2 * slow_h).pvalue > P_VALUE
    assert stats.ks_2samp(h**2 * w, slow_h**2 * slow_w).pvalue > P_VALUE
    for start, size, extent in (y, h, height), (x, w, width):
        free = extent - size > 50
        share = start[free] / (extent - size[free])
        assert stats.kstest(share, stats.uniform.cdf).pvalue > P_VALUE
        assert stats.spearmanr(share, size[free]).pvalue > P_VALUE


def test_box_defaults_are_those_of_the_paper():
    default = sample_crop_boxes(SEED, 0, 50, 500, 500)
    stated = sample_crop_boxes(SEED, 0, 50, 500, 500, (0.08, 1.0), (3 / 4, 4 / 3))
    np.testing.assert_array_equal(default, stated)


@pytest.mark.parametrize(
    ("height", "width"), [(32, 32), (5, 400), (400, 5), (1, 1), (2, 3), (1, 300)]
)
def test_boxes_lie_inside(height, width):
    boxes = sample_crop_boxes(SEED, 0, 500, height, width).numpy()
    assert boxes.dtype == np.int32
    y, x, h, w = boxes.T
    for start, size, extent in (y, h, height), (x, w, width):
        assert start.min() >= 0
        assert size.min() >= 1
        assert (start + size).max() <= extent


@pytest.mark.parametrize(("height", "width", "ratio"), [(30, 4000, 4 / 3), (4000, 30, 3 / 4)])
def test_box_that_never_fits_becomes_the_largest_within_the_aspect_limits(height, width, ratio):
    # Of 1/133 of the pixels' shape no box has 8 % of the area and an aspect below 4/3.
    _, _, h, w = sample_crop_boxes(SEED, 0, 20, height, width).numpy().T
    short = min(height, width)
    np.testing.assert_array_equal(np.minimum(h, w), short)
    np.testing.assert_allclose(w / h, ratio, rtol=0.02)


@pytest.mark.parametrize("aspect", [2.0, 0.5])
def test_boxes_use_the_aspect_of_the_original(aspect):
    # Stored as 4000 × 4000, the original was twice as wide as high (or the other way round).
    side, root = 4000, np.sqrt(aspect)
    y, x, h, w = (
        sample_crop_boxes(SEED, 0, 5000, side, side, aspect=tf.fill([5000], aspect))
        .numpy()
        .T.astype(float)
    )
    slow_h, slow_w = rejection_sampling(5000, side / root, side * root)
    assert stats.ks_2samp(h / root, slow_h).pvalue > P_VALUE
    assert stats.ks_2samp(w * root, slow_w).pvalue > P_VALUE
    assert (y + h).max() <= side
    assert (x + w).max() <= side


def test_boxes_use_the_aspect_of_each_image():
    aspects = np.tile([1.0, 3.0, 1 / 3], 200).astype(np.float32)
    _, _, h, w = sample_crop_boxes(SEED, 0, 600, 900, 900, aspect=tf.constant(aspects)).numpy().T
    in_original = aspects * w / h
    for kind in range(3):
        assert in_original[kind::3].min() > 0.74
        assert in_original[kind::3].max() < 1.35
        assert len(np.unique(h[kind::3])) > 50
    square = sample_crop_boxes(SEED, 0, 600, 900, 900).numpy()[::3]
    np.testing.assert_array_equal(np.stack([h[::3], w[::3]], 1), square[:, 2:])


def test_box_depends_on_seed_and_position_alone(in_all_modes):
    def boxes(seed, offset):
        return sample_crop_boxes(seed, offset, 10, 64, 48)

    whole = in_all_modes(boxes, SEED, np.int32(0), exactly=True)
    np.testing.assert_array_equal(sample_crop_boxes(SEED, 3, 4, 64, 48), whole[3:7])
    assert len(np.unique(whole, axis=0)) == 10
    assert np.any(sample_crop_boxes(tf.constant([3, 9]), 0, 10, 64, 48) != whole)


# --- crop and resize -----------------------------------------------------------------------------

BOXES = [
    (0, 0, 13, 17),  # all of it
    (2, 3, 5, 5),
    (0, 0, 1, 1),
    (12, 16, 1, 1),
    (5, 0, 2, 17),
    (0, 9, 13, 3),
    (6, 6, 5, 9),
    (1, 1, 12, 16),
]


def keys(x):
    """Keys' cubic convolution kernel with a = -0.5."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def bicubic(image, size):
    """One image [H, W, C] resized in float64, one weight at a time."""
    for axis in 0, 1:
        extent = image.shape[axis]
        weights = np.zeros((size, extent))
        for s, k in np.ndindex(size, extent):
            weights[s, k] = keys((s + 0.5) * extent / size - 0.5 - k)
        weights /= weights.sum(1, keepdims=True)
        image = np.moveaxis(np.tensordot(weights, image.astype(np.float64), (1, axis)), 0, axis)
    return image


@pytest.mark.parametrize("size", [1, 5, 24])
def test_crop_and_resize_equals_a_bicubic_resize_of_each_box(size, in_all_modes):
    images = np.random.default_rng(0).uniform(size=(len(BOXES), 13, 17, 3)).astype(np.float32)
    images = np.concatenate([images, images.round()])  # black and white overshoot most
    boxes = np.array(BOXES + BOXES, np.int32)
    got = in_all_modes(lambda images, boxes: crop_and_resize(images, boxes, size), images, boxes)
    assert (got.shape, got.dtype) == ((2 * len(BOXES), size, size, 3), np.float32)
    for image, (y, x, h, w), view in zip(images, boxes, got, strict=True):
        box = image[y : y + h, x : x + w]
        np.testing.assert_allclose(view, bicubic(box, size), atol=1e-5)
        # TensorFlow takes its weights from a table of 1024 distances.
        theirs = tf.image.resize(box, [size, size], "bicubic")
        np.testing.assert_allclose(view, theirs, atol=3e-3)


def test_crop_and_resize_ignores_pixels_outside_the_box():
    images = np.random.default_rng(0).uniform(size=(2, 12, 12, 3)).astype(np.float32)
    images[1] = 9.0
    images[1, 4:9, 2:7] = images[0, 4:9, 2:7]
    got = crop_and_resize(images, np.array([(4, 2, 5, 5)] * 2, np.int32), 8)
    np.testing.assert_allclose(got[1], got[0], atol=1e-6)
