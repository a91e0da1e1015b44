"""Variables of the authors' TF2 code and their names in this package."""

from __future__ import annotations

import collections
import dataclasses
import functools

from simclr_tf.models.resnet import DEPTHS, feature_width, se_hidden_width, sk_hidden_width
from simclr_tf.option_groups import Encoder, ProjectionHead

_STATISTICS = ("moving_mean", "moving_variance")
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Architecture of the model in a weights file.

    Attributes:
        encoder: depth, width, stem, SK and SE; other settings do not affect the weights.
        head: kind, layers and width of the projection head.
        num_classes: of the linear head that was trained with labels, or None without one.
    """

    encoder: Encoder
    head: ProjectionHead
    num_classes: int | None = None

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
    """A variable of the authors' model.

    Attributes:
        part: attribute of the SimCLR model: `encoder`, `projection_head` or `linear_head`.
        keras_name: name in that part, such as `initial_conv/kernel`.
        name: in the authors' graph, such as `resnet/conv2d_fixed_padding/conv2d/kernel:0`, with
            layer numbers from 0 and batch norm without `sync_`.
        key: in the authors' checkpoints.
        shape: equal in both models.
    """

    part: str
    keras_name: str
    name: str
    key: str
    shape: tuple[int, ...]


@functools.lru_cache(maxsize=128)  # detection compares with some sixty, several times
def reference_variables(architecture: Architecture) -> tuple[Variable, ...]:
    """Returns all variables of the authors' model in build order."""
    builder = _VariableBuilder()
    encoder = architecture.encoder
    _encoder(builder, encoder)
    width = feature_width(encoder.resnet_depth, encoder.width_multiplier)
    _projection_head(builder, architecture.head, width)
    if architecture.num_classes is not None:
        builder.part = "linear_head"
        paths = ("head_supervised/linear_layer", "supervised_head/linear_layer")
        builder.dense("linear_head", paths, width, architecture.num_classes, bias=True)
    return tuple(builder.variables)


_Paths = tuple[str, str]  # prefix of a layer in the authors' names and in their checkpoint keys


class _VariableBuilder:
    """Collects variables layer by layer, numbering each kind of layer as Keras does."""

    def __init__(self) -> None:
        self.part = "encoder"
        self.variables: list[Variable] = []
        self._counts: collections.Counter[str] = collections.Counter()

    def numbered(self, kind: str) -> str:
        count = self._counts[kind]
        self._counts[kind] += 1
        return f"{kind}_{count}" if count else kind

    def conv(
        self,
        layer: str,
        paths: _Paths,
        size: int,
        inputs: int,
        outputs: int,
        *,
        fixed_padding: bool = True,
    ) -> None:
        """Adds a convolution without bias; with `fixed_padding`, inside a Conv2dFixedPadding."""
        name, key = paths
        if fixed_padding:
            name, key = f"{name}/{self.numbered('conv2d_fixed_padding')}", f"{key}/conv2d"
        name = f"{name}/{self.numbered('conv2d')}"
        self._add(
            f"{layer}/kernel", (f"{name}/kernel", f"{key}/kernel"), size, size, inputs, outputs
        )

    def conv_1x1(self, layer: str, paths: _Paths, inputs: int, outputs: int) -> None:
        """Adds a 1×1 convolution with bias."""
        name = f"{paths[0]}/{self.numbered('conv2d')}"
        self._add(
            f"{layer}/kernel", (f"{name}/kernel", f"{paths[1]}/kernel"), 1, 1, inputs, outputs
        )
        self._add(f"{layer}/bias", (f"{name}/bias", f"{paths[1]}/bias"), outputs)

    def batch_norm(self, layer: str, paths: _Paths, width: int, center: bool = True) -> None:
        name = (
            f"{paths[0]}/{self.numbered('batch_norm_relu')}/{self.numbered('batch_normalization')}"
        )
        for leaf in ("gamma", *(("beta",) if center else ()), *_STATISTICS):
            self._add(f"{layer}/{leaf}", (f"{name}/{leaf}", f"{paths[1]}/bn/{leaf}"), width)

    def dense(
        self, layer: str, paths: _Paths, inputs: int, outputs: int, bias: bool = False
    ) -> None:
        name, key = f"{paths[0]}/{self.numbered('dense')}", f"{paths[1]}/dense"
        self._add(f"{layer}/kernel", (f"{name}/kernel", f"{key}/kernel"), inputs, outputs)
        if bias:
            self._add(f"{layer}/bias", (f"{name}/bias", f"{key}/bias"), outputs)

    def _add(self, layer: str, paths: _Paths, *shape: int) -> None:
        key = f"model/{paths[1]}{_VALUE}"
        self.variables.append(Variable(self.part, layer, f"{paths[0]}:0", key, shape))


