"""SimCLRAugment: probabilities, order, ranges and randomness; the evaluation transform."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from simclr_tf.augment import SimCLRAugment, eval_transform, view_seed
from tests.augment.conftest import functions_run

pytestmark = pytest.mark.usefixtures("eagerly")

SEED = tf.constant([4, 9])
P_VALUE = 1e-3  # fixed seeds: below this the distribution is wrong
NOTHING = {"color_jitter_strength": 0.0, "use_blur": False, "crop_area": (1.0, 1.0), "flip": False}


def within_binomial(count, n, p):
    return abs(count - n * p) < 4 * np.sqrt(n * p * (1 - p))


# --- what a view depends on ----------------------------------------------------------------------


def test_simclr_augment_agrees_eager_and_compiled(photographs):
    augment = SimCLRAugment(20, vectorized=True)
    views = augment(photographs, SEED).numpy()
    with functions_run(eagerly=False):
        np.testing.assert_allclose(augment(photographs, SEED), views, rtol=1e-5, atol=2e-6)
    assert (views.shape, views.dtype) == ((10, 20, 20, 3), np.float32)
    assert views.min() >= 0 and views.max() <= 1 and views.std() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("vectorized", [True, False])
def test_simclr_augment_agrees_eager_in_tf_data_and_xla(vectorized, photographs, in_all_modes):
    in_all_modes(SimCLRAugment(20, vectorized=vectorized), photographs, SEED)


@pytest.mark.parametrize(
    "settings",
    [
        {"image_size": 60, "brightness": "v1"},
        {"image_size": 17, "color_jitter_strength": 0.0, "flip": False},
        {"image_size": 12, "use_blur": False, "grayscale": False, "crop_area": (0.1, 0.3)},
        {"image_size": 20, "flip": "alternating", "solarize_probability": 0.5},
    ],
)
def test_per_image_policy_equals_the_vectorized_one(settings, photographs):
    images = photographs[:9, :18]  # nine make uneven parts; 18 × 24 is no square
    aspects = np.linspace(0.5, 2, 9)
    if settings["image_size"] == 12:
        images = images / np.float32(255)
    vectorized, one_by_one = (
        SimCLRAugment(**settings, vectorized=vectorized)(images, SEED, 5, aspects)
        for vectorized in (True, False)
    )
    np.testing.assert_allclose(one_by_one, vectorized, atol=2e-5)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_views_of_black_and_white_images_stay_within_range(strength):
    images = np.random.default_rng(0).integers(0, 2, (64, 12, 12, 3)).astype(np.float32)
    views = SimCLRAugment(32, strength)(images, SEED).numpy()
    assert views.min() >= 0 and views.max() <= 1


def test_view_i_depends_on_seed_and_position_alone(photographs):
    augment = SimCLRAugment(16)
    whole = augment(photographs, SEED).numpy()
    np.testing.assert_array_equal(augment(photographs, SEED), whole)
    np.testing.assert_allclose(augment(photographs[3:7], SEED, offset=3), whole[3:7], atol=1e-6)
    offset = tf.constant(3, tf.int64)
    np.testing.assert_allclose(augment(photographs[3:7], SEED, offset), whole[3:7], atol=1e-6)
    # Other images of the batch do not matter.
    others = photographs[::-1].copy()
    others[2] = photographs[2]
    np.testing.assert_allclose(augment(others, SEED)[2], whole[2], atol=1e-6)
    assert np.abs(augment(photographs[3:7], SEED, offset=4) - whole[3:7]).mean() > 0.01


def test_views_steps_and_runs_differ(photographs):
    augment = SimCLRAugment(16)
    seeds = [view_seed(run, step, view) for run in (0, 1) for step in (0, 1) for view in (0, 1)]
    views = [augment(photographs, seed).numpy() for seed in seeds]
    for one, other in itertools.combinations(views, 2):
        # Each image's view, not only some of them.
        assert (np.abs(one - other).mean((1, 2, 3)) > 1e-3).all()


def test_simclr_augment_uses_the_aspect_for_the_crop(photographs):
    augment = SimCLRAugment(16)
    square = augment(photographs, SEED).numpy()
    ones = augment(photographs, SEED, aspect=tf.ones([10])).numpy()
    np.testing.assert_allclose(ones, square, atol=1e-6)
    wide = augment(photographs, SEED, aspect=tf.fill([10], 3.0)).numpy()
    assert np.abs(wide - square).mean() > 0.01


# --- what is applied, how often ------------------------------------------------------------------


def test_operations_have_the_papers_probabilities_and_are_independent():
    # Left half dark and right half light, in a color: a look at three pixels tells all.
    n = 5000
    image = np.tile(np.array([0.3, 0.2, 0.1], np.float32), (1, 2, 20, 1))
    image[:, :, 10:] *= 2
    augment = SimCLRAugment(20, 0.2, crop_area=(1.0, 1.0))
    views = augment(np.tile(image, (n, 10, 1, 1)), SEED).numpy()[:, 10]
    left, adjacent, right = views[:, 0], views[:, 9], views[:, 19]
    flipped = left.sum(1) > right.sum(1)
    # Beside the edge blur lets exp(-1 / 2σ²) through: not to be seen below σ = 0.233.
    blurred = np.abs(adjacent - left).max(1) > 1e-4 * np.abs(right - left).max(1)
    gray = np.ptp(left, axis=1) < 1e-6
    luma = np.array([0.2989, 0.587, 0.114])
    plain = np.where(gray[:, None], (image[0, 0, 0] * luma).sum(), image[0, 0, 0])
    jittered = np.abs(np.where(flipped[:, None], right, left) - plain).max(1) > 1e-5
    events = {"flip": (flipped, 0.5), "gray": (gray, 0.2), "jitter": (jittered, 0.8)}
    events["blur"] = blurred, 0.5 * (2.0 - 0.233) / 1.9
    for name, (happened, p) in events.items():
        assert within_binomial(happened.sum(), n, p), (name, happened.mean())
    for (one, p), (other, q) in itertools.combinations(events.values(), 2):
        assert within_binomial((one & other).sum(), n, p * q)
        # Consecutive images neither share nor alternate.
        assert within_binomial((one[1:] & one[:-1]).sum(), n, p * p)
        assert within_binomial((other[1:] & other[:-1]).sum(), n, q * q)


def test_flip_can_be_switched_off_and_mirrors_exactly(photographs):
    seed = tf.constant([1, 1])
    settings = NOTHING | {"crop_area": (0.2, 0.8)}
    straight = SimCLRAugment(16, **settings)(photographs, seed).numpy()
    perhaps = SimCLRAugment(16, **settings | {"flip": True})(photographs, seed).numpy()
    mirrored = np.abs(perhaps - straight[:, :, ::-1]).max((1, 2, 3)) < 1e-6
    same = np.abs(perhaps - straight).max((1, 2, 3)) < 1e-6
    assert (mirrored ^ same).all()
    assert mirrored.any()
    assert same.any()


def test_alternating_flip_mirrors_exactly_one_view_of_every_image(photographs):
    images = np.tile(photographs, (30, 1, 1, 1))
    settings = NOTHING | {"grayscale": False}
    still = SimCLRAugment(12, **settings)(images, SEED).numpy()
    augment = SimCLRAugment(12, **settings | {"flip": "alternating"})

    def mirrored(step, view, first=0):
        views = augment(images[first:], view_seed(4, step, view), first).numpy()
        is_mirrored = np.abs(views - still[first:, :, ::-1]).max((1, 2, 3)) < 1e-6
        assert (is_mirrored ^ (np.abs(views - still[first:]).max((1, 2, 3)) < 1e-6)).all()
        return is_mirrored

    first = mirrored(step=9, view=0)
    np.testing.assert_array_equal(mirrored(step=9, view=1), ~first)
    np.testing.assert_array_equal(mirrored(step=9, view=1, first=100), ~first[100:])
    assert within_binomial(first.sum(), 300, 0.5)
    assert within_binomial((first == mirrored(step=10, view=0)).sum(), 300, 0.5)


def test_probabilities_can_be_chosen():
    image = np.tile(np.array([0.7, 0.2, 0.1], np.float32), (200, 8, 8, 1))
    image[:, :4] *= 0.5
    plain = SimCLRAugment(20, 0.0, crop_area=(1.0, 1.0), grayscale=False, use_blur=False)
    plain = plain(image, SEED).numpy()
    never = {f"{name}_probability": 0.0 for name in ("jitter", "grayscale", "blur")}
    settings = {"image_size": 20, "crop_area": (1.0, 1.0), **never}

    def views(**probability):
        return SimCLRAugment(**settings | probability)(image, SEED).numpy()

    np.testing.assert_allclose(views(), plain, atol=1e-6)
    for name in ("jitter", "grayscale", "blur", "solarize"):
        for probability in (0.25, 1.0):
            found = views(**{f"{name}_probability": probability})
            changed = np.abs(found - plain).max((1, 2, 3)) > 1e-5
            # A sigma of the blur below 0.2 changes nothing to be seen.
            expected = probability * (0.93 if name == "blur" else 1.0)
            assert within_binomial(changed.sum(), 200, min(expected, 0.99)), (name, probability)
    solarized = views(solarize_probability=1.0)
    np.testing.assert_allclose(solarized, np.where(plain < 0.5, plain, 1 - plain), atol=1e-6)


def test_solarization_comes_last(photographs):
    before = SimCLRAugment(20)(photographs, SEED).numpy()
    after = SimCLRAugment(20, solarize_probability=1.0)(photographs, SEED).numpy()
    np.testing.assert_allclose(after, np.where(before < 0.5, before, 1 - before), atol=1e-5)


def impulses(n, size):
    image = np.zeros((1, size, size, 3), np.float32)
    image[0, size // 2, size // 2] = 1
    return np.tile(image, (n, 1, 1, 1))


def test_half_of_the_views_are_blurred_each_with_its_own_sigma():
    n = 3000
    views = SimCLRAugment(20, **NOTHING | {"use_blur": True})(impulses(n, 20), SEED).numpy()
    center, adjacent = views[:, 10, 10, 0].astype(float), views[:, 10, 11, 0].astype(float)
    # Grayscale's weights sum to 0.9999.
    np.testing.assert_allclose(views[:, 9:12, 9:12, 0].sum((1, 2)), np.ones(n), atol=1.1e-4)
    # The adjacent pixel is exp(-1 / 2σ²) of the center, too small to measure below σ = 0.18.
    blurred = adjacent > 1e-7
    sigma = np.sqrt(-0.5 / np.log(adjacent[blurred] / center[blurred]))
    lowest = np.sqrt(-0.5 / np.log(1e-7))
    assert sigma.max() <= 2.0
    assert within_binomial(blurred.sum(), n, 0.5 * (2.0 - lowest) / 1.9)
    expected = stats.uniform(lowest, 2.0 - lowest)
    assert stats.kstest(sigma, expected.cdf).pvalue > P_VALUE


def test_blur_kernel_grows_with_the_view():
    augment = SimCLRAugment(96, **NOTHING | {"use_blur": True})
    views = augment(impulses(6, 96), SEED).numpy()
    assert max(np.abs(np.argwhere(view[..., 0] > 0) - 48).max() for view in views) == 4


def test_blur_accepts_tiny_views(photographs):
    # A kernel wider than the view's border can reflect must not be asked for.
    assert SimCLRAugment(4)(photographs, SEED).shape == (10, 4, 4, 3)


def test_blur_comes_last(photographs):
    # The same draws without blur: the blurred views are smoother, the others the same.
    images = np.tile(photographs, (8, 1, 1, 1))
    sharp = SimCLRAugment(48)(images, SEED).numpy()
    without = SimCLRAugment(48, use_blur=False)(images, SEED).numpy()
    same = np.abs(sharp - without).max((1, 2, 3)) < 1e-6
    assert 20 < same.sum() < 60
    for blurred, view in zip(sharp[~same], without[~same], strict=True):
        np.testing.assert_allclose(blurred.mean(), view.mean(), atol=0.01)
        assert np.abs(np.diff(blurred, axis=1)).mean() < np.abs(np.diff(view, axis=1)).mean()


def test_crop_area_limits_hold_with_all_operations():
    # A ramp over the rows shows each crop's top and bottom, one over the columns its sides.
    n, ramp = 800, np.arange(80) / 80
    image = np.stack([*np.meshgrid(ramp, ramp, indexing="ij"), np.zeros((80, 80))], -1)
    augment = SimCLRAugment(20, **NOTHING | {"crop_area": (0.3, 0.5), "flip": True})
    views = augment(np.tile(image.astype(np.float32), (n, 1, 1, 1)), SEED).numpy()
    gray = np.ptp(views, axis=-1).max((1, 2)) < 1e-6
    luma = np.where(gray[:, None], [0.2989, 0.587], 1.0)  # what grayscale left of red and green
    red, green = np.moveaxis(views[..., :2] / luma[:, None, None], -1, 0)
    # The inner 16 of 20 output rows and columns span 16/20 of the box.
    height = (red[:, 18, 10] - red[:, 2, 10]) * 20 / 16
    across = (green[:, 10, 18] - green[:, 10, 2]) * 20 / 16
    flipped, width = across < 0, np.abs(across)
    area, aspect = height * width, width / height
    assert area.min() > 0.28 and area.max() < 0.52
    assert aspect.min() > 0.72 and aspect.max() < 1.39
    for values in area, aspect:
        for happened in flipped, gray:
            assert stats.ks_2samp(values[happened], values[~happened]).pvalue > P_VALUE


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 0},
        {"color_jitter_strength": -0.1},
        {"brightness": "v3"},
        {"crop_area": (0.0, 1.0)},
        {"crop_area": (0.5, 0.2)},
        {"crop_area": (0.5, 1.5)},
        {"flip": "both"},
        {"jitter_probability": 1.5},
        {"grayscale_probability": -0.1},
        {"blur_probability": 2.0},
        {"solarize_probability": 1.01},
    ],
)
def test_simclr_augment_refuses_wrong_arguments(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimCLRAugment(**{"image_size": 8} | wrong)


# --- evaluation ----------------------------------------------------------------------------------


def test_eval_transform_crops_the_central_seven_eighths(in_all_modes):
    images = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3)).astype(np.uint8)
    got = in_all_modes(lambda x: eval_transform(x, 224), images)
    np.testing.assert_allclose(got, images[:, 16:240, 16:240] / 255, atol=1e-6)


def random_images(height, width=None):
    shape = (2, height, width or height, 3)
    return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


def assert_resized(got, images):
    expected = tf.image.resize(images, got.shape[1:3], "bicubic")
    np.testing.assert_allclose(got, np.clip(expected, 0, 1), atol=3e-3)


@pytest.mark.parametrize(("stored", "edge", "size"), [(96, 6, 96), (64, 4, 24), (48, 3, 32)])
def test_eval_transform_resizes_the_crop(stored, edge, size):
    images = random_images(stored)
    assert_resized(eval_transform(images, size), images[:, edge:-edge, edge:-edge])


def test_eval_transform_crops_a_square_of_the_original():
    # A landscape and a portrait of 2:1, both stored as squares: their middles, not squashed.
    images, aspects = random_images(64), np.float32([2.0, 0.5])
    got = eval_transform(images, 24, aspects)
    assert_resized(got[:1], images[:1, 4:60, 18:46])
    assert_resized(got[1:], images[1:, 18:46, 4:60])
    # Small ones lose no more than what makes them square.
    got = eval_transform(images[:, :32, :32], 24, aspects)
    assert_resized(got[:1], images[:1, :32, 8:24])
    assert_resized(got[1:], images[1:, 8:24, :32])
    # As a fixed-size set of 2:1 images does without an aspect.
    wide = random_images(64, 128)
    assert_resized(eval_transform(wide, 24), wide[:, 4:60, 36:92])


@pytest.mark.parametrize(("stored", "size"), [(32, 32), (32, 24), (28, 32)])
def test_eval_transform_does_not_crop_small_images(stored, size):
    images = np.random.default_rng(0).integers(0, 256, (3, stored, stored, 3)).astype(np.uint8)
    got = eval_transform(images, size)
    assert (got.shape, got.dtype) == ((3, size, size, 3), tf.float32)
    assert_resized(got, images / 255)


def test_eval_transform_refuses_other_integers():
    with pytest.raises(ValueError, match="uint8"):
        eval_transform(np.zeros((2, 8, 8, 3), np.int32), 8)


def test_overshoot_is_clipped_before_color_operations():
    pixels = 255 * np.random.default_rng(0).integers(0, 2, (1, 8, 8, 3)).astype(np.uint8)
    # The whole image each time, enlarged: views differ in being gray or not.
    views = SimCLRAugment(24, **NOTHING)(np.tile(pixels, (64, 1, 1, 1)), SEED).numpy()
    gray = (np.ptp(views, axis=-1) < 1e-6).all(axis=(1, 2))
    assert 0 < gray.sum() < 64
    expected = tf.image.rgb_to_grayscale(views[~gray][0]).numpy()
    np.testing.assert_allclose(views[gray], np.tile(expected, (gray.sum(), 1, 1, 3)), atol=1e-5)
