"""The encoder: size, initial values, endpoints, arithmetic, precision, replicas, saved form."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.models import ResNet
from simclr_tf.models.resnet import ENDPOINTS
from tests.models import reference_weights

TINY = 1 / 32


def randomize(model: keras.Model, seed: int = 0) -> None:
    """Gives every variable, also gammas and statistics, a value unlike its initial one."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "kernel" in variable.name:
            fan_in = np.prod(variable.shape[:-1])
            value = rng.normal(size=variable.shape) / np.sqrt(fan_in)
        else:
            value = rng.uniform(0.5, 1.5, size=variable.shape)
        variable.assign(value)


def images(n: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(n, size, size, 3)).astype(np.float32)


def outputs(model: keras.Model, x: np.ndarray, *names: str) -> list[np.ndarray]:
    endpoints = keras.Model(model.input, {name: model.get_layer(name).output for name in names})
    found = endpoints(x, training=False)
    return [found[name].numpy() for name in names]


def up_to(model: keras.Model, name: str) -> keras.Model:
    """Return the model's first layers: deep models are slow to trace, compile and save."""
    return keras.Model(model.input, model.get_layer(name).output)


@pytest.fixture(scope="module")
def attentive() -> keras.Model:
    """A small bottleneck encoder with selective kernels and squeeze-excitation."""
    encoder = ResNet(50, 1 / 8, stem="cifar", sk_ratio=0.0625, se_ratio=0.5)
    randomize(encoder)
    return encoder


def slow(*values) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("count", "arguments"),
    [
        (11_180_736, {"depth": 18}),
        (11_173_056, {"depth": 18, "stem": "cifar"}),
        slow(23_508_032, {"depth": 50}),
        slow(35_215_584, {"depth": 50, "sk_ratio": 0.0625}),
        slow(21_288_896, {"depth": 34}),
        slow(42_500_160, {"depth": 101}),
        slow(62_624_832, {"depth": 200}),
        slow(375_378_176, {"depth": 50, "width_multiplier": 4}),
        slow(794_704_160, {"depth": 152, "width_multiplier": 3, "sk_ratio": 0.0625}),
    ],
)
def test_trainable_parameters(count, arguments):
    # A graph allocates nothing, which the gigabytes of the largest need; it is slower to build.
    large = count > 90_000_000
    with tf.Graph().as_default() if large else contextlib.nullcontext():
        model = ResNet(**arguments)
    assert sum(variable.shape.num_elements() for variable in model.trainable_variables) == count


@pytest.mark.parametrize("name", [slow("resnet50"), "resnet50_sk"])
def test_variable_shapes_are_the_references(name, reference_variables):
    encoder = ResNet(50, sk_ratio=0.0625 if name.endswith("sk") else 0.0)
    ours = {name: v.shape.as_list() for name, v in reference_weights.ours(encoder).items()}
    assert ours == reference_weights.theirs(dict(reference_variables[name]["variables"]), "encoder")


def test_every_endpoint_is_the_references(reference_npz):
    encoder = ResNet(18, width_multiplier=0.25, stem="cifar")
    reference_weights.load(encoder, reference_npz, "encoder")
    names = [name for name in ENDPOINTS if f"output/{name}" in reference_npz]
    assert len(names) == 6  # the file has all but initial_max_pool
    for name, found in zip(names, outputs(encoder, reference_npz["input"], *names), strict=True):
        np.testing.assert_allclose(
            found, reference_npz[f"output/{name}"], atol=1e-4, rtol=0, err_msg=name
        )


@pytest.mark.parametrize(("depth", "last"), [(18, "bn2"), (50, "bn3")])
def test_only_the_last_gamma_of_each_block_starts_at_zero(depth, last):
    encoder = ResNet(depth, TINY)
    gammas = {
        layer.name: layer.gamma.numpy()
        for layer in encoder.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    zero = {name for name, gamma in gammas.items() if not gamma.any()}
    assert zero == {name for name in gammas if name.startswith("block") and name.endswith(last)} - {
        name for name in gammas if "shortcut" in name
    }
    assert len(zero) == {18: 8, 50: 16}[depth]
    assert all((gamma == 1).all() for name, gamma in gammas.items() if name not in zero)


def test_kernels_start_as_a_truncated_normal_of_variance_one_over_fan_in():
    kernel = ResNet(18, 0.5).get_layer("block_group4_block2_conv2").kernel.numpy()
    std = np.sqrt(1 / (3 * 3 * 256))
    np.testing.assert_allclose(kernel.std(), std, rtol=0.01)
    # two standard deviations of the normal that has this variance after truncation
    assert np.abs(kernel).max() <= 2 * std / 0.87962566 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("arguments", "size", "sizes"),
    [
        ({"depth": 18, "stem": "cifar"}, 32, (32, 32, 32, 16, 8, 4)),
        ({"depth": 18}, 64, (32, 16, 16, 8, 4, 2)),
        ({"depth": 18, "sk_ratio": 0.0625}, 65, (33, 17, 17, 9, 5, 3)),
    ],
)
def test_endpoint_shapes(arguments, size, sizes):
    encoder = ResNet(**arguments, width_multiplier=1 / 16)
    *maps, features = outputs(encoder, images(1, size), *ENDPOINTS)
    assert [m.shape for m in maps] == [
        (1, s, s, f) for s, f in zip(sizes, (4, 4, 4, 8, 16, 32), strict=True)
    ]
    assert features.shape == (1, 32)


