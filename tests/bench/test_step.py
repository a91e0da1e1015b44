"""The bench of the step: what it runs, and what it makes of the figures."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.bench import step
from simclr_tf.bench.measure import ProcessDiedError, Spread
from simclr_tf.bench.setting import NUM_CLASSES, noise_views, plan
from simclr_tf.errors import UserError
from simclr_tf.models.build import build_model


def silent(line):
    del line


def spreads(**figures):
    return {name.replace("_", " "): Spread(values) for name, values in figures.items()}


FIGURES = spreads(
    float32_step=(90.0, 80.0),
    float32_bare=(100.0, 100.0),
    bfloat16_step=(180.0, 200.0),
    bfloat16_bare=(200.0, 250.0),
)
FORWARD = 2 * 10**9


def test_ratios_are_to_the_bare_encoder_and_to_float32(answered):
    asked = answered("step", [(FIGURES, FORWARD)] * 2)
    report = step.run(step.Options(width_multipliers="1,0.25", repeats=2), silent)
    assert asked == [(1.0,), (0.25,)]
    rows = [
        ["float32", "85 (80–90)", "100 (100–100)", "85 (80–90)", "–", "510", "–"],
        ["bfloat16", "190 (180–200)", "225 (200–250)", "85 (80–90)", "2.25 (2–2.5)", "1140", "–"],
    ]
    assert report.rows == [[width, *row] for width in ("1", "0.25") for row in rows]
    assert report.results[1]["flops_per_second"] == 3 * FORWARD * 190


def test_without_float32_nothing_is_compared_with_it(answered):
    answered("step", [(FIGURES | {"float32 step": None}, FORWARD)])
    figures = {name: FIGURES[name] for name in ("bfloat16 step", "bfloat16 bare")}
    answered("step", [(figures, FORWARD)])
    options = step.Options(width_multipliers="1", precisions="bfloat16")
    assert step.run(options, silent).rows[0][5] == "–"


def test_share_of_the_peak(answered):
    given = {"width_multipliers": "1", "precisions": "bfloat16"}
    achieved = 3 * FORWARD * 190
    for gpus, options, peak in (
        (["NVIDIA A100-SXM4-40GB"], step.Options(**given), 312e12),
        (["NVIDIA A100-SXM4-40GB"], step.Options(**given, peak_tflops=2.0), 2e12),
        ([], step.Options(**given, peak_tflops=2.0), 2e12),
    ):
        answered("step", [(FIGURES, FORWARD)], gpus)
        report = step.run(options, silent)
        assert report.results[0]["share_of_peak"] == achieved / peak
        assert report.rows[0][-1] == f"{achieved / peak:.1%}"


@pytest.mark.parametrize("error", [MemoryError("OOM"), ProcessDiedError()])
def test_want_of_memory_is_told(answered, error):
    answered("step", [error])
    with pytest.raises(UserError, match="width 1 did not find the memory for --train_batch_size=8"):
        step.run(step.Options(train_batch_size=8), silent)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"width_multipliers": "1,wide"}, "--width_multipliers=1,wide: must be numbers above 0"),
        ({"width_multipliers": "0"}, "--width_multipliers=0: must be numbers above 0"),
        ({"width_multipliers": "0.01"}, "--width_multiplier=0.01: expected a number of at least"),
        ({"precisions": "float32,int8"}, "--precisions: 'int8' is none of float32"),
        ({"resnet_depth": 19}, "--resnet_depth=19"),
        ({"image_size": 4}, "--image_size=4"),
        ({"peak_tflops": 3.0}, "--peak_tflops=3 is of one precision"),
    ],
)
def test_options_are_checked_before_any_work(wrong, told):
    with pytest.raises(UserError, match=told):
        step.Options(**wrong)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_step_is_that_of_a_run(precision):
    options = step.Options(train_batch_size=4, image_size=8)
    settings = options.pretrain_config(0.0625, precision)
    model = build_model(settings, plan(4, NUM_CLASSES))
    assert model.linear_head is not None
    assert model.encoder.get_layer("block_group4").compute_dtype == precision
    before = [v.numpy() for v in model.trainable_variables]
    train = step.pretrain_step(model, settings)
    losses = [float(train()["loss"]) for _ in range(2)]
    assert int(model.step) == 2 and losses[0] != losses[1]
    moved = [(v.numpy() != b).any() for v, b in zip(model.trainable_variables, before, strict=True)]
    assert np.mean(moved) > 0.5  # the last gammas, at 0, hold the gradient back from some
    (mean,) = [metric.result() for metric in model.metrics if metric.name == "loss"]
    assert float(mean) == pytest.approx(np.mean(losses))


def test_the_bare_step_has_the_gradient_of_the_mean_feature():
    encoder = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)])
    views = noise_views(6, 8)
    encoder.build(views.shape)
    kernel, bias = step.bare_step(encoder, views)()
    means = views.numpy().mean(axis=(0, 1, 2))
    np.testing.assert_allclose(kernel, np.repeat(means[:, None], 5, axis=1) / 5, rtol=1e-4)
    np.testing.assert_allclose(bias, np.full(5, 0.2), rtol=1e-5)


def test_the_bare_step_trains_batch_norm():
    encoder = keras.Sequential([keras.layers.BatchNormalization()])
    encoder.build((None, 8, 8, 3))
    step.bare_step(encoder, tf.ones([2, 8, 8, 3]))()
    assert (encoder.layers[0].moving_mean.numpy() > 0).all()
