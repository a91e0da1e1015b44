"""The projection head g(·) between the encoder and the contrastive loss."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.models.layers import LayerFactory, resolve_policy

MODES = ("none", "linear", "nonlinear")
MAX_LAYERS = 4


@keras.utils.register_keras_serializable(package="simclr_tf")
class ProjectionHead(keras.layers.Layer):
    """Projection head g(·), features h [N, D] → projections z [N, out_dim] [v1 §4.2].

    The layer is built for the D of its first input, or of the encoder that `SimCLR` combines it
    with. `build_projection_head` makes the same layers as a functional model, which is `network`.

    Args:
        mode: "nonlinear", "linear" (one layer) or "none" (z is h).
        num_layers: 1 to 4, for "nonlinear"; 2 in the first paper, 3 in the second.
        out_dim: width of the projections, at least 1.
        batch_norm_momentum: decay of the moving statistics per step, in [0, 1).
        global_bn: whether replicas of the strategy in scope share batch statistics.
        hidden_dim: width of the hidden layers, at least 0; 0: D.
        kwargs: further arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: an argument is not one of the allowed values.

    Example:
    >>> import tensorflow as tf
    >>> import simclr_tf as st
    >>> head = st.models.ProjectionHead(num_layers=2, out_dim=64)
    >>> head(tf.zeros((4, 512))).shape
    TensorShape([4, 64])
    """

    def __init__(
        self,
        mode: str = "nonlinear",
        num_layers: int = 3,
        out_dim: int = 128,
        batch_norm_momentum: float = 0.9,
        global_bn: bool = True,
        hidden_dim: int = 0,
        **kwargs: Any,
    ):
        _check_arguments(mode, num_layers, out_dim, hidden_dim)
        super().__init__(**kwargs)
        self.mode = mode
        self.num_layers = num_layers
        self.out_dim = out_dim
        self.batch_norm_momentum = batch_norm_momentum
        self.global_bn = global_bn
        self.hidden_dim = hidden_dim
        self.network: keras.Model | None = None

    def build(self, input_shape: Any) -> None:
        self.network = build_projection_head(
            self.mode,
            self.num_layers,
            self.out_dim,
            input_dim=input_shape[-1],
            hidden_dim=self.hidden_dim,
            batch_norm_momentum=self.batch_norm_momentum,
            global_bn=self.global_bn,
            dtype=self.dtype_policy,
        )
        super().build(input_shape)

    def call(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        assert self.network is not None
        return self.network(features, training=training)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "mode": self.mode,
            "num_layers": self.num_layers,
            "out_dim": self.out_dim,
            "batch_norm_momentum": self.batch_norm_momentum,
            "global_bn": self.global_bn,
            "hidden_dim": self.hidden_dim,
        }


def build_projection_head(
    mode: str = "nonlinear",
    num_layers: int = 3,
    out_dim: int = 128,
    *,
    input_dim: int,
    hidden_dim: int = 0,
    batch_norm_momentum: float = 0.9,
    global_bn: bool = True,
    dtype: str | keras.mixed_precision.Policy | None = None,
) -> keras.Model:
    """Builds a projection head as a functional model, h [N, input_dim] → z [N, out_dim] [v1 §4.2].

    Layer k (from 1) is `layerK_dense` without bias and `layerK_bn`, and all but the last also have
    `layerK_relu`; the last batch norm has no beta. So the output of layer k is that of
    `layerK_relu`, and of `layerK_bn` for the last.

    Args:
        mode, num_layers, out_dim, hidden_dim, batch_norm_momentum, global_bn: as in
            `ProjectionHead`.
        input_dim: D, the width of the features, at least 1.
        dtype: as in `ResNet`.

    Returns:
        A functional model of Keras's own layers. Projections and variables are float32 in mixed
        precision, too (float64 for float64).

    Raises:
        ValueError: an argument is not one of the allowed values.

    Example:
    >>> import simclr_tf as st
    >>> st.models.build_projection_head("linear", out_dim=64, input_dim=512).output_shape
    (None, 64)
    """
    _check_arguments(mode, num_layers, out_dim, hidden_dim)
    if input_dim < 1:
        raise ValueError(f"input_dim must be at least 1, got {input_dim}")

    policy = resolve_policy(dtype)
    layers = LayerFactory(policy, batch_norm_momentum, global_bn)
    features = keras.Input((input_dim,), dtype=policy.variable_dtype, name="features")
    if mode == "none":
        identity = keras.layers.Activation("linear", dtype=policy.variable_dtype, name="identity")
        return keras.Model(features, identity(features), name="projection_head")

    x = features
    last = num_layers if mode == "nonlinear" else 1
    for k in range(1, last + 1):
        x = keras.layers.Dense(
            out_dim if k == last else hidden_dim or input_dim,
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            dtype=policy,
            name=f"layer{k}_dense",
        )(x)
        if k == last:
            x = layers.batch_norm(x, f"layer{k}_bn", center=False, dtype=policy.variable_dtype)
        else:
            x = layers.batch_norm(x, f"layer{k}_bn")
            x = layers.activation(x, "relu", f"layer{k}_relu")
    return keras.Model(features, x, name="projection_head")


def _check_arguments(mode: str, num_layers: int, out_dim: int, hidden_dim: int) -> None:
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if num_layers not in range(1, MAX_LAYERS + 1):
        raise ValueError(f"num_layers must be 1 to {MAX_LAYERS}, got {num_layers!r}")
    if out_dim < 1:
        raise ValueError(f"out_dim must be at least 1, got {out_dim}")
    if hidden_dim < 0:
        raise ValueError(f"hidden_dim must be at least 0, got {hidden_dim}")