@pytest.mark.parametrize("selective", [False, True])
def test_bottlenecks_stride_on_the_3x3(selective, attentive):
    encoder = attentive if selective else ResNet(50, TINY)
    strided = {
        layer.name
        for layer in encoder.layers
        if isinstance(layer, keras.layers.Conv2D)
        and layer.name.startswith("block")
        and "shortcut" not in layer.name
        and layer.strides == (2, 2)
    }
    assert strided == {f"block_group{group}_block1_conv2" for group in (2, 3, 4)}


def test_strided_stem_pads_three_on_every_side():
    encoder = ResNet(18, TINY)
    x = images(2, 16)
    (found,) = outputs(encoder, x, "initial_conv")
    kernel = encoder.get_layer("initial_conv").kernel
    padding = [[0, 0], [3, 3], [3, 3], [0, 0]]
    expected = tf.nn.conv2d(tf.pad(x, padding), kernel, strides=2, padding="VALID")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_resnet_d_shortcut_averages_with_zeros_after_the_last_row_and_column():
    encoder = ResNet(18, TINY, stem="cifar", sk_ratio=0.0625)
    before, found = outputs(
        encoder, images(2, 5), "block_group1", "block_group2_block1_shortcut_pool"
    )
    padded = np.pad(before, [(0, 0), (0, 1), (0, 1), (0, 0)])
    np.testing.assert_allclose(
        found, padded.reshape(2, 3, 2, 3, 2, -1).mean(axis=(2, 4)), atol=1e-6
    )


def test_selective_kernel_mixes_two_streams_by_softmax(attentive):
    block = "block_group1_block2"
    streams, found = outputs(attentive, images(2, 6), f"{block}_relu2", f"{block}_sk_sum")

    def weights(name):
        return [w.numpy() for w in attentive.get_layer(f"{block}_{name}").weights]

    (squeeze,), (expand,) = weights("sk_conv1"), weights("sk_conv2")
    gamma, beta, mean, variance = weights("sk_bn1")
    first, second = streams[..., :8], streams[..., 8:]
    pooled = (first + second).mean(axis=(1, 2))  # [N, F]
    hidden = (pooled @ squeeze[0, 0] - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    assert hidden.shape[1] == 32  # F·ratio is less
    logits = np.maximum(hidden, 0) @ expand[0, 0]  # [N, 2F]
    odds = np.exp(logits[:, 8:] - logits[:, :8])[:, None, None]
    np.testing.assert_allclose(found, (first + odds * second) / (1 + odds), atol=1e-5)


def test_squeeze_excitation_scales_channels_by_a_sigmoid(attentive):
    block = "block_group1_block2"
    before, found = outputs(attentive, images(2, 6), f"{block}_bn3", f"{block}_se_multiply")
    squeeze, expand = (attentive.get_layer(f"{block}_se_conv{i}") for i in (1, 2))
    assert squeeze.filters == 4  # half of the block's 8, not of the output's 32
    hidden = before.mean(axis=(1, 2)) @ squeeze.kernel.numpy()[0, 0] + squeeze.bias.numpy()
    logits = np.maximum(hidden, 0) @ expand.kernel.numpy()[0, 0] + expand.bias.numpy()
    expected = before / (1 + np.exp(-logits))[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("policy", "inner", "epsilon", "arguments"),
    [
        ("mixed_bfloat16", tf.bfloat16, 2**-8, {"depth": 18}),
        slow("mixed_float16", tf.float16, 2**-11, {"depth": 50, "sk_ratio": 0.1, "se_ratio": 0.5}),
    ],
)
def test_mixed_precision_gives_float32_features_from_float32_variables(
    policy, inner, epsilon, arguments
):
    encoder = ResNet(**arguments, width_multiplier=TINY, dtype=policy)
    assert keras.mixed_precision.global_policy().name == "float32"
    assert {variable.dtype for variable in encoder.variables} == {tf.float32}
    assert {encoder.get_layer(name).output.dtype for name in ENDPOINTS[:-1]} == {inner}
    assert encoder.output.dtype == tf.float32

    exact = ResNet(**arguments, width_multiplier=TINY)
    randomize(exact)
    encoder.set_weights(exact.get_weights())
    x = images(4, 32)
    assert encoder(x, training=False).dtype == tf.float32
    # Rounding grows with every batch norm over few examples, so training is compared early on.
    for name, training in (("final_avg_pool", False), ("block_group1", True)):
        expected = up_to(exact, name)(x, training=training).numpy()
        found = tf.cast(up_to(encoder, name)(x, training=training), tf.float32)
        np.testing.assert_allclose(found, expected, atol=10 * epsilon * np.abs(expected).max())


def test_a_policy_object_and_float64_are_taken():
    encoder = ResNet(18, TINY, dtype=keras.mixed_precision.Policy("float64"))
    assert {variable.dtype for variable in encoder.variables} == {tf.float64}
    assert encoder.input.dtype == encoder.output.dtype == tf.float64


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]


