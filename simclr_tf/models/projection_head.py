"""The projection head g(·) between the encoder and the contrastive loss."""

from __future__ import annotations

import tf_keras as keras

from simclr_tf.models.layers import LayerFactory, resolve_policy

MODES = ("none", "linear", "nonlinear")
MAX_LAYERS = 4


def build_projection_head(
    mode: str = "nonlinear",
    num_layers: int = 3,
    out_dim: int = 128,
    *,
    input_dim: int,
    batch_norm_momentum: float = 0.9,
    global_bn: bool = True,
    dtype: str | keras.mixed_precision.Policy | None = None,
) -> keras.Model:
    """Build a projection head, features h `[N, input_dim]` → projections z `[N, out_dim]`.

    Layer k (from 1) is `layerK_dense` without bias and `layerK_bn`; all but the last go on to
    `layerK_relu`, and the last batch norm has no beta. So the output of layer k is that of
    `layerK_relu`, and of `layerK_bn` for the last.

    Args:
        mode: `none` (z is h; num_layers and out_dim have no effect), `linear` (one layer;
            num_layers has no effect) or `nonlinear`.
        num_layers: 1 to 4, for `nonlinear`; 2 in the first paper, 3 in the second.
        out_dim: D of the projections, at least 1. Hidden layers are `input_dim` wide.
        input_dim: D of the features, at least 1.
        batch_norm_momentum: decay of the moving statistics per step, in [0, 1).
        global_bn: share batch statistics between the replicas of the strategy in scope.
        dtype: float32, float64, mixed_bfloat16 or mixed_float16, or such a policy; None is
            Keras's global policy.

    Returns:
        A functional model of Keras's own layers. Projections and variables are float32 in mixed
        precision too (float64 for float64).

    Raises:
        ValueError: an argument is not one of the allowed values.

    Source: arXiv 2002.05709 §4.2; arXiv 2006.10029 §2.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if num_layers not in range(1, MAX_LAYERS + 1):
        raise ValueError(f"num_layers must be 1 to {MAX_LAYERS}, got {num_layers!r}")
    for name, size in (("out_dim", out_dim), ("input_dim", input_dim)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")

    policy = resolve_policy(dtype)
    make = LayerFactory(policy, batch_norm_momentum, global_bn)
    features = keras.Input((input_dim,), dtype=policy.variable_dtype, name="features")
    if mode == "none":
        identity = keras.layers.Activation("linear", dtype=policy.variable_dtype, name="identity")
        return keras.Model(features, identity(features), name="projection_head")

    x = features
    last = num_layers if mode == "nonlinear" else 1
    for k in range(1, last + 1):
        x = keras.layers.Dense(
            out_dim if k == last else input_dim,
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            dtype=policy,
            name=f"layer{k}_dense",
        )(x)
        if k == last:
            x = make.batch_norm(x, f"layer{k}_bn", center=False, dtype=policy.variable_dtype)
        else:
            x = make.batch_norm(x, f"layer{k}_bn")
            x = make.activation(x, "relu", f"layer{k}_relu")
    return keras.Model(features, x, name="projection_head")
