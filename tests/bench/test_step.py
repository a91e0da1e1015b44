"""Benchmark of the step: its steps, its ratios, and FLOPs."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.bench import step
from simclr_tf.bench.harness import BenchResult, Samples
from simclr_tf.bench.workload import NUM_CLASSES, dummy_plan, random_views
from simclr_tf.errors import UserError
from simclr_tf.models import ResNet
from simclr_tf.models.build import build_model

FORWARD = 2 * 10**9
SAMPLES = {
    "float32 step": Samples((90.0, 80.0)),
    "float32 encoder_only": Samples((100.0, 100.0)),
    "bfloat16 step": Samples((180.0, 200.0)),
    "bfloat16 encoder_only": Samples((200.0, 250.0)),
}


def test_step_is_compared_with_the_encoder_alone_and_with_float32():
    results = step.summarize(step.Options(), 0.25, SAMPLES, FORWARD, [])
    cells = ["float32", "85 (80–90)", "100 (100–100)", "85 (80–90)", "–", "510", "–"]
    assert BenchResult(None, step.BENCHMARK.columns, results, []).rows()[0] == ["0.25", *cells]
    assert results[1]["ratio_to_float32"]["values"] == [2.0, 2.5]
    assert results[1]["flops_per_second"] == 3 * FORWARD * 190
    bfloat16 = {name: SAMPLES[name] for name in ("bfloat16 step", "bfloat16 encoder_only")}
    (alone,) = step.summarize(step.Options(precisions="bfloat16"), 1.0, bfloat16, FORWARD, [])
    assert alone["ratio_to_float32"] is None


def test_fraction_of_peak_uses_the_data_sheet_or_the_option():
    achieved = 3 * FORWARD * 190
    for gpus, tflops, peak in (
        (["NVIDIA A100-SXM4-40GB"], 0.0, 312e12),
        (["NVIDIA A100-SXM4-40GB"], 2.0, 2e12),
        ([], 2.0, 2e12),
    ):
        options = step.Options(precisions="bfloat16", peak_tflops=tflops)
        (result,) = step.summarize(options, 1.0, SAMPLES, FORWARD, gpus)
        assert result["fraction_of_peak"] == achieved / peak


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width_multipliers": "1,wide"}, "--width_multipliers=1,wide: expected positive numbers"),
        ({"width_multipliers": "0.01"}, "--width_multiplier=0.01: expected a number of at least"),
        ({"precisions": "float32,int8"}, "--precisions=float32,int8: expected any of float32"),
        ({"resnet_depth": 19}, "--resnet_depth=19"),
        ({"image_size": 4}, "--image_size=4"),
        ({"peak_tflops": 3.0}, "--peak_tflops=3: expected a single precision"),
    ],
)
def test_options_are_validated_before_any_work(wrong, message):
    with pytest.raises(UserError, match=message):
        step.Options(**wrong)


@pytest.mark.slow
def test_step_is_that_of_a_run():
    options = step.Options(train_batch_size=4, image_size=8)
    settings = options.pretrain_config(0.0625, "bfloat16")
    model = build_model(settings, dummy_plan(4, NUM_CLASSES))
    assert model.linear_head is not None
    assert model.encoder.get_layer("block_group4").compute_dtype == "bfloat16"
    before = [v.numpy() for v in model.trainable_variables]
    train = step.pretrain_step(model, settings)
    losses = [float(train()["loss"]) for _ in range(2)]
    assert int(model.step) == 2 and losses[0] != losses[1]
    moved = [(v.numpy() != b).any() for v, b in zip(model.trainable_variables, before, strict=True)]
    assert np.mean(moved) > 0.5  # the last gammas, at 0, hold the gradient back from some
    (mean,) = [metric.result() for metric in model.metrics if metric.name == "loss"]
    assert float(mean) == pytest.approx(np.mean(losses))


def test_encoder_only_step_has_the_gradient_of_the_mean_feature():
    encoder = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)])
    views = random_views(6, 8)
    encoder.build(views.shape)
    kernel, bias = step.encoder_only_step(encoder, views)()
    means = views.numpy().mean(axis=(0, 1, 2))
    np.testing.assert_allclose(kernel, np.repeat(means[:, None], 5, axis=1) / 5, rtol=1e-4)
    np.testing.assert_allclose(bias, np.full(5, 0.2), rtol=1e-5)


def test_encoder_only_step_trains_batch_norm():
    encoder = keras.Sequential([keras.layers.BatchNormalization()])
    encoder.build((None, 8, 8, 3))
    step.encoder_only_step(encoder, tf.ones([2, 8, 8, 3]))()
    assert (encoder.layers[0].moving_mean.numpy() > 0).all()


def count(*layers):
    return step.count_forward_flops(keras.Sequential([keras.Input((8, 8, 3)), *layers]), 8)


def test_flops_of_convolutions_and_products_are_exact(capfd):
    conv = keras.layers.Conv2D(5, 3, padding="same", use_bias=False)
    assert count(conv) == 2 * (8 * 8) * (3 * 3 * 3 * 5)
    dense = keras.layers.Dense(7, use_bias=False)
    assert count(keras.layers.Flatten(), dense) == 2 * (8 * 8 * 3) * 7
    assert "deprecated" not in capfd.readouterr().err


def test_flops_of_a_resnet_are_those_of_its_convolutions():
    encoder = ResNet(18, 0.25, "cifar")
    expected = 0
    for layer in encoder.layers:
        if isinstance(layer, keras.layers.Conv2D):
            side = {16: 32, 32: 16, 64: 8, 128: 4}[layer.filters]
            expected += 2 * side**2 * layer.count_params()
    assert expected <= step.count_forward_flops(encoder, 32) < 1.01 * expected


@pytest.mark.parametrize(
    ("device", "precision", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("NVIDIA A10", "bfloat16", 125e12),
        ("NVIDIA H100 80GB HBM3", "float32", 494.5e12),
        ("NVIDIA H100 PCIe", "float16", 756.5e12),
        ("NVIDIA L40S", "bfloat16", 362e12),
        ("Tesla V100-SXM2-16GB", "float16", 125e12),
        ("Tesla V100-SXM2-16GB", "bfloat16", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "bfloat16", None),
        ("Some GPU", "float32", None),
    ],
)
def test_peak_flops_match_whole_words_of_the_name(device, precision, peak):
    assert step.peak_flops(device, precision) == peak
