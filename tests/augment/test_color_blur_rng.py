"""Color, blur and flip against independent operations, and the random numbers that drive them."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from scipy import ndimage, stats

from simclr_tf.augment import view_seed
from simclr_tf.augment.color import (
    JitterParams,
    apply_jitter,
    jitter_operations,
    sample_jitter,
    to_grayscale,
)
from simclr_tf.augment.ops import flip_left_right, gaussian_blur, kernel_size_for
from simclr_tf.augment.rng import stateless_uniform

# Fixed seeds: a p-value below this means a wrong distribution, not bad luck.
P_VALUE = 1e-3


def one_by_one(operation, images, parameters):
    pairs = zip(images, parameters, strict=True)
    return np.stack([operation(image, parameter) for image, parameter in pairs])


def assert_same_colors(got, expected):
    """Operations need not clip: what counts is the color after clipping."""
    np.testing.assert_allclose(np.clip(got, 0, 1), np.clip(expected, 0, 1), atol=1e-5)


# --- color --------------------------------------------------------------------------------------

FACTORS = np.array([0.0, 0.2, 0.9, 1.0, 1.3, 1.8], np.float32)
DELTAS = np.array([-0.2, 0.2, 0.05, 0.5, -0.35, 0.0], np.float32)
ORACLES = {
    "brightness": lambda image, factor: image * factor,
    "contrast": tf.image.adjust_contrast,
    "saturation": tf.image.adjust_saturation,
    "hue": tf.image.adjust_hue,
}


def adjusted(name, images, amounts):
    """One operation of the color jitter, by its own amount for each image."""
    amounts = tf.convert_to_tensor(amounts)
    jitter = JitterParams(None, tf.stack([amounts] * 3, axis=1), amounts, amounts)
    operation = jitter_operations(jitter)[list(ORACLES).index(name)]
    return tf.stack(operation(tf.unstack(images, axis=-1)), axis=-1)


@pytest.mark.parametrize("name", ORACLES)
def test_color_operations_equal_tf_image(name, images, in_all_modes):
    amounts = DELTAS if name == "hue" else FACTORS
    got = in_all_modes(lambda *inputs: adjusted(name, *inputs), images, amounts)
    assert_same_colors(got, one_by_one(ORACLES[name], images, amounts))


@pytest.mark.parametrize(("name", "low", "high"), [("saturation", 0, 2), ("hue", -0.9, 0.9)])
def test_color_operations_equal_tf_image_on_the_color_cube(name, low, high):
    cube = np.array(list(itertools.product([0.0, 0.5, 1.0], repeat=3)), np.float32)
    cubes = np.tile(cube.reshape(1, 3, 9, 3), (9, 1, 1, 1))
    amounts = np.linspace(low, high, 9, dtype=np.float32)
    expected = one_by_one(ORACLES[name], cubes, amounts)
    assert_same_colors(adjusted(name, cubes, amounts), expected)


def test_grayscale_applies_to_chosen_images(images, in_all_modes):
    chosen = np.array([True, False, True, False, True, False])
    got = in_all_modes(to_grayscale, images, chosen)
    gray = np.tile(tf.image.rgb_to_grayscale(images), (1, 1, 1, 3))
    np.testing.assert_allclose(got[chosen], gray[chosen], atol=1e-6)
    np.testing.assert_array_equal(got[~chosen], images[~chosen])


# --- color jitter -------------------------------------------------------------------------------


def color_jitter(images, seed, offset=0, strength=1.0, brightness="v2"):
    jitter = sample_jitter(seed, offset, images.shape[0], strength)
    return apply_jitter(images, jitter, brightness)


def recovered_draws(count, strength, brightness="v2"):
    """Brightness, contrast, saturation, hue of each image, read off images made to show them."""
    seed = tf.constant([5, 6])

    def jittered(*pixels):
        row = np.array(pixels, np.float32).reshape(1, 1, len(pixels), 3)
        return color_jitter(np.tile(row, (count, 1, 1, 1)), seed, 0, strength, brightness).numpy()

    # Only brightness moves a plain gray. Two grays keep mean and ratio of differences.
    gray = jittered([0.25] * 3)[:, 0, 0, 0]
    grays = jittered([0.23] * 3, [0.27] * 3)[:, 0, :, 0]
    contrast = (grays[:, 1] - grays[:, 0]) / (grays[:, 1] + grays[:, 0]) / (0.02 / 0.25)
    # Contrast does not move a plain color, and brightness moves neither its hue nor saturation.
    color = rgb_to_hsv(jittered([0.4, 0.24, 0.24])[:, 0, 0])
    hue = (color[:, 0] + 0.5) % 1 - 0.5
    offset = gray - 0.25 if brightness == "v1" else gray / 0.25
    return {"brightness": offset, "contrast": contrast, "saturation": color[:, 1] / 0.4, "hue": hue}


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_jitter_draws_are_uniform_in_their_ranges(strength):
    draws = recovered_draws(4000, strength)
    touched = np.abs(draws["brightness"] - 1) + np.abs(draws["contrast"] - 1) > 1e-5
    assert abs(touched.sum() - 3200) < 4 * np.sqrt(4000 * 0.8 * 0.2)
    draws = {name: values[touched] for name, values in draws.items()}
    for name in "brightness", "contrast", "saturation":
        within = stats.uniform(1 - 0.8 * strength, 1.6 * strength)
        assert stats.kstest(draws[name], within.cdf).pvalue > P_VALUE, name
    within = stats.uniform(-0.2 * strength, 0.4 * strength)
    assert stats.kstest(draws["hue"], within.cdf).pvalue > P_VALUE
    for one, other in itertools.combinations(draws.values(), 2):
        assert stats.spearmanr(one, other).pvalue > P_VALUE


def test_jitter_v1_brightness_is_additive():
    strength = 0.25  # -0.2 to 0.2 around 0.25: nothing is clipped
    added = recovered_draws(4000, strength, "v1")["brightness"]
    added = added[np.abs(added) > 1e-6]
    assert abs(len(added) - 3200) < 4 * np.sqrt(4000 * 0.8 * 0.2)
    assert stats.kstest(added, stats.uniform(-0.2, 0.4).cdf).pvalue > P_VALUE
    grays = tf.constant([0.3, 0.5, 0.7])[None, None, :, None] * tf.ones([200, 1, 1, 3])
    got = color_jitter(grays, tf.constant([5, 6]), 0, strength, "v1").numpy()[..., 0]
    # The mean moves by what was added: that multiplies differences is contrast alone.
    added = recovered_draws(200, strength, "v1")["brightness"]
    np.testing.assert_allclose(got.mean((1, 2)) - 0.5, added, atol=1e-5)


def in_order(order, images, draws):
    """The four operations in one order on [N, H, W, 3], clipped to [0, 1] after each."""
    for name in order:
        amounts = draws[name][:, None, None]
        if name == "brightness":
            images = images * amounts[..., None]
        elif name == "contrast":
            means = images.mean((1, 2), keepdims=True)
            images = means + amounts[..., None] * (images - means)
        else:
            hsv = rgb_to_hsv(images)
            if name == "saturation":
                hsv[..., 1] = np.clip(hsv[..., 1] * amounts, 0, 1)
            else:
                hsv[..., 0] = (hsv[..., 0] + amounts) % 1
            images = hsv_to_rgb(hsv)
        images = np.clip(images, 0, 1)
    return images


def test_jitter_applies_its_four_operations_in_uniformly_random_order():
    count = 1200
    draws = recovered_draws(count, 1.0)
    image = np.random.default_rng(1).uniform(size=(4, 4, 3))
    image[0], image[1, 0], image[2, 1] = image[0] ** 3, 1.0, [1.0, 0.0, 0.1]
    images = np.tile(image, (count, 1, 1, 1))
    got = color_jitter(tf.constant(images, tf.float32), tf.constant([5, 6])).numpy()
    # Saturation and hue commute: of two orders in which they are neighbours one will do.
    orders = itertools.permutations(["brightness", "contrast", "saturation", "hue"])
    orders = ["-".join(order) for order in orders]
    orders = [order for order in orders if "hue-saturation" not in order]
    likely = np.array([2 if "saturation-hue" in order else 1 for order in orders]) / 24
    assert len(orders) == 18
    outcomes = np.stack([in_order(order.split("-"), images, draws) for order in orders])
    distances = np.abs(outcomes - got).max((2, 3, 4))  # [18, count]
    np.testing.assert_allclose(distances.min(0), np.zeros(count), atol=2e-4)
    # Count only where all orders can be distinguished, which depends on the amounts alone.
    pairs = itertools.combinations(outcomes, 2)
    apart = np.min([np.abs(one - other).max((1, 2, 3)) for one, other in pairs], axis=0)
    seen = np.bincount(distances.argmin(0)[apart > 1e-3], minlength=18)
    assert seen.sum() > 240
    assert stats.chisquare(seen, likely * seen.sum()).pvalue > P_VALUE, seen


def test_jitter_of_strength_zero_changes_nothing(images):
    for brightness in "v1", "v2":
        got = color_jitter(images, tf.constant([1, 2]), 0, 0.0, brightness)
        np.testing.assert_allclose(got, images, atol=1e-6)


def test_jitter_agrees_eager_in_tf_data_and_xla_and_by_position(images, in_all_modes):
    got = in_all_modes(
        lambda images, seed, offset: color_jitter(images, seed, offset, 1.0, "v1"),
        images,
        np.array([3, 4], np.int32),
        np.int32(2),
    )
    assert got.dtype == np.float32
    part = color_jitter(images[2:5], tf.constant([3, 4]), 4, 1.0, "v1")
    np.testing.assert_allclose(part, got[2:5], atol=1e-6)


@pytest.mark.parametrize("brightness", ["v1", "v2"])
@pytest.mark.parametrize("strength", [1.0, 3.0])
def test_jitter_stays_within_range(brightness, strength, images):
    copies = np.tile(images, (30, 1, 1, 1))
    got = color_jitter(copies, tf.constant([3, 4]), 0, strength, brightness).numpy()
    assert got.min() >= 0
    assert got.max() <= 1


# --- blur ----------------------------------------------------------------------------------------


def test_blur_of_an_impulse_has_the_digits_of_the_reference():
    impulse = np.zeros((1, 32, 32, 3), np.float32)
    impulse[0, 16, 16] = 1
    got = gaussian_blur(impulse, tf.constant([1.0]), kernel_size_for(32))
    np.testing.assert_allclose(got[0, 16, 16], [0.2041799] * 3, atol=2e-7)


def test_blur_kernel_sizes_are_those_of_the_paper():
    assert [kernel_size_for(size) for size in (224, 96, 32)] == [23, 9, 3]


@pytest.mark.parametrize("kernel_size", [1, 7])
def test_blur_equals_a_convolution_of_each_image(kernel_size, images, in_all_modes):
    images = images[:, :, :9]  # not square
    sigma = np.array([0.1, 0.5, 1.0, 1.5, 2.0, 0.8], np.float32)
    got = in_all_modes(lambda x, s: gaussian_blur(x, s, kernel_size), images, sigma)
    for image, width, blurred in zip(images.numpy(), sigma, got, strict=True):
        distance = np.arange(kernel_size) - kernel_size // 2
        weights = np.exp(-(distance**2) / (2.0 * width**2))
        weights /= weights.sum()
        expected = image.astype(np.float64)
        for axis in 0, 1:  # "mirror" reflects about the center of the last pixel
            expected = ndimage.convolve1d(expected, weights, axis, mode="mirror")
        np.testing.assert_allclose(blurred, expected, atol=2e-6)


# --- flip ----------------------------------------------------------------------------------------


def test_flip_applies_to_chosen_images(images, in_all_modes):
    chosen = np.array([True, False, False, True, True, False])
    got = in_all_modes(flip_left_right, images, chosen, exactly=True)
    np.testing.assert_array_equal(got[chosen], images.numpy()[chosen, :, ::-1])
    np.testing.assert_array_equal(got[~chosen], images[~chosen])


# --- random numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "k"), [((7, 2**31 - 1), 22), ((-7, 1), 4)])
def test_draws_are_the_same_numbers_eager_in_tf_data_and_xla(seed, k, in_all_modes):
    got = in_all_modes(
        lambda seed, offset: stateless_uniform(seed, 3, offset, 9, k),
        np.array(seed, np.int32),
        np.int32(5),
        exactly=True,
    )
    assert (got.shape, got.dtype) == ((9, k), np.float32)
    np.testing.assert_array_equal(stateless_uniform(tf.constant(seed), 3, 9, 3, k), got[4:7])


def test_draws_are_uniform_in_24_bits_and_independent():
    draws = stateless_uniform(tf.constant([1, 2]), 0, 0, 20_000, 4).numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    np.testing.assert_array_equal(draws * 2**24, np.round(draws * 2**24))
    assert np.any(draws * 2**24 % 2)
    for column in draws.T:
        assert stats.kstest(column, stats.uniform.cdf).pvalue > P_VALUE
        assert stats.spearmanr(column[1:], column[:-1]).pvalue > P_VALUE
    for one, other in itertools.combinations(draws.T, 2):
        assert stats.spearmanr(one, other).pvalue > P_VALUE


def test_draws_of_different_streams_do_not_overlap():
    # Rows, operations and seeds side by side: streams that overlap repeat a pair of numbers.
    pairs = []
    for seed in itertools.product([0, 1, 2], repeat=2):
        for stream, k in ((0, 22), (1, 22), (2, 22), (3, 22), (5, 6)):
            draws = stateless_uniform(tf.constant(seed), stream, 0, 40, k).numpy()
            pairs.append(np.stack([draws[:, :-1], draws[:, 1:]], -1).reshape(-1, 2))
    pairs = np.concatenate(pairs)
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_seeds_of_runs_steps_and_views_differ():
    runs = [0, 1, 2, 42, 2**31 - 1]
    steps = [0, 1, 2, 41, 42, 43, 100_000, 2**26 - 1]
    seeds = [view_seed(r, s, v).numpy() for r in runs for s in steps for v in (0, 1, 2, 3, 31)]
    assert all((seed.shape, seed.dtype) == ((2,), np.int32) for seed in seeds)
    assert len({tuple(seed) for seed in seeds}) == len(seeds)
    with pytest.raises(ValueError, match="view must be 0 to 31, got 32"):
        view_seed(0, 0, 32)
    traced = tf.function(lambda step: view_seed(42, step, 1))
    np.testing.assert_array_equal(traced(tf.constant(41, tf.int64)), view_seed(42, 41, 1))
