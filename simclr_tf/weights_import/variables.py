"""Variables of the authors' TF2 code and their names in this package."""

from __future__ import annotations

import collections
import dataclasses
import functools

from simclr_tf.models.resnet import DEPTHS, feature_width, se_hidden_width, sk_hidden_width
from simclr_tf.option_groups import Encoder, ProjectionHead

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Architecture of the model in a weights file; other settings do not affect the weights."""

    encoder: Encoder  # depth, width, stem, SK and SE
    head: ProjectionHead  # kind, layers and width
    num_classes: int | None = None  # of the linear head that was trained with labels

    def kind(self) -> str:
        """Returns the part that variable names determine, such as "ResNet-50 + SK, …"."""
        return f"{self._encoder()}, {self._head()}"

    def describe(self) -> str:
        """Returns a complete description."""
        encoder, head = self.encoder, self.head
        text = self._encoder(f" × {encoder.width_multiplier:g}")
        text += f", SK ratio {encoder.sk_ratio:g}" if encoder.sk_ratio else ""
        text += f", SE ratio {encoder.se_ratio:g}" if encoder.se_ratio else ""
        text += f", {encoder.stem} stem, {self._head()}"
        text += f" to {head.proj_out_dim}" if head.proj_head_mode != "none" else ""
        if self.num_classes is not None:
            text += f", linear head of {self.num_classes} classes"
        return text

    def _encoder(self, width: str = "") -> str:
        encoder = self.encoder
        attention = " + SK" * (encoder.sk_ratio > 0) + " + SE" * (encoder.se_ratio > 0)
        return f"ResNet-{encoder.resnet_depth}{width}{attention}"

    def _head(self) -> str:
        if self.head.proj_head_mode == "none":
            return "no projection head"
        layers = self.head.num_proj_layers if self.head.proj_head_mode == "nonlinear" else 1
        return f"projection head of {layers} layer{'s' * (layers > 1)}"


@dataclasses.dataclass(frozen=True)
class Variable:
    """A variable of the authors' model, and its name in this package's.

    `name` is that in the authors' graph, such as `resnet/conv2d_fixed_padding/conv2d/kernel:0`,
    with layer numbers from 0 and batch norm without `sync_`; `key` is that in their checkpoints.
    """

    part: str  # attribute of the SimCLR model: `encoder`, `projection_head` or `linear_head`
    keras_name: str  # in that part, such as `initial_conv/kernel`
    name: str
    key: str
    shape: tuple[int, ...]


@functools.lru_cache(maxsize=128)  # detection compares with some sixty, several times
def reference_variables(architecture: Architecture) -> tuple[Variable, ...]:
    """Returns all variables of the authors' model in build order."""
    encoder = architecture.encoder
    builder = _VariableBuilder(encoder)
    builder.add_encoder()
    width = feature_width(encoder.resnet_depth, encoder.width_multiplier)
    builder.add_projection_head(architecture.head, width)
    if (classes := architecture.num_classes) is not None:
        builder.part = "linear_head"
        name, key = "head_supervised/linear_layer", "supervised_head/linear_layer"
        builder.dense("linear_head", name, key, kernel=(width, classes), bias=(classes,))
    return tuple(builder.variables)


