"""The projection head: size, arithmetic, endpoints, precision."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.models import build_projection_head
from tests.models import reference_weights


def features(n: int, d: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "input_dim", "num_layers"),
    [(8_659_072, 2048, 3), (4_460_672, 2048, 2), (592_000, 512, 3), (328_832, 512, 2)],
)
def test_trainable_parameters(count, input_dim, num_layers):
    head = build_projection_head("nonlinear", num_layers, input_dim=input_dim)
    assert sum(variable.shape.num_elements() for variable in head.trainable_variables) == count


def test_output_is_the_references(reference_npz):
    head = build_projection_head("nonlinear", 3, input_dim=128)
    reference_weights.load(head, reference_npz, "projection_head")
    found = head(reference_npz["output/final_avg_pool"], training=False)
    np.testing.assert_allclose(found, reference_npz["output/proj_head_output"], atol=1e-4, rtol=0)


def test_variable_shapes_are_the_references(reference_variables):
    head = build_projection_head("nonlinear", 3, input_dim=2048)
    ours = {name: v.shape.as_list() for name, v in reference_weights.ours(head).items()}
    named = dict(reference_variables["resnet50"]["variables"])
    assert ours == reference_weights.theirs(named, "projection_head")


@pytest.mark.parametrize(("num_layers", "hidden_dim"), [(1, 0), (4, 0), (3, 11)])
def test_nonlinear_layers_and_their_outputs(num_layers, hidden_dim):
    head = build_projection_head("nonlinear", num_layers, 5, input_dim=7, hidden_dim=hidden_dim)
    width = hidden_dim or 7
    assert [head.get_layer(f"layer{k}_dense").units for k in range(1, num_layers + 1)] == [
        *[width] * (num_layers - 1),
        5,
    ]
    rng = np.random.default_rng(1)
    head.set_weights([rng.uniform(0.5, 1.5, w.shape) * 0.5 for w in head.get_weights()])
    ends = [f"layer{k}_relu" for k in range(1, num_layers)] + [f"layer{num_layers}_bn"]
    endpoints = keras.Model(head.input, {end: head.get_layer(end).output for end in ends})
    x = features(6, 7)
    found = endpoints(x, training=True)
    for k, end in enumerate(ends, start=1):
        dense, bn = head.get_layer(f"layer{k}_dense"), head.get_layer(f"layer{k}_bn")
        assert dense.bias is None
        x = x @ dense.kernel.numpy()
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * bn.gamma.numpy()
        if k < num_layers:
            x = np.maximum(x + bn.beta.numpy(), 0)
        else:
            assert bn.beta is None
        np.testing.assert_allclose(found[end], x, atol=1e-4)
    assert x.shape == (6, 5)


def test_linear_is_one_dense_and_a_batch_norm_without_beta():
    head = build_projection_head("linear", out_dim=5, input_dim=7)
    names = [v.name for v in head.trainable_variables]
    assert names == ["layer1_dense/kernel:0", "layer1_bn/gamma:0"]
    z = head(features(6, 7), training=True).numpy()
    assert z.shape == (6, 5)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)


def test_none_returns_the_features():
    head = build_projection_head("none", input_dim=7)
    assert head.variables == []
    np.testing.assert_array_equal(head(features(6, 7), training=True), features(6, 7))


def test_kernels_start_as_a_normal_of_standard_deviation_one_hundredth():
    kernel = build_projection_head(input_dim=256).get_layer("layer1_dense").kernel.numpy()
    np.testing.assert_allclose(kernel.std(), 0.01, rtol=0.02)
    assert np.abs(kernel).max() > 0.03  # not truncated at two standard deviations


@pytest.mark.parametrize(
    ("mode", "policy"),
    [("none", "mixed_float16"), ("linear", "mixed_bfloat16"), ("nonlinear", "mixed_float16")],
)
def test_mixed_precision_gives_float32_projections_from_float32_variables(mode, policy):
    head = build_projection_head(mode, 2, 8, input_dim=16, dtype=policy)
    exact = build_projection_head(mode, 2, 8, input_dim=16)
    head.set_weights(exact.get_weights())
    assert all(variable.dtype == tf.float32 for variable in head.variables)
    if mode == "nonlinear":
        assert head.get_layer("layer1_relu").output.dtype == policy.removeprefix("mixed_")
    found = head(features(32, 16), training=True)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, exact(features(32, 16), training=True), atol=0.06)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "mlp"}, "mode must be one of none, linear, nonlinear, got 'mlp'"),
        ({"num_layers": 0}, "num_layers must be 1 to 4, got 0"),
        ({"num_layers": 5}, "num_layers must be 1 to 4, got 5"),
        ({"out_dim": 0}, "out_dim must be at least 1, got 0"),
        ({"hidden_dim": -1}, "hidden_dim must be at least 0, got -1"),
        ({"dtype": "bfloat16"}, "dtype must be one of float32, .*, got 'bfloat16'"),
    ],
)
def test_a_wrong_argument_is_named_with_the_allowed_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_projection_head(**arguments, input_dim=8)
