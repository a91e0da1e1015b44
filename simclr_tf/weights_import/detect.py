"""Detection of the architecture from the names and shapes of variables."""

from __future__ import annotations

import dataclasses
import itertools
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from simclr_tf.errors import UserError
from simclr_tf.models.projection_head import MAX_LAYERS
from simclr_tf.models.resnet import DEPTHS, STEMS, se_hidden_width, sk_hidden_width
from simclr_tf.option_groups import Encoder, ProjectionHead
from simclr_tf.weights_import.variables import Architecture, Variable, reference_variables

Shape = tuple[int, ...]
_NameFn = Callable[[Variable], str]  # canonical name in a graph, or key in a checkpoint

_V2_RATIO = 0.0625  # SimCLR v2's of selective kernels
_HINT = "Fix: choose a complete model of the authors' TF2 code"
_KINDS = (
    *("conv2d_fixed_padding", "conv2d", "batch_norm_relu", "batch_normalization", "dense"),
    *("bottleneck_block", "residual_block", "sk__conv2d", "se__layer"),
)
_COUNTED = re.compile(rf"(sync_)?({'|'.join(_KINDS)})(?:_([1-9]\d{{0,8}}))?")
# Meanings of a layer's number: as it is; counted from the first of its kind, where a gap is a
# missing layer; or the rank among the numbers of its kind.
_SCHEMES = ("absolute", "offset", "rank")


class _LayerNumbering:
    """Conversion between the names of a file and those of `Variable.name`.

    Keras numbers the layers of each kind throughout a process, so that the numbers of a model that
    is not the first of its process start above 0.
    """

    def __init__(self, names: Iterable[str], scheme: str):
        found: dict[str, set[int]] = {}
        self._sync = False
        for part in itertools.chain.from_iterable(name.split("/") for name in names):
            if match := _COUNTED.fullmatch(part):
                self._sync |= match[1] is not None
                found.setdefault(match[2], set()).add(int(match[3] or 0))
        self._first = {kind: min(ns) if scheme != "absolute" else 0 for kind, ns in found.items()}
        self._canonical = {
            kind: {
                n: rank if scheme == "rank" else n - self._first[kind]
                for rank, n in enumerate(sorted(numbers))
            }
            for kind, numbers in found.items()
        }

    def to_canonical(self, name: str) -> str:
        """Returns the name with numbers from 0 and batch norm without `sync_`."""
        return _replace(name, lambda kind, number: (kind, self._canonical[kind][number]))

    def to_file_name(self, name: str) -> str:
        """Returns the name in the file of a canonical name."""

        def restore(kind: str, number: int) -> tuple[str, int]:
            numbers = {canonical: n for n, canonical in self._canonical.get(kind, {}).items()}
            sync = "sync_" if self._sync and kind == "batch_normalization" else ""
            return sync + kind, numbers.get(number, number + self._first.get(kind, 0))

        return _replace(name, restore)


def _replace(name: str, renumber: Callable[[str, int], tuple[str, int]]) -> str:
    parts = []
    for part in name.split("/"):
        if match := _COUNTED.fullmatch(part):
            kind, number = renumber(match[2], int(match[3] or 0))
            part = f"{kind}_{number}" if number else kind
        parts.append(part)
    return "/".join(parts)


@dataclasses.dataclass(frozen=True)
class DetectedArchitecture:
    """Architecture of a weights file and the name in the file of each variable."""

    architecture: Architecture
    names: tuple[tuple[Variable, str], ...]


def detect_architecture(shapes: Mapping[str, Shape], name_kind: str) -> DetectedArchitecture:
    """Finds the architecture that has exactly the variables of a file.

    `shapes` are those of all variables by name in the file: in the graph if `name_kind` is "name",
    in the checkpoint if it is "key". The UserError about another model names the first variable, in
    build order, that differs from the most similar architecture.
    """
    name_fn = operator.attrgetter(name_kind)
    if name_kind == "key":
        return _match(shapes, name_fn, str)
    # Fewest differences: a missing layer must not shift the names of all later layers.
    fits = []
    for numbering in (_LayerNumbering(shapes, scheme) for scheme in _SCHEMES):
        renamed = {numbering.to_canonical(name): shape for name, shape in shapes.items()}
        if len(renamed) < len(shapes):
            raise UserError(f"has batch norm both with and without sync_ in its name. {_HINT}")
        nearest = reference_variables(_match_names(set(renamed), name_fn))
        fits.append((len({v.name for v in nearest} ^ set(renamed)), renamed, numbering))
    _, renamed, numbering = min(fits, key=lambda fit: fit[0])
    return _match(renamed, name_fn, numbering.to_file_name)


