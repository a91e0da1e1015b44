"""Operations counted by hand, and the peaks of GPUs by their names."""

import pytest
import tf_keras as keras

from simclr_tf.bench.flops import forward_flops, peak_flops
from simclr_tf.models import ResNet


def count(*layers, size=8):
    return forward_flops(keras.Sequential([keras.Input((size, size, 3)), *layers]), size)


def test_convolutions_and_products_take_two_for_each_weight_and_place(capfd):
    conv = keras.layers.Conv2D(5, 3, padding="same", use_bias=False)
    assert count(conv) == 2 * (8 * 8) * (3 * 3 * 3 * 5)
    strided = keras.layers.Conv2D(5, 3, strides=2, padding="same", use_bias=False)
    assert count(strided) == 2 * (4 * 4) * (3 * 3 * 3 * 5)
    dense = keras.layers.Dense(7, use_bias=False)
    assert count(keras.layers.Flatten(), dense) == 2 * (8 * 8 * 3) * 7
    assert "deprecated" not in capfd.readouterr().err


def test_resnet_18_takes_what_its_convolutions_take():
    encoder = ResNet(18, 0.25, "cifar")
    expected = 0
    for layer in encoder.layers:
        if isinstance(layer, keras.layers.Conv2D):
            side = {16: 32, 32: 16, 64: 8, 128: 4}[layer.filters]
            expected += 2 * side**2 * layer.count_params()
    assert expected <= forward_flops(encoder, 32) < 1.01 * expected


@pytest.mark.parametrize(
    ("device", "precision", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("NVIDIA A100-SXM4-80GB", "float32", 156e12),
        ("NVIDIA A10", "bfloat16", 125e12),
        ("NVIDIA H100 80GB HBM3", "float32", 494.5e12),
        ("NVIDIA H100 PCIe", "float16", 756.5e12),
        ("NVIDIA L4", "bfloat16", 121e12),
        ("NVIDIA L40S", "bfloat16", 362e12),
        ("Tesla V100-SXM2-16GB", "float16", 125e12),
        ("Tesla V100-SXM2-16GB", "bfloat16", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "bfloat16", None),
        ("NVIDIA GH200 480GB", "bfloat16", None),
        ("Some GPU", "float32", None),
    ],
)
def test_peaks_are_found_by_the_whole_words_of_a_name(device, precision, peak):
    assert peak_flops(device, precision) == peak