def test_batch_norm_sees_the_global_batch_on_two_replicas(mirrored):
    arguments = {"depth": 18, "width_multiplier": TINY, "stem": "cifar", "dtype": "float64"}
    single = up_to(ResNet(**arguments), "block_group1")
    randomize(single)
    initial = single.get_weights()
    x = images(8, 8).astype(np.float64)
    expected = single(x, training=True).numpy()

    strategy = mirrored(2)
    with strategy.scope():
        model = up_to(ResNet(**arguments), "block_group1")
        local = ResNet(**arguments, global_bn=False)
    assert not any(norm.synchronized for norm in batch_norms(local))
    model.set_weights(initial)
    halves = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(x, 2)[context.replica_id_in_sync_group])
    )

    @tf.function
    def forward():
        return strategy.run(lambda half: model(half, training=True), (halves,))

    found = tf.concat(strategy.experimental_local_results(forward()), 0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    for ours, wanted in zip(model.get_weights(), single.get_weights(), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-9)


def test_batch_norm_is_fused_on_one_replica():
    norms = batch_norms(ResNet(18, TINY, global_bn=True))
    assert len(norms) == 21
    assert all(norm.fused and not norm.synchronized for norm in norms)
    assert all(norm.momentum == 0.9 and norm.epsilon == 1e-5 for norm in norms)


def test_xla_gives_the_same_values(attentive):
    part = up_to(attentive, "block_group2_block1_relu")
    x = images(2, 12)
    compiled = tf.function(lambda x: part(x, training=False), jit_compile=True)
    expected = part(x, training=False).numpy()
    np.testing.assert_allclose(compiled(x), expected, atol=1e-4 * np.abs(expected).max())


def test_saved_model_loads_without_this_package(attentive, tmp_path):
    model = up_to(attentive, "block_group2_block1_relu")
    x = images(2, 32)
    np.save(tmp_path / "x.npy", x)
    model.save(tmp_path / "model.keras")
    program = (
        "import sys, numpy as np, tf_keras as keras\n"
        "model = keras.models.load_model('model.keras')\n"
        "np.save('found.npy', model(np.load('x.npy'), training=False).numpy())\n"
        "model.get_layer('block_group1').output\n"
        "assert not any(name.startswith('simclr_tf') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)
    expected = model(x, training=False).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 20}, "depth must be one of 18, 34, 50, 101, 152, 200, got 20"),
        ({"depth": 18, "stem": "stl"}, "stem must be one of imagenet, cifar, got 'stl'"),
        ({"depth": 18, "width_multiplier": 0}, "width_multiplier must be at least 1/32, got 0"),
        ({"depth": 50, "sk_ratio": 1.5}, r"sk_ratio must be in \[0, 1\], got 1.5"),
        ({"depth": 50, "se_ratio": -0.1}, r"se_ratio must be in \[0, 1\], got -0.1"),
        ({"depth": 18, "dtype": "float16"}, "dtype must be one of float32, .*, got 'float16'"),
        ({"depth": 18, "batch_norm_momentum": 1}, r"batch_norm_momentum must be in \[0, 1\), got"),
    ],
)
def test_a_wrong_argument_is_named_with_the_allowed_values(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        ResNet(**arguments)
    assert "\n" not in str(error.value)
