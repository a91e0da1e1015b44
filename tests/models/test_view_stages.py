"""Views whose size changes during training: the same steps as by hand, one graph per size."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.models.layers import LayerFactory
from tests.models.tiny_simclr import batches, build, dimmed, optimizer_named, train, weights_of

STEPS, STAGES = 7, [(2, 4), (5, 6)]  # 4 pixels in steps 0 and 1, 6 until step 4, then 8
SIZES = [4, 4, 6, 6, 6, 8, 8]


def encoder_of_any_size():
    policy = keras.mixed_precision.Policy("float64")
    images = keras.Input((None, None, 3), dtype="float64")
    x = LayerFactory(policy).conv_bn_relu(images, 6, 3, "first", 1)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(dtype=policy)(x))


def views_of(size, traced=None):
    """A policy that notes its calls: one per trace of a compiled step."""

    def view(images, seed, offset, aspect):
        if traced is not None:
            traced.append(size)
        return dimmed(images, seed, offset, aspect)[:, :size, :size]

    return view


def model_of(size, **settings):
    keras.utils.set_random_seed(0)
    encoder = encoder_of_any_size()
    return build(optimizer_named("momentum"), True, encoder, augment=views_of(size), **settings)


def trained_by_hand(**settings):
    """Eager steps, each with the views of its size."""
    model, step = model_of(SIZES[0], **settings), 0

    def set_size():
        nonlocal step
        step += 1
        if step < STEPS:
            model.policies = (views_of(SIZES[step]),) * 2

    train(model, STEPS, after_step=set_size)
    return weights_of(model)


def dataset():
    columns = {name: tf.stack([b[name] for b in batches(STEPS)]) for name in ("image", "label")}
    return tf.data.Dataset.from_tensor_slices(columns)


@pytest.mark.parametrize(
    ("replicas", "steps_per_execution", "settings"),
    [
        (1, 4, {}),  # 4 steps of two stages, then 3
        pytest.param(1, 1, {"microbatch_size": 6}, marks=pytest.mark.slow),
        pytest.param(2, 3, {}, marks=pytest.mark.slow),
    ],
)
def test_fit_takes_the_steps_of_each_stage_with_its_views(
    mirrored, replicas, steps_per_execution, settings
):
    strategy = mirrored(replicas) if replicas > 1 else tf.distribute.get_strategy()
    traced: list[int] = []
    with strategy.scope():
        model = model_of(8, **settings)
        model.compile(optimizer_named("momentum"), steps_per_execution=steps_per_execution)
        model.schedule_views((end, views_of(size, traced)) for end, size in STAGES)
    model.fit(dataset(), epochs=1, verbose=0)
    for found, expected in zip(weights_of(model), trained_by_hand(**settings), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert list(dict.fromkeys(traced)) == [4, 6]  # in this order, and no longer in the last stage


def test_fit_continues_in_the_stage_of_its_step_without_compiling_again():
    model, counts = model_of(8), []
    traced: list[int] = []
    model.schedule_views((end, views_of(size, traced)) for end, size in STAGES)
    for first, last in ((0, 1), (1, 4), (4, STEPS)):
        model.fit(dataset().skip(first).take(last - first), verbose=0)
        counts.append((traced.count(4), traced.count(6)))
    (once, none), *others = counts
    assert once > 0 and none == 0
    assert others[0] == others[1] and others[0][0] == once and others[0][1] > 0
    for found, expected in zip(weights_of(model), trained_by_hand(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_views_outside_of_training_steps_have_the_last_size():
    model = model_of(8)
    model.schedule_views((end, views_of(size)) for end, size in STAGES)
    model.fit(dataset().take(1), verbose=0)
    (batch,) = batches(1)
    assert model.make_views(batch, 0).shape == (24, 8, 8, 3)
