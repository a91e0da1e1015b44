"""ResNet encoder f(·): post-activation v1.5, with selective kernels or squeeze-excitation."""

from __future__ import annotations

import dataclasses

import tensorflow as tf
import tf_keras as keras

from simclr_tf.models.layers import LayerFactory, resolve_policy

# depth → (bottleneck blocks, blocks in each of the four groups)
DEPTHS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
    200: (True, (3, 24, 36, 3)),
}
STEMS = ("imagenet", "cifar")
ENDPOINTS = (
    *("initial_conv", "initial_max_pool"),
    *("block_group1", "block_group2", "block_group3", "block_group4"),
    "final_avg_pool",
)
_MIN_ATTENTION_WIDTH = 32


def ResNet(
    depth: int,
    width_multiplier: float = 1.0,
    stem: str = "imagenet",
    sk_ratio: float = 0.0,
    se_ratio: float = 0.0,
    batch_norm_momentum: float = 0.9,
    global_bn: bool = True,
    dtype: str | keras.mixed_precision.Policy | None = None,
) -> keras.Model:
    """Builds a ResNet encoder, images [N, H, W, 3] → pooled features h [N, D] [v1 §2.1, v2 §2].

    It consists of Keras's own layers only, so its `.keras` file loads without this package.
    `model.get_layer(NAME).output` is an endpoint for every NAME in `ENDPOINTS`: `initial_conv` is
    the stem's last convolution before its batch norm, as in the authors' code; the block groups end
    with their last ReLU. Layers are created, and so initialized, in the authors' order.

    Args:
        depth: 18 or 34 (basic blocks), 50, 101, 152 or 200 (bottleneck blocks).
        width_multiplier: factor of every filter count, at least 1/32; may be a fraction.
        stem: "imagenet" (7×7/2 and a 3×3/2 max-pool; three 3×3 with SK) or "cifar" (3×3/1, no
            pool), which the paper uses for images of up to 32 pixels [v1 §B.9].
        sk_ratio: in [0, 1]; above 0 bottlenecks mix two 3×3 streams (arXiv 1903.06586), and stem
            and shortcuts are those of ResNet-D; SimCLR v2 uses 0.0625. Basic blocks do not change
            their 3×3 convolutions.
        se_ratio: in [0, 1]; above 0 every block ends in squeeze-excitation (arXiv 1709.01507).
        batch_norm_momentum: decay of the moving statistics per step, in [0, 1).
        global_bn: whether replicas of the strategy in scope share batch statistics.
        dtype: float32, float64, mixed_bfloat16 or mixed_float16, or such a policy; None is
            Keras's global policy.

    Returns:
        A functional model; D = 512·width_multiplier, for bottlenecks four times that. Features
        and variables are float32 in mixed precision, too (float64 for float64).

    Raises:
        ValueError: an argument is not one of the allowed values.

    Example:
    >>> import simclr_tf as st
    >>> encoder = st.models.ResNet(18, width_multiplier=0.25, stem="cifar")
    >>> encoder.output_shape
    (None, 128)
    """
    if depth not in DEPTHS:
        raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}, got {depth!r}")
    if stem not in STEMS:
        raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}")
    if width_multiplier < 1 / 32:
        raise ValueError(f"width_multiplier must be at least 1/32, got {width_multiplier}")
    for name, ratio in (("sk_ratio", sk_ratio), ("se_ratio", se_ratio)):
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(f"{name} must be in [0, 1], got {ratio}")

    policy = resolve_policy(dtype)
    layers = LayerFactory(policy, batch_norm_momentum, global_bn)
    bottleneck, group_sizes = DEPTHS[depth]
    images = keras.Input((None, None, 3), dtype=policy.variable_dtype, name="images")
    x = _stem(layers, images, int(64 * width_multiplier), stem, resnet_d=sk_ratio > 0)
    for group, num_blocks in enumerate(group_sizes, start=1):
        for block in range(1, num_blocks + 1):
            x = _Block(
                layers,
                name=f"block_group{group}_block{block}",
                output_name=f"block_group{group}" if block == num_blocks else None,
                filters=int(64 * 2 ** (group - 1) * width_multiplier),
                bottleneck=bottleneck,
                strides=2 if block == 1 and group > 1 else 1,
                project=block == 1,
                sk_ratio=sk_ratio,
                se_ratio=se_ratio,
            )(x)
    pool = keras.layers.GlobalAveragePooling2D(dtype=policy.variable_dtype, name="final_avg_pool")
    return keras.Model(images, pool(x), name=f"resnet{depth}")