def _match(
    shapes: Mapping[str, Shape], name_fn: _NameFn, to_file_name: Callable[[str], str]
) -> DetectedArchitecture:
    """Finds the architecture by canonical names; `to_file_name` is for messages and the result."""
    architecture = _match_names(set(shapes), name_fn)
    expected = [name_fn(v) for v in reference_variables(architecture)]
    if not set(expected) & shapes.keys():
        first = f": its first variable is {to_file_name(next(iter(shapes)))}" if shapes else ""
        raise UserError(
            f"contains no model of the authors' TF2 code{first}. Fix: choose one that does"
        )
    nearest = f"{architecture.kind()}, the most similar architecture"
    for name in expected:
        if name not in shapes:
            raise UserError(f"{to_file_name(name)} is missing for a {nearest}. {_HINT}")
    for name in shapes:
        if name not in expected:
            raise UserError(f"{to_file_name(name)} is not a variable of a {nearest}. {_HINT}")
    architecture = _match_shapes(architecture, shapes, name_fn)
    names = []
    for variable in reference_variables(architecture):
        shape, name = shapes[name_fn(variable)], to_file_name(name_fn(variable))
        if shape != variable.shape:
            raise UserError(
                f"{name} has shape {list(shape)}, not {list(variable.shape)} as in a "
                f"{architecture.describe()}, the most similar architecture. {_HINT}"
            )
        names.append((variable, name))
    return DetectedArchitecture(architecture, tuple(names))


def _match_names(found: set[str], name_fn: _NameFn) -> Architecture:
    """Returns the architecture, of any size, with the most similar variable names."""

    def differences(architecture: Architecture) -> tuple[int, int]:
        # The larger of two equally similar ones: report a missing variable, not a superfluous one.
        expected = {name_fn(v) for v in reference_variables(architecture)}
        return len(expected ^ found), -len(expected)

    none = ProjectionHead(proj_head_mode="none")
    encoders = [
        Encoder(resnet_depth=depth, stem=stem, sk_ratio=sk, se_ratio=se)
        for depth, stem, sk, se in itertools.product(DEPTHS, STEMS, (0, _V2_RATIO), (0, _V2_RATIO))
    ]
    encoder = min((Architecture(e, none) for e in encoders), key=differences).encoder
    layers = range(1, MAX_LAYERS + 1)
    heads = [
        none,
        *(ProjectionHead(num_proj_layers=n) for n in layers),
        ProjectionHead(proj_head_mode="linear"),
    ]
    return min(
        (Architecture(encoder, head, classes) for head in heads for classes in (None, 1)),
        key=differences,
    )


def _match_shapes(
    architecture: Architecture, shapes: Mapping[str, Shape], name_fn: _NameFn
) -> Architecture:
    """Returns the architecture with the sizes that match most shapes.

    A single variable of a wrong shape does not change the result, so that the error names it.
    """
    at = {f"{v.part}/{v.keras_name}": shapes[name_fn(v)] for v in reference_variables(architecture)}

    def num_mismatches(candidate: Architecture) -> int:
        return sum(shapes[name_fn(v)] != v.shape for v in reference_variables(candidate))

    def nearest(field: str, values: Iterable[Any], section: str = "encoder") -> Architecture:
        part = getattr(architecture, section)
        parts = [dataclasses.replace(part, **{field: value}) for value in values]
        candidates = [dataclasses.replace(architecture, **{section: p}) for p in parts]
        return min([architecture, *candidates], key=num_mismatches)

    def last(name: str) -> int:
        return (at.get(name) or (0,))[-1]

    blocks = {group: f"encoder/block_group{group}_block1" for group in (4, 3, 2, 1)}
    # The width of the last group is the most precise, because fractions of a filter are dropped.
    filters = {group: last(f"{block}_bn1/gamma") for group, block in blocks.items()}
    widths = [max(1 / 32, count / 2 ** (group + 5)) for group, count in filters.items()]
    architecture = nearest("width_multiplier", widths)
    if not architecture.encoder.sk_ratio:  # with SK, the names determine the stem
        architecture = nearest("stem", STEMS)
    for field, layer, width_of in (
        ("sk_ratio", "sk_conv1", sk_hidden_width),
        ("se_ratio", "se_conv1", se_hidden_width),
    ):
        if getattr(architecture.encoder, field):
            hidden = {group: last(f"{block}_{layer}/kernel") for group, block in blocks.items()}
            ratios = [_simplest_ratio(filters[group], hidden[group], width_of) for group in blocks]
            architecture = nearest(field, ratios)
    widths_of_head = [last(name) for name in at if name.startswith("projection_head")]
    architecture = nearest("proj_out_dim", filter(None, widths_of_head), section="head")
    if architecture.num_classes is None:
        return architecture
    counts = [shape[-1] for name, shape in at.items() if name.startswith("linear_head") and shape]
    candidates = [dataclasses.replace(architecture, num_classes=count) for count in counts]
    return min(candidates, key=num_mismatches, default=architecture)


def _simplest_ratio(filters: int, hidden: int, width_of: Callable[[int, float], int]) -> float:
    """Returns the ratio with the fewest digits for which the hidden layer has that width."""
    for digits in range(1, 7):
        ratio = -(-hidden * 10**digits // max(1, filters)) / 10**digits  # rounded up
        if 0 < ratio <= 1 and width_of(filters, ratio) == hidden:
            return ratio
    return _V2_RATIO