class _VariableBuilder:
    """Collects variables layer by layer, numbering each kind of layer as Keras does.

    Methods add the variables of a layer or block of this package, whose names in the authors' graph
    start with `name` and whose keys in their checkpoints with `key`.
    """

    def __init__(self, encoder: Encoder):
        self.part = "encoder"
        self.variables: list[Variable] = []
        self._encoder = encoder
        self._counts: collections.Counter[str] = collections.Counter()

    def _numbered(self, kind: str) -> str:
        count = self._counts[kind]
        self._counts[kind] += 1
        return f"{kind}_{count}" if count else kind

    def _add(self, layer: str, name: str, key: str, **shapes: tuple[int, ...]) -> None:
        for leaf, shape in shapes.items():
            full_key = f"model/{key}/{leaf}{_VALUE}"
            self.variables.append(
                Variable(self.part, f"{layer}/{leaf}", f"{name}/{leaf}:0", full_key, shape)
            )

    def dense(self, layer: str, name: str, key: str, **shapes: tuple[int, ...]) -> None:
        self._add(layer, f"{name}/{self._numbered('dense')}", f"{key}/dense", **shapes)

    def _conv(self, layer: str, name: str, key: str, size: int, inputs: int, outputs: int) -> None:
        """Adds a convolution inside a Conv2dFixedPadding."""
        name = f"{name}/{self._numbered('conv2d_fixed_padding')}/{self._numbered('conv2d')}"
        self._add(layer, name, f"{key}/conv2d", kernel=(size, size, inputs, outputs))

    def _conv_1x1(
        self, layer: str, name: str, key: str, inputs: int, outputs: int, bias: bool
    ) -> None:
        shapes = {"kernel": (1, 1, inputs, outputs)} | ({"bias": (outputs,)} if bias else {})
        self._add(layer, f"{name}/{self._numbered('conv2d')}", key, **shapes)

    def _batch_norm(self, layer: str, name: str, key: str, width: int, center: bool = True) -> None:
        name = f"{name}/{self._numbered('batch_norm_relu')}/{self._numbered('batch_normalization')}"
        leaves = ("gamma", *(("beta",) if center else ()), "moving_mean", "moving_variance")
        self._add(layer, name, f"{key}/bn", **dict.fromkeys(leaves, (width,)))

    def _conv_bn(
        self, layer: str, name: str, key: str, index: int, size: int, inputs: int, outputs: int
    ) -> None:
        """Adds a convolution and its batch norm, at `index` and `index` + 1 of a list of layers.

        `layer` is the name of both, with {} in place of "conv" and "bn".
        """
        self._conv(layer.format("conv"), name, f"{key}/{index}", size, inputs, outputs)
        self._batch_norm(layer.format("bn"), name, f"{key}/{index + 1}", outputs)

    def add_encoder(self) -> None:
        encoder = self._encoder
        width = int(64 * encoder.width_multiplier)
        name, key = "resnet", "resnet_model/initial_conv_relu_max_pool"
        last, size, inputs = 0, 3 if encoder.stem == "cifar" else 7, 3
        if encoder.stem == "imagenet" and encoder.sk_ratio:
            last, size, inputs = 4, 3, width // 2
            self._conv_bn("stem_{}1", name, key, 0, 3, 3, inputs)
            self._conv_bn("stem_{}2", name, key, 2, 3, inputs, inputs)
        self._conv("initial_conv", name, f"{key}/{last}", size, inputs, width)
        self._batch_norm("initial_bn", name, f"{key}/{last + 2}", width)

        bottleneck, groups = DEPTHS[encoder.resnet_depth]
        kind = "bottleneck_block" if bottleneck else "residual_block"
        inputs = width
        for group, blocks in enumerate(groups):
            filters = int(64 * 2**group * encoder.width_multiplier)
            outputs = filters * (4 if bottleneck else 1)
            for number in range(blocks):
                layer = f"block_group{group + 1}_block{number + 1}"
                name = f"resnet/block_group{group + 1}/{self._numbered(kind)}"
                key = f"resnet_model/block_groups/{group}/layers/{number}"
                if number == 0:
                    shortcut = f"{key}/{'projection_layers' if bottleneck else 'shortcut_layers'}"
                    # With SK the convolution follows a pool, which with strides follows a padding.
                    strided = group > 0
                    first = 1 + strided if encoder.sk_ratio else 0
                    self._conv_bn(
                        f"{layer}_shortcut_{{}}", name, shortcut, first, 1, inputs, outputs
                    )
                add_block = self._bottleneck if bottleneck else self._basic
                add_block(layer, name, key, inputs, filters)
                inputs = outputs

    def _basic(self, layer: str, name: str, block_key: str, inputs: int, filters: int) -> None:
        key = f"{block_key}/conv2d_bn_layers"
        self._conv_bn(f"{layer}_{{}}1", name, key, 0, 3, inputs, filters)
        self._conv_bn(f"{layer}_{{}}2", name, key, 2, 3, filters, filters)
        self._squeeze_excite(layer, name, f"{block_key}/se_layer", filters, filters)

    def _bottleneck(self, layer: str, name: str, block_key: str, inputs: int, filters: int) -> None:
        # The keys count the DropBlock layers, which have no variables.
        key = f"{block_key}/conv_relu_dropblock_layers"
        self._conv_bn(f"{layer}_{{}}1", name, key, 0, 1, inputs, filters)
        if self._encoder.sk_ratio:
            self._selective_kernel(layer, name, f"{key}/3", filters)
            last = 5
        else:
            self._conv_bn(f"{layer}_{{}}2", name, key, 3, 3, filters, filters)
            last = 6
        self._conv_bn(f"{layer}_{{}}3", name, key, last, 1, filters, 4 * filters)
        self._squeeze_excite(layer, name, f"{key}/{last + 3}", filters, 4 * filters)

    def _selective_kernel(self, layer: str, name: str, key: str, filters: int) -> None:
        name = f"{name}/{self._numbered('sk__conv2d')}"
        width = sk_hidden_width(filters, self._encoder.sk_ratio)
        self._conv(f"{layer}_conv2", name, f"{key}/conv2d_fixed_padding", 3, filters, 2 * filters)
        self._batch_norm(f"{layer}_bn2", name, f"{key}/batch_norm_relu", 2 * filters)
        self._conv_1x1(f"{layer}_sk_conv1", name, f"{key}/conv2d_0", filters, width, bias=False)
        self._batch_norm(f"{layer}_sk_bn1", name, f"{key}/batch_norm_relu_1", width)
        self._conv_1x1(f"{layer}_sk_conv2", name, f"{key}/conv2d_1", width, 2 * filters, bias=False)

    def _squeeze_excite(self, layer: str, name: str, key: str, filters: int, outputs: int) -> None:
        if not self._encoder.se_ratio:
            return
        name = f"{name}/{self._numbered('se__layer')}"
        width = se_hidden_width(filters, self._encoder.se_ratio)
        self._conv_1x1(f"{layer}_se_conv1", name, f"{key}/se_reduce", outputs, width, bias=True)
        self._conv_1x1(f"{layer}_se_conv2", name, f"{key}/se_expand", width, outputs, bias=True)

    def add_projection_head(self, head: ProjectionHead, width: int) -> None:
        self.part = "projection_head"
        count = {"none": 0, "linear": 1}.get(head.proj_head_mode, head.num_proj_layers)
        kind = "l" if head.proj_head_mode == "linear" else "nl"
        for number in range(count):
            is_last = number == count - 1
            name, key = (
                f"projection_head/{kind}_{number}",
                f"_projection_head/linear_layers/{number}",
            )
            outputs = head.proj_out_dim if is_last else width
            layer = f"layer{number + 1}"
            self.dense(f"{layer}_dense", name, key, kernel=(width, outputs))
            self._batch_norm(f"{layer}_bn", name, f"{key}/bn_relu", outputs, center=not is_last)