def feature_width(depth: int, width_multiplier: float) -> int:
    """Returns D, the width of the features of `ResNet(depth, width_multiplier)`."""
    bottleneck, _ = DEPTHS[depth]
    return int(512 * width_multiplier) * (4 if bottleneck else 1)


def sk_hidden_width(filters: int, sk_ratio: float) -> int:
    """Returns the hidden width of a selective kernel's attention."""
    return max(int(filters * sk_ratio), _MIN_ATTENTION_WIDTH)


def se_hidden_width(filters: int, se_ratio: float) -> int:
    """Returns the hidden width of a block's squeeze-excitation."""
    return max(1, int(filters * se_ratio))


def _stem(layers: LayerFactory, x: tf.Tensor, filters: int, stem: str, resnet_d: bool) -> tf.Tensor:
    if stem == "cifar":
        x = layers.conv(x, filters, 3, "initial_conv")
    elif resnet_d:
        x = layers.conv_bn_relu(x, filters // 2, 3, "stem", 1, strides=2)
        x = layers.conv_bn_relu(x, filters // 2, 3, "stem", 2)
        x = layers.conv(x, filters, 3, "initial_conv")
    else:
        x = layers.conv(x, filters, 7, "initial_conv", strides=2)
    x = layers.batch_norm(x, "initial_bn")
    x = layers.activation(x, "relu", "initial_relu")
    if stem == "cifar":
        return layers.activation(x, "linear", "initial_max_pool")
    pool = keras.layers.MaxPooling2D(3, 2, "same", dtype=layers.policy, name="initial_max_pool")
    return pool(x)


@dataclasses.dataclass(frozen=True)
class _Block:
    """One residual block, `[N, H, W, C]` → `[N, ⌈H/strides⌉, ⌈W/strides⌉, filters (·4)]`."""

    layers: LayerFactory
    name: str
    output_name: str | None
    filters: int
    bottleneck: bool
    strides: int
    project: bool
    sk_ratio: float
    se_ratio: float

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        layers, name = self.layers, self.name
        out_filters = self.filters * (4 if self.bottleneck else 1)
        shortcut = self._projection(x, out_filters) if self.project else x
        if self.bottleneck:
            x = layers.conv_bn_relu(x, self.filters, 1, name, 1)
            if self.sk_ratio > 0:
                x = self._selective_kernel(x)
            else:
                x = layers.conv_bn_relu(x, self.filters, 3, name, 2, self.strides)
            last, kernel_size = 3, 1
        else:
            x = layers.conv_bn_relu(x, self.filters, 3, name, 1, self.strides)
            last, kernel_size = 2, 3
        x = layers.conv(x, out_filters, kernel_size, f"{name}_conv{last}")
        x = layers.batch_norm(x, f"{name}_bn{last}", zero_gamma=True)
        if self.se_ratio > 0:
            x = self._squeeze_excite(x, out_filters)
        x = keras.layers.Add(dtype=layers.policy, name=f"{name}_add")([shortcut, x])
        return layers.activation(x, "relu", self.output_name or f"{name}_relu")

    def _projection(self, x: tf.Tensor, out_filters: int) -> tf.Tensor:
        layers, name = self.layers, f"{self.name}_shortcut"
        strides = self.strides
        if self.sk_ratio > 0:
            # ResNet-D: a strided 1×1 would ignore three of four positions.
            if strides > 1:
                x = layers.pad(x, 2, f"{name}_pad")
            padding = "same" if strides == 1 else "valid"
            x = keras.layers.AveragePooling2D(
                2, strides, padding, dtype=layers.policy, name=f"{name}_pool"
            )(x)
        elif strides > 1:
            # The positions that a strided 1×1 convolution would read. On CPUs without AVX-512,
            # oneDNN's kernel gradient of that convolution varies between calls by a rounding
            # error, so that no run could be replayed exactly; with stride 1 it does not vary.
            pick = keras.layers.AveragePooling2D(
                1, strides, dtype=layers.policy, name=f"{name}_pick"
            )
            x = pick(x)
        x = layers.conv(x, out_filters, 1, f"{name}_conv")
        return layers.batch_norm(x, f"{name}_bn")

    def _selective_kernel(self, x: tf.Tensor) -> tf.Tensor:
        layers, name, filters = self.layers, f"{self.name}_sk", self.filters
        float32_layers = self._float32_layers()
        x = layers.conv_bn_relu(x, 2 * filters, 3, self.name, 2, self.strides)

        attention = self._pool(x, f"{name}_pool")
        attention = self._add_streams(float32_layers, attention, f"{name}_pool")
        width = sk_hidden_width(filters, self.sk_ratio)
        attention = float32_layers.conv_bn_relu(attention, width, 1, name, 1)
        attention = float32_layers.conv(attention, 2 * filters, 1, f"{name}_conv2")
        policy = float32_layers.policy
        for layer in (
            keras.layers.Reshape((2, filters), dtype=policy, name=f"{name}_streams"),
            keras.layers.Softmax(axis=1, dtype=policy, name=f"{name}_softmax"),
            keras.layers.Reshape((1, 1, 2 * filters), dtype=policy, name=f"{name}_attention"),
        ):
            attention = layer(attention)

        x = keras.layers.Multiply(dtype=layers.policy, name=f"{name}_multiply")([x, attention])
        return self._add_streams(layers, x, name)

    def _add_streams(self, layers: LayerFactory, x: tf.Tensor, name: str) -> tf.Tensor:
        """Adds the first half of the channels to the second, `[..., 2F]` → `[..., F]`."""
        # Keras has no layer that slices channels. Cropping does, if they are declared as the width.
        halves = [
            keras.layers.Cropping2D(
                ((0, 0), crop), "channels_first", dtype=layers.policy, name=f"{name}_stream{stream}"
            )(x)
            for stream, crop in ((1, (0, self.filters)), (2, (self.filters, 0)))
        ]
        return keras.layers.Add(dtype=layers.policy, name=f"{name}_sum")(halves)

    def _squeeze_excite(self, x: tf.Tensor, out_filters: int) -> tf.Tensor:
        layers, float32_layers, name = self.layers, self._float32_layers(), f"{self.name}_se"
        # The ratio refers to the block's filters, not to the 4 times wider bottleneck output.
        width = se_hidden_width(self.filters, self.se_ratio)
        scale = self._pool(x, f"{name}_pool")
        scale = float32_layers.conv(scale, width, 1, f"{name}_conv1", use_bias=True)
        scale = float32_layers.activation(scale, "relu", f"{name}_relu1")
        scale = float32_layers.conv(scale, out_filters, 1, f"{name}_conv2", use_bias=True)
        scale = float32_layers.activation(scale, "sigmoid", f"{name}_sigmoid")
        return keras.layers.Multiply(dtype=layers.policy, name=f"{name}_multiply")([x, scale])

    def _pool(self, x: tf.Tensor, name: str) -> tf.Tensor:
        return keras.layers.GlobalAveragePooling2D(
            keepdims=True, dtype=self._float32_layers().policy, name=name
        )(x)

    def _float32_layers(self) -> LayerFactory:
        """Returns a factory of layers that compute in the precision of the variables."""
        # Attention is small, and batch norm over one value per image amplifies 16-bit errors.
        policy = keras.mixed_precision.Policy(self.layers.policy.variable_dtype)
        return dataclasses.replace(self.layers, policy=policy)
