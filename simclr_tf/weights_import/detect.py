"""From the names and shapes of a file's variables to what it is a model of."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from simclr_tf.config import Encoder, ProjectionHead
from simclr_tf.errors import UserError
from simclr_tf.models.projection_head import MAX_LAYERS
from simclr_tf.models.resnet import DEPTHS, STEMS, se_hidden_width, sk_hidden_width
from simclr_tf.weights_import.numbering import WAYS, Numbering
from simclr_tf.weights_import.variables import Architecture, Variable, reference_variables

Shape = tuple[int, ...]

_V2_RATIO = 0.0625  # SimCLR v2's of selective kernels
_HEADS = ("projection_head", "linear_head")
_REMEDY = "only whole models of the authors' TF2 code can be imported"


@dataclasses.dataclass(frozen=True)
class Recognised:
    """A file of weights, understood: what it is a model of, and its name for each variable."""

    architecture: Architecture
    names: tuple[tuple[Variable, str], ...]


def recognise(shapes: Mapping[str, Shape], named_by: str) -> Recognised:
    """Finds the architecture whose variables a file holds, all of them and no other.

    Args:
        shapes: of every variable, by the file's name for it.
        named_by: what those are: "name" in a graph, as in a SavedModel, or "key" of a checkpoint.

    Raises:
        UserError: there is none. It names the first variable, in build order, by which the file
            differs from the architecture that is nearest.
    """
    if named_by == "key":
        return _fit(shapes, lambda variable: variable.key, lambda key: key)
    # The fewest differences: a layer that is missing must not shift the names of all after it.
    fits = []
    for numbering in (Numbering(shapes, way) for way in WAYS):
        renamed = {numbering.ours(name): shape for name, shape in shapes.items()}
        if len(renamed) < len(shapes):
            raise UserError(f"has batch norm both with and without sync_ in its name; {_REMEDY}")
        nearest = reference_variables(_by_names(set(renamed), _name))
        fits.append((len({v.name for v in nearest} ^ set(renamed)), renamed, numbering))
    _, renamed, numbering = min(fits, key=lambda fit: fit[0])
    return _fit(renamed, _name, numbering.theirs)


def _name(variable: Variable) -> str:
    return variable.name


def _fit(
    shapes: Mapping[str, Shape], named: Callable[[Variable], str], shown: Callable[[str], str]
) -> Recognised:
    architecture = _by_names(set(shapes), named)
    expected = {named(v): v for v in reference_variables(architecture)}
    if not expected.keys() & shapes.keys():
        first = f": its first variable is {shown(next(iter(shapes)))}" if shapes else ""
        raise UserError(f"holds no model of the authors' TF2 code{first}; name one that does")
    what = f"{architecture.kind()}, which it is nearest to"
    for name in expected:
        if name not in shapes:
            raise UserError(f"{shown(name)} is missing for a {what}; {_REMEDY}")
    for name in shapes:
        if name not in expected:
            raise UserError(f"{shown(name)} is no variable of a {what}; {_REMEDY}")
    architecture = _by_shapes(architecture, shapes, named)
    variables = reference_variables(architecture)
    for variable in variables:
        name = named(variable)
        if shapes[name] != variable.shape:
            raise UserError(
                f"{shown(name)} has shape {list(shapes[name])}, not {list(variable.shape)} as in a "
                f"{architecture.describe()}, which it is nearest to; {_REMEDY}"
            )
    return Recognised(architecture, tuple((v, shown(named(v))) for v in variables))


def _by_names(found: set[str], named: Callable[[Variable], str]) -> Architecture:
    """The architecture, of no certain size, whose variables have these names, or nearly these."""

    def differences(architecture: Architecture) -> tuple[int, int]:
        # Of two that are as near, the larger: rather is a variable missing than one too many.
        expected = {named(v) for v in reference_variables(architecture)}
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


def _by_shapes(
    architecture: Architecture, shapes: Mapping[str, Shape], named: Callable[[Variable], str]
) -> Architecture:
    """The sizes of an architecture with which most of its variables have the shapes that are found.

    One variable of a wrong shape does not mislead it: it is then the one that is refused.
    """
    at = {f"{v.part}/{v.ours}": shapes[named(v)] for v in reference_variables(architecture)}

    def misfits(candidate: Architecture) -> int:
        return sum(shapes[named(v)] != v.shape for v in reference_variables(candidate))

    def nearest(section: str, field: str, values: Iterable[Any]) -> Architecture:
        part = getattr(architecture, section)
        parts = [dataclasses.replace(part, **{field: value}) for value in values]
        candidates = [dataclasses.replace(architecture, **{section: p}) for p in parts]
        return min([architecture, *candidates], key=misfits)

    def last(name: str) -> int:
        return at[name][-1] if at.get(name) else 0

    blocks = {group: f"encoder/block_group{group}_block1" for group in (4, 3, 2, 1)}
    # The last group's width is the most exact: fractions of a filter are dropped.
    filters = {group: last(f"{block}_bn1/gamma") for group, block in blocks.items()}
    widths = [max(1 / 32, count / 2 ** (group + 5)) for group, count in filters.items()]
    architecture = nearest("encoder", "width_multiplier", widths)
    if not architecture.encoder.sk_ratio:  # with SK, the names have told the stem
        architecture = nearest("encoder", "stem", STEMS)
    for field, layer, width_of in (
        ("sk_ratio", "sk_conv1", sk_hidden_width),
        ("se_ratio", "se_conv1", se_hidden_width),
    ):
        if getattr(architecture.encoder, field):
            hidden = {group: last(f"{block}_{layer}/kernel") for group, block in blocks.items()}
            ratios = [_roundest(filters[group], hidden[group], width_of) for group in blocks]
            architecture = nearest("encoder", field, ratios)
    ends = {
        part: [s[-1] for name, s in at.items() if name.startswith(part) and s] for part in _HEADS
    }
    architecture = nearest("head", "proj_out_dim", [end for end in ends["projection_head"] if end])
    if architecture.num_classes is not None:
        classes = [dataclasses.replace(architecture, num_classes=n) for n in ends["linear_head"]]
        architecture = min(classes, key=misfits, default=architecture)
    return architecture


def _roundest(filters: int, hidden: int, width_of: Callable[[int, float], int]) -> float:
    """The ratio of fewest digits with which so many filters have a hidden layer of that width."""
    for digits in range(1, 7):
        ratio = -(-hidden * 10**digits // max(1, filters)) / 10**digits  # rounded up
        if 0 < ratio <= 1 and width_of(filters, ratio) == hidden:
            return ratio
    return _V2_RATIO
