"""The variables of the authors' code in the order in which it builds them, and which are ours."""

from __future__ import annotations

import collections
import dataclasses
import functools

from simclr_tf.config import Encoder, ProjectionHead
from simclr_tf.models.resnet import DEPTHS, feature_width, se_hidden_width, sk_hidden_width

_STATISTICS = ("moving_mean", "moving_variance")
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a file of weights is a model of.

    Attributes:
        encoder: depth, width, stem, SK and SE; the rest of it is no matter of weights.
        head: kind, layers and width of the projection head.
        num_classes: of the linear head that was trained with labels; None: there is none.
    """

    encoder: Encoder
    head: ProjectionHead
    num_classes: int | None = None

    def kind(self) -> str:
        """Returns what the names of its variables tell, such as "ResNet-50 + SK, …"."""
        return f"{self._encoder()}, {self._head()}"

    def describe(self) -> str:
        """Returns all of it in words."""
        encoder, head = self.encoder, self.head
        words = self._encoder(f" × {encoder.width_multiplier:g}")
        words += f", SK ratio {encoder.sk_ratio:g}" if encoder.sk_ratio else ""
        words += f", SE ratio {encoder.se_ratio:g}" if encoder.se_ratio else ""
        words += f", {encoder.stem} stem, {self._head()}"
        words += f" to {head.proj_out_dim}" if head.proj_head_mode != "none" else ""
        if self.num_classes is not None:
            words += f", linear head of {self.num_classes} classes"
        return words

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
        part: of our SimCLR model: `encoder`, `projection_head` or `linear_head`.
        ours: its name there, such as `initial_conv/kernel`.
        name: in their graph, such as `resnet/conv2d_fixed_padding/conv2d/kernel:0`, with Keras's
            numbers from 0 and batch norm without its `sync_`.
        key: in their checkpoints.
        shape: the same on both sides.
    """

    part: str
    ours: str
    name: str
    key: str
    shape: tuple[int, ...]


@functools.lru_cache(maxsize=128)  # recognising compares with some sixty, several times
def reference_variables(architecture: Architecture) -> tuple[Variable, ...]:
    """Returns every variable of the authors' model, in their build order."""
    walk = _Walk()
    encoder = architecture.encoder
    _encoder(walk, encoder)
    width = feature_width(encoder.resnet_depth, encoder.width_multiplier)
    _projection_head(walk, architecture.head, width)
    if architecture.num_classes is not None:
        walk.part, at = (
            "linear_head",
            ("head_supervised/linear_layer", "supervised_head/linear_layer"),
        )
        walk.dense("linear_head", at, width, architecture.num_classes, bias=True)
    return tuple(walk.variables)


_At = tuple[str, str]  # a place among their names, and the same place among their keys


class _Walk:
    """Goes through their layers, numbering each kind as Keras does."""

    def __init__(self) -> None:
        self.part = "encoder"
        self.variables: list[Variable] = []
        self._counts: collections.Counter[str] = collections.Counter()

    def numbered(self, kind: str) -> str:
        count = self._counts[kind]
        self._counts[kind] += 1
        return f"{kind}_{count}" if count else kind

    def conv(
        self, ours: str, at: _At, size: int, inputs: int, outputs: int, *, plain: bool = False
    ) -> None:
        """Adds a convolution without bias; `plain` is one outside their Conv2dFixedPadding."""
        (name, key) = at
        if not plain:
            name, key = f"{name}/{self.numbered('conv2d_fixed_padding')}", f"{key}/conv2d"
        name = f"{name}/{self.numbered('conv2d')}"
        self._add(
            f"{ours}/kernel", (f"{name}/kernel", f"{key}/kernel"), size, size, inputs, outputs
        )

    def squeeze(self, ours: str, at: _At, inputs: int, outputs: int) -> None:
        """Adds a 1×1 convolution with bias."""
        name = f"{at[0]}/{self.numbered('conv2d')}"
        self._add(f"{ours}/kernel", (f"{name}/kernel", f"{at[1]}/kernel"), 1, 1, inputs, outputs)
        self._add(f"{ours}/bias", (f"{name}/bias", f"{at[1]}/bias"), outputs)

    def batch_norm(self, ours: str, at: _At, width: int, center: bool = True) -> None:
        name = f"{at[0]}/{self.numbered('batch_norm_relu')}/{self.numbered('batch_normalization')}"
        for leaf in ("gamma", *(("beta",) if center else ()), *_STATISTICS):
            self._add(f"{ours}/{leaf}", (f"{name}/{leaf}", f"{at[1]}/bn/{leaf}"), width)

    def dense(self, ours: str, at: _At, inputs: int, outputs: int, bias: bool = False) -> None:
        name, key = f"{at[0]}/{self.numbered('dense')}", f"{at[1]}/dense"
        self._add(f"{ours}/kernel", (f"{name}/kernel", f"{key}/kernel"), inputs, outputs)
        if bias:
            self._add(f"{ours}/bias", (f"{name}/bias", f"{key}/bias"), outputs)

    def _add(self, ours: str, at: _At, *shape: int) -> None:
        key = f"model/{at[1]}{_VALUE}"
        self.variables.append(Variable(self.part, ours, f"{at[0]}:0", key, shape))


