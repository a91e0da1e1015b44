"""Convolution and batch normalization of the encoder and the projection head."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import tensorflow as tf
import tf_keras as keras

BATCH_NORM_EPSILON = 1e-5
POLICIES = ("float32", "float64", "mixed_bfloat16", "mixed_float16")


def resolve_policy(
    dtype: str | keras.mixed_precision.Policy | None,
) -> keras.mixed_precision.Policy:
    """Returns the precision policy that `dtype` names; None is Keras's global policy."""
    if dtype is None:
        dtype = keras.mixed_precision.global_policy()
    name = dtype.name if isinstance(dtype, keras.mixed_precision.Policy) else dtype
    if name not in POLICIES:
        raise ValueError(f"dtype must be one of {', '.join(POLICIES)}, got {name!r}")
    return keras.mixed_precision.Policy(name)


@contextlib.contextmanager
def global_policy(policy: keras.mixed_precision.Policy) -> Iterator[None]:
    """Sets Keras's global policy, and afterwards restores the previous one."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def disable_dropout(model: keras.Model) -> None:
    """Disables dropout and stochastic depth: sets the `rate` of every layer that has one to 0."""
    for module in model.submodules:
        if isinstance(getattr(module, "rate", None), int | float):
            module.rate = 0.0


@dataclasses.dataclass(frozen=True)
class LayerFactory:
    """Adds layers to a functional model, all with one precision and one kind of batch norm.

    Only layers that ship with Keras are used, so that a saved model loads without this package.
    """

    policy: keras.mixed_precision.Policy
    batch_norm_momentum: float = 0.9
    global_bn: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.batch_norm_momentum < 1.0:
            raise ValueError(
                f"batch_norm_momentum must be in [0, 1), got {self.batch_norm_momentum}"
            )

    def conv(
        self,
        x: tf.Tensor,
        filters: int,
        kernel_size: int,
        name: str,
        strides: int = 1,
        use_bias: bool = False,
    ) -> tf.Tensor:
        """Convolves `[N, H, W, C]` to `[N, ⌈H/strides⌉, ⌈W/strides⌉, filters]`."""
        if strides > 1 and kernel_size > 1:
            # SAME padding depends on the image size and is uneven for even sizes.
            x = self.pad(x, kernel_size, name=f"{name}_pad")
        return keras.layers.Conv2D(
            filters,
            kernel_size,
            strides=strides,
            padding="same" if strides == 1 else "valid",
            use_bias=use_bias,
            kernel_initializer=keras.initializers.VarianceScaling(
                scale=1.0, mode="fan_in", distribution="truncated_normal"
            ),
            dtype=self.policy,
            name=name,
        )(x)

    def pad(self, x: tf.Tensor, kernel_size: int, name: str) -> tf.Tensor:
        """Pads height and width with kernel_size − 1 zeros in total, for any image size."""
        before = (kernel_size - 1) // 2
        after = kernel_size - 1 - before
        return keras.layers.ZeroPadding2D(
            ((before, after), (before, after)), dtype=self.policy, name=name
        )(x)

    def batch_norm(
        self,
        x: tf.Tensor,
        name: str,
        zero_gamma: bool = False,
        center: bool = True,
        dtype: str | None = None,
    ) -> tf.Tensor:
        """Normalizes `[..., C]`; `dtype` overrides the precision of the factory."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return keras.layers.BatchNormalization(
            momentum=self.batch_norm_momentum,
            epsilon=BATCH_NORM_EPSILON,
            center=center,
            gamma_initializer="zeros" if zero_gamma else "ones",
            # Synchronized statistics have no fused kernel: slower, and useless on one replica.
            synchronized=self.global_bn and replicas > 1,
            dtype=dtype or self.policy,
            name=name,
        )(x)

    def activation(self, x: tf.Tensor, function: str, name: str) -> tf.Tensor:
        """Applies a Keras activation; `linear` is the identity."""
        return keras.layers.Activation(function, dtype=self.policy, name=name)(x)

    def conv_bn_relu(
        self,
        x: tf.Tensor,
        filters: int,
        kernel_size: int,
        prefix: str,
        index: int,
        strides: int = 1,
    ) -> tf.Tensor:
        """Adds the layers PREFIX_convINDEX, PREFIX_bnINDEX and PREFIX_reluINDEX."""
        x = self.conv(x, filters, kernel_size, f"{prefix}_conv{index}", strides)
        x = self.batch_norm(x, f"{prefix}_bn{index}")
        return self.activation(x, "relu", f"{prefix}_relu{index}")
