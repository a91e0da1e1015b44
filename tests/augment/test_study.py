"""Named transformations of one view, after a crop that both views share."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from simclr_tf import config, option_groups
from simclr_tf.augment import NamedTransforms, SimCLRAugment, view_seed
from simclr_tf.augment.ops import cutout, rotate90, sobel
from simclr_tf.augment.rng import shared_view_seed
from tests.augment.conftest import functions_run

pytestmark = pytest.mark.usefixtures("eagerly")

SEEDS = [view_seed(3, 7, view) for view in (0, 1)]
NAMES = option_groups.TRANSFORMATIONS
P_VALUE = 1e-3  # fixed seeds: below this the distribution is wrong
WHOLE = {"crop_area": (1.0, 1.0)}


def gray(count, size=16):
    return np.full((count, size, size, 3), 0.25, np.float32)


# --- cutout --------------------------------------------------------------------------------------


def test_cutout_covers_only_the_square(images, in_all_modes):
    centers = np.array([[0, 0], [11, 11], [6, 2], [3, 9], [5, 5], [0, 11]], np.int32)
    found = in_all_modes(lambda x, c: cutout(x, c, 5, 0.25), images, centers, exactly=True)
    for image, (row, column), ours in zip(images.numpy(), centers, found, strict=True):
        expected = image.copy()
        for y, x in itertools.product(range(12), range(12)):
            if 0 <= y - (row - 2) < 5 and 0 <= x - (column - 2) < 5:
                expected[y, x] = 0.25
        np.testing.assert_array_equal(ours, expected)


# --- the composition -----------------------------------------------------------------------------


def test_named_transforms_accept_every_name_of_the_config():
    assert [NamedTransforms(8, [name]).names for name in NAMES] == [(name,) for name in NAMES]
    with pytest.raises(ValueError, match="each once"):
        NamedTransforms(8, ["crop", "solarize"])
    with pytest.raises(ValueError, match="each once"):
        NamedTransforms(8, ["crop", "crop"])


def test_named_transforms_agree_eager_and_compiled(photographs):
    augment = NamedTransforms(16, NAMES)
    views = augment(photographs, SEEDS[1])
    assert (views.shape, views.dtype) == ((10, 16, 16, 3), tf.float32)
    with functions_run(eagerly=False):
        np.testing.assert_allclose(augment(photographs, SEEDS[1]), views, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_named_transforms_depend_on_seed_and_position_alone(name, photographs):
    augment = NamedTransforms(16, [name])
    whole = augment(photographs, SEEDS[1], 40).numpy()
    assert whole.min() >= 0 and whole.max() <= 1
    assert np.abs(whole - NamedTransforms(16)(photographs, SEEDS[1], 40)).max() > 0.05
    part = augment(photographs[3:7], SEEDS[1], 43).numpy()
    np.testing.assert_allclose(part, whole[3:7], atol=1e-6)
    np.testing.assert_allclose(augment(photographs, SEEDS[1], 40), whole, atol=0)
    if name != "sobel":  # which draws nothing beyond the shared crop
        same = np.repeat(photographs[:1], 10, axis=0)
        views = NamedTransforms(16, [name], **WHOLE)(same, SEEDS[1]).numpy()
        assert len(np.unique(views.round(4), axis=0)) > 1
        # Another view of the same step: the crop is the same, the transformation is not.
        other = augment(photographs, view_seed(3, 7, 0), 40).numpy()
        assert not np.allclose(other, whole, atol=0.02)


def test_named_transforms_share_the_crop_between_views(photographs):
    plain, again = (NamedTransforms(16)(photographs, seed, 5).numpy() for seed in SEEDS)
    np.testing.assert_array_equal(plain, again)
    crop = SimCLRAugment(16, 0.0, use_blur=False, flip=False, grayscale=False)
    np.testing.assert_allclose(crop(photographs, shared_view_seed(SEEDS[0]), 5), plain, atol=1e-6)
    # Of another step another one, and that of no view.
    for seed in (view_seed(3, 8, 0), view_seed(4, 7, 0)):
        assert not np.allclose(NamedTransforms(16)(photographs, seed, 5), plain)
    for seed in SEEDS:
        assert not np.allclose(crop(photographs, seed, 5), plain)


def test_shared_view_seeds_are_of_no_view():
    seeds = [tuple(view_seed(1, s, v).numpy()) for s in range(50) for v in (0, 1)]
    shared = [tuple(shared_view_seed(tf.constant(seed)).numpy()) for seed in seeds]
    assert shared[::2] == shared[1::2]
    assert len(set(shared)) == 50 and not set(shared) & set(seeds)


def test_named_transforms_apply_in_the_order_given(photographs):
    def views(*names):
        return NamedTransforms(24, names, **WHOLE)(photographs, SEEDS[1]).numpy()

    turned = views("rotation")
    np.testing.assert_allclose(views("rotation", "sobel"), sobel(tf.constant(turned)), atol=1e-6)
    edges = views("sobel")
    square = np.all(views("cutout") == 0.5, axis=-1, keepdims=True)
    # Covered last it is gray; covered first, Sobel makes it black, but for its edges.
    np.testing.assert_allclose(views("sobel", "cutout"), np.where(square, 0.5, edges), atol=1e-6)
    assert np.median(views("cutout", "sobel")[np.broadcast_to(square, edges.shape)]) == 0


def test_named_transforms_use_the_aspect_for_the_shared_crop_only():
    """A square of an original that was twice as wide is half as wide where that was stored."""
    ramp = np.broadcast_to(np.linspace(0, 1, 32)[:, np.newaxis], (400, 32, 32, 3)).astype("float32")
    wide = np.full(400, 4.0, np.float32)
    for names in ((), ("crop",)):
        augment = NamedTransforms(16, names, crop_area=(0.2, 0.2))
        square, half = (np.ptp(augment(ramp, SEEDS[1], 0, a), axis=(1, 2, 3)) for a in (None, wide))
        assert half.mean() / square.mean() == pytest.approx(0.5, rel=0.05)


# --- distributions -------------------------------------------------------------------------------


def test_cutout_squares_are_half_the_side_and_centered_anywhere():
    views = NamedTransforms(16, ["cutout"], **WHOLE)(gray(3000), SEEDS[1]).numpy()
    covered = views[..., 0] == 0.5
    rows, columns = covered.any(2).sum(1), covered.any(1).sum(1)
    for lengths in (rows, columns):
        # 8 where the square lies inside; at the rim 4 to 7 of them are left.
        counts = [np.sum(lengths == n) for n in range(4, 9)]
        # First row -8 // 2 + 0 … : the center is uniform over 16 pixels.
        expected = [len(views) * n / 16 for n in (1, 2, 2, 2, 9)]
        assert stats.chisquare(counts, expected).pvalue > P_VALUE
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 4 / np.sqrt(len(views))


def test_rotations_are_equally_often_by_each_quarter_turn(photographs):
    image = photographs[:1]
    views = NamedTransforms(24, ["rotation"], **WHOLE)(np.repeat(image, 2000, 0), SEEDS[1]).numpy()
    turned = [rotate90(tf.constant(image) / 255, tf.constant([t])).numpy()[0] for t in range(4)]
    counts = [np.sum(np.abs(views - one).max((1, 2, 3)) < 1e-5) for one in turned]
    assert sum(counts) == 2000
    assert stats.chisquare(counts).pvalue > P_VALUE


def test_noise_is_normal_with_a_standard_deviation_of_one_tenth(photographs):
    views = NamedTransforms(16, ["noise"], **WHOLE)(gray(40) + 0.25, SEEDS[1]).numpy()
    assert stats.kstest((views - 0.5).ravel() / 0.1, "norm").pvalue > P_VALUE


def test_blur_applies_to_half_of_the_views_and_to_small_ones(photographs):
    impulse = np.zeros((2000, 9, 9, 3), np.float32)
    impulse[:, 4, 4] = 1
    views = NamedTransforms(9, ["blur"], **WHOLE)(impulse, SEEDS[1]).numpy()
    blurred = views[:, 4, 4, 0] < 0.9999
    assert abs(blurred.sum() - 1000) < 4 * np.sqrt(500)
    assert np.count_nonzero(views[blurred][0, ..., 0]) == 9  # three pixels square


def test_crop_and_color_equal_those_of_simclr_augment(photographs):
    """With their seed, `crop` and `color` are those of SimCLR's policy without its other parts."""
    same = np.repeat(photographs[:1], 200, axis=0)
    settings = {"color_jitter_strength": 0.5, "brightness": "v1", "grayscale": True}
    found = NamedTransforms(24, ["color"], **settings, **WHOLE)(same, SEEDS[1]).numpy()
    policy = SimCLRAugment(24, 0.5, False, "v1", (1.0, 1.0), flip=False)
    np.testing.assert_allclose(found, policy(same, SEEDS[1]), atol=1e-5)

    crop = SimCLRAugment(24, 0.0, use_blur=False, grayscale=False)
    found = NamedTransforms(24, ["crop"])(photographs, SEEDS[1], 9).numpy()
    shared = NamedTransforms(24)(photographs, SEEDS[1], 9)
    np.testing.assert_allclose(found, crop(shared, SEEDS[1], 9), atol=1e-5)
    still = NamedTransforms(24, ["crop"], flip=False)(photographs, SEEDS[1], 9).numpy()
    mirrored = [i for i in range(10) if not np.allclose(still[i], found[i])]
    np.testing.assert_allclose(still[mirrored][:, :, ::-1], found[mirrored], atol=1e-6)
    assert 0 < len(mirrored) < 10


# --- from the config to the model ----------------------------------------------------------------


def test_config_errors_name_the_transformations_flag():
    for transformations, words in (
        ("crop,solarize", "--transformations=crop,solarize: expected any of crop, cutout"),
        ("crop,crop", "each at most once"),
    ):
        with pytest.raises(config.UserError, match=words):
            config.Augmentation(transformations=transformations)
    with pytest.raises(config.UserError, match="--policy=randaugment"):
        config.Augmentation(transformations="crop", policy="randaugment")
    with pytest.raises(config.UserError, match="--views_per_image=2"):
        config.FinetuneConfig(
            config.Data(dataset="shapes"),
            config.Augmentation(transformations="crop"),
            finetuning=config.FineTuning(from_scratch=True),
        )