def _encoder(walk: _Walk, encoder: Encoder) -> None:
    width = int(64 * encoder.width_multiplier)
    base = "resnet_model/initial_conv_relu_max_pool"
    last = 0
    if encoder.stem == "imagenet" and encoder.sk_ratio:
        walk.conv("stem_conv1", ("resnet", f"{base}/0"), 3, 3, width // 2)
        walk.batch_norm("stem_bn1", ("resnet", f"{base}/1"), width // 2)
        walk.conv("stem_conv2", ("resnet", f"{base}/2"), 3, width // 2, width // 2)
        walk.batch_norm("stem_bn2", ("resnet", f"{base}/3"), width // 2)
        walk.conv("initial_conv", ("resnet", f"{base}/4"), 3, width // 2, width)
        last = 4
    else:
        size = 3 if encoder.stem == "cifar" else 7
        walk.conv("initial_conv", ("resnet", f"{base}/0"), size, 3, width)
    walk.batch_norm("initial_bn", ("resnet", f"{base}/{last + 2}"), width)

    bottleneck, groups = DEPTHS[encoder.resnet_depth]
    inputs = width
    for group, blocks in enumerate(groups, start=1):
        filters = int(64 * 2 ** (group - 1) * encoder.width_multiplier)
        for number in range(blocks):
            at = (
                f"resnet/block_group{group}/"
                + walk.numbered("bottleneck_block" if bottleneck else "residual_block"),
                f"resnet_model/block_groups/{group - 1}/layers/{number}",
            )
            ours = f"block_group{group}_block{number + 1}"
            outputs = filters * (4 if bottleneck else 1)
            if number == 0:
                _shortcut(walk, ours, at, inputs, outputs, encoder, bottleneck, group > 1)
            block = _bottleneck if bottleneck else _basic
            block(walk, ours, at, inputs, filters, encoder)
            inputs = outputs


def _shortcut(
    walk: _Walk,
    ours: str,
    at: _At,
    inputs: int,
    outputs: int,
    encoder: Encoder,
    bottleneck: bool,
    strided: bool,
) -> None:
    key = f"{at[1]}/{'projection_layers' if bottleneck else 'shortcut_layers'}"
    # With SK a pool stands before the convolution, and before a strided one its padding.
    first = 1 + strided if encoder.sk_ratio else 0
    walk.conv(f"{ours}_shortcut_conv", (at[0], f"{key}/{first}"), 1, inputs, outputs)
    walk.batch_norm(f"{ours}_shortcut_bn", (at[0], f"{key}/{first + 1}"), outputs)


def _basic(walk: _Walk, ours: str, at: _At, inputs: int, filters: int, encoder: Encoder) -> None:
    name, key = at[0], f"{at[1]}/conv2d_bn_layers"
    walk.conv(f"{ours}_conv1", (name, f"{key}/0"), 3, inputs, filters)
    walk.batch_norm(f"{ours}_bn1", (name, f"{key}/1"), filters)
    walk.conv(f"{ours}_conv2", (name, f"{key}/2"), 3, filters, filters)
    walk.batch_norm(f"{ours}_bn2", (name, f"{key}/3"), filters)
    if encoder.se_ratio:
        _squeeze_excite(walk, ours, (name, f"{at[1]}/se_layer"), filters, filters, encoder)


def _bottleneck(
    walk: _Walk, ours: str, at: _At, inputs: int, filters: int, encoder: Encoder
) -> None:
    # Their DropBlock layers, which have no variables, are counted in the keys.
    name, key = at[0], f"{at[1]}/conv_relu_dropblock_layers"
    walk.conv(f"{ours}_conv1", (name, f"{key}/0"), 1, inputs, filters)
    walk.batch_norm(f"{ours}_bn1", (name, f"{key}/1"), filters)
    if encoder.sk_ratio:
        _selective_kernel(walk, ours, (name, f"{key}/3"), filters, encoder)
        last = 5
    else:
        walk.conv(f"{ours}_conv2", (name, f"{key}/3"), 3, filters, filters)
        walk.batch_norm(f"{ours}_bn2", (name, f"{key}/4"), filters)
        last = 6
    walk.conv(f"{ours}_conv3", (name, f"{key}/{last}"), 1, filters, 4 * filters)
    walk.batch_norm(f"{ours}_bn3", (name, f"{key}/{last + 1}"), 4 * filters)
    if encoder.se_ratio:
        at = (name, f"{key}/{last + 3}")
        _squeeze_excite(walk, ours, at, filters, 4 * filters, encoder)


def _selective_kernel(walk: _Walk, ours: str, at: _At, filters: int, encoder: Encoder) -> None:
    name, key = f"{at[0]}/{walk.numbered('sk__conv2d')}", at[1]
    width = sk_hidden_width(filters, encoder.sk_ratio)
    walk.conv(f"{ours}_conv2", (name, f"{key}/conv2d_fixed_padding"), 3, filters, 2 * filters)
    walk.batch_norm(f"{ours}_bn2", (name, f"{key}/batch_norm_relu"), 2 * filters)
    walk.conv(f"{ours}_sk_conv1", (name, f"{key}/conv2d_0"), 1, filters, width, plain=True)
    walk.batch_norm(f"{ours}_sk_bn1", (name, f"{key}/batch_norm_relu_1"), width)
    walk.conv(f"{ours}_sk_conv2", (name, f"{key}/conv2d_1"), 1, width, 2 * filters, plain=True)


def _squeeze_excite(
    walk: _Walk, ours: str, at: _At, filters: int, outputs: int, encoder: Encoder
) -> None:
    name, key = f"{at[0]}/{walk.numbered('se__layer')}", at[1]
    width = se_hidden_width(filters, encoder.se_ratio)
    walk.squeeze(f"{ours}_se_conv1", (name, f"{key}/se_reduce"), outputs, width)
    walk.squeeze(f"{ours}_se_conv2", (name, f"{key}/se_expand"), width, outputs)


def _projection_head(walk: _Walk, head: ProjectionHead, width: int) -> None:
    walk.part = "projection_head"
    if head.proj_head_mode == "none":
        return
    nonlinear = head.proj_head_mode == "nonlinear"
    layers = head.num_proj_layers if nonlinear else 1
    for number in range(layers):
        last = number == layers - 1
        at = (
            f"projection_head/{'nl' if nonlinear else 'l'}_{number}",
            f"_projection_head/linear_layers/{number}",
        )
        outputs = head.proj_out_dim if last else width
        ours = f"layer{number + 1}"
        walk.dense(f"{ours}_dense", at, width, outputs)
        walk.batch_norm(f"{ours}_bn", (at[0], f"{at[1]}/bn_relu"), outputs, center=not last)