def _encoder(builder: _VariableBuilder, encoder: Encoder) -> None:
    width = int(64 * encoder.width_multiplier)
    base = "resnet_model/initial_conv_relu_max_pool"
    last = 0
    if encoder.stem == "imagenet" and encoder.sk_ratio:
        builder.conv("stem_conv1", ("resnet", f"{base}/0"), 3, 3, width // 2)
        builder.batch_norm("stem_bn1", ("resnet", f"{base}/1"), width // 2)
        builder.conv("stem_conv2", ("resnet", f"{base}/2"), 3, width // 2, width // 2)
        builder.batch_norm("stem_bn2", ("resnet", f"{base}/3"), width // 2)
        builder.conv("initial_conv", ("resnet", f"{base}/4"), 3, width // 2, width)
        last = 4
    else:
        size = 3 if encoder.stem == "cifar" else 7
        builder.conv("initial_conv", ("resnet", f"{base}/0"), size, 3, width)
    builder.batch_norm("initial_bn", ("resnet", f"{base}/{last + 2}"), width)

    bottleneck, groups = DEPTHS[encoder.resnet_depth]
    inputs = width
    for group, blocks in enumerate(groups, start=1):
        filters = int(64 * 2 ** (group - 1) * encoder.width_multiplier)
        for number in range(blocks):
            paths = (
                f"resnet/block_group{group}/"
                + builder.numbered("bottleneck_block" if bottleneck else "residual_block"),
                f"resnet_model/block_groups/{group - 1}/layers/{number}",
            )
            layer = f"block_group{group}_block{number + 1}"
            outputs = filters * (4 if bottleneck else 1)
            if number == 0:
                _shortcut(builder, layer, paths, inputs, outputs, encoder, bottleneck, group > 1)
            block = _bottleneck if bottleneck else _basic
            block(builder, layer, paths, inputs, filters, encoder)
            inputs = outputs


def _shortcut(
    builder: _VariableBuilder,
    layer: str,
    paths: _Paths,
    inputs: int,
    outputs: int,
    encoder: Encoder,
    bottleneck: bool,
    strided: bool,
) -> None:
    key = f"{paths[1]}/{'projection_layers' if bottleneck else 'shortcut_layers'}"
    # With SK the convolution follows a pool, which with strides follows a padding.
    first = 1 + strided if encoder.sk_ratio else 0
    builder.conv(f"{layer}_shortcut_conv", (paths[0], f"{key}/{first}"), 1, inputs, outputs)
    builder.batch_norm(f"{layer}_shortcut_bn", (paths[0], f"{key}/{first + 1}"), outputs)


def _basic(
    builder: _VariableBuilder,
    layer: str,
    paths: _Paths,
    inputs: int,
    filters: int,
    encoder: Encoder,
) -> None:
    name, key = paths[0], f"{paths[1]}/conv2d_bn_layers"
    builder.conv(f"{layer}_conv1", (name, f"{key}/0"), 3, inputs, filters)
    builder.batch_norm(f"{layer}_bn1", (name, f"{key}/1"), filters)
    builder.conv(f"{layer}_conv2", (name, f"{key}/2"), 3, filters, filters)
    builder.batch_norm(f"{layer}_bn2", (name, f"{key}/3"), filters)
    if encoder.se_ratio:
        _squeeze_excite(builder, layer, (name, f"{paths[1]}/se_layer"), filters, filters, encoder)


def _bottleneck(
    builder: _VariableBuilder,
    layer: str,
    paths: _Paths,
    inputs: int,
    filters: int,
    encoder: Encoder,
) -> None:
    # The keys count the DropBlock layers, which have no variables.
    name, key = paths[0], f"{paths[1]}/conv_relu_dropblock_layers"
    builder.conv(f"{layer}_conv1", (name, f"{key}/0"), 1, inputs, filters)
    builder.batch_norm(f"{layer}_bn1", (name, f"{key}/1"), filters)
    if encoder.sk_ratio:
        _selective_kernel(builder, layer, (name, f"{key}/3"), filters, encoder)
        last = 5
    else:
        builder.conv(f"{layer}_conv2", (name, f"{key}/3"), 3, filters, filters)
        builder.batch_norm(f"{layer}_bn2", (name, f"{key}/4"), filters)
        last = 6
    builder.conv(f"{layer}_conv3", (name, f"{key}/{last}"), 1, filters, 4 * filters)
    builder.batch_norm(f"{layer}_bn3", (name, f"{key}/{last + 1}"), 4 * filters)
    if encoder.se_ratio:
        paths = (name, f"{key}/{last + 3}")
        _squeeze_excite(builder, layer, paths, filters, 4 * filters, encoder)


def _selective_kernel(
    builder: _VariableBuilder, layer: str, paths: _Paths, filters: int, encoder: Encoder
) -> None:
    name, key = f"{paths[0]}/{builder.numbered('sk__conv2d')}", paths[1]
    width = sk_hidden_width(filters, encoder.sk_ratio)
    builder.conv(f"{layer}_conv2", (name, f"{key}/conv2d_fixed_padding"), 3, filters, 2 * filters)
    builder.batch_norm(f"{layer}_bn2", (name, f"{key}/batch_norm_relu"), 2 * filters)
    builder.conv(
        f"{layer}_sk_conv1", (name, f"{key}/conv2d_0"), 1, filters, width, fixed_padding=False
    )
    builder.batch_norm(f"{layer}_sk_bn1", (name, f"{key}/batch_norm_relu_1"), width)
    builder.conv(
        f"{layer}_sk_conv2", (name, f"{key}/conv2d_1"), 1, width, 2 * filters, fixed_padding=False
    )


def _squeeze_excite(
    builder: _VariableBuilder,
    layer: str,
    paths: _Paths,
    filters: int,
    outputs: int,
    encoder: Encoder,
) -> None:
    name, key = f"{paths[0]}/{builder.numbered('se__layer')}", paths[1]
    width = se_hidden_width(filters, encoder.se_ratio)
    builder.conv_1x1(f"{layer}_se_conv1", (name, f"{key}/se_reduce"), outputs, width)
    builder.conv_1x1(f"{layer}_se_conv2", (name, f"{key}/se_expand"), width, outputs)


def _projection_head(builder: _VariableBuilder, head: ProjectionHead, width: int) -> None:
    builder.part = "projection_head"
    if head.proj_head_mode == "none":
        return
    nonlinear = head.proj_head_mode == "nonlinear"
    layers = head.num_proj_layers if nonlinear else 1
    for number in range(layers):
        last = number == layers - 1
        paths = (
            f"projection_head/{'nl' if nonlinear else 'l'}_{number}",
            f"_projection_head/linear_layers/{number}",
        )
        outputs = head.proj_out_dim if last else width
        layer = f"layer{number + 1}"
        builder.dense(f"{layer}_dense", paths, width, outputs)
        builder.batch_norm(
            f"{layer}_bn", (paths[0], f"{paths[1]}/bn_relu"), outputs, center=not last
        )
