"""Detection of an architecture from names and shapes of variables."""

import dataclasses
import re

import pytest

from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.errors import UserError
from simclr_tf.models.build import build_model
from simclr_tf.models.resnet import DEPTHS
from simclr_tf.option_groups import Augmentation, Data, Encoder, ProjectionHead
from simclr_tf.weights_import.detect import detect_architecture
from simclr_tf.weights_import.variables import Architecture, reference_variables

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
SMALL = Architecture(
    Encoder(resnet_depth=18, width_multiplier=0.25, stem="cifar"), ProjectionHead(), 10
)


def shapes_of(architecture: Architecture, name_kind: str = "name") -> dict[str, tuple[int, ...]]:
    return {getattr(v, name_kind): v.shape for v in reference_variables(architecture)}


@pytest.mark.parametrize(("listed", "name_kind"), [("variables", "name"), ("checkpoint", "key")])
@pytest.mark.parametrize("model", ["resnet50", "resnet50_sk"])
def test_architectures_of_the_reference_are_detected(reference_variables, model, listed, name_kind):
    shapes = {name: tuple(shape) for name, shape in reference_variables[model][listed]}
    found = detect_architecture(shapes, name_kind)
    sk_ratio = 0.0625 if model == "resnet50_sk" else 0.0
    encoder = Encoder(resnet_depth=50, stem="imagenet", sk_ratio=sk_ratio)
    assert found.architecture == Architecture(encoder, ProjectionHead(), 1000)
    assert {name: variable.shape for variable, name in found.names} == shapes


def test_names_and_keys_identify_the_same_variables(reference_variables):
    # Of what both say by themselves: the shape, the group, the leaf, the head's layer.
    for model in reference_variables.values():
        names, keys = (
            {name: tuple(shape) for name, shape in model[listed]}
            for listed in ("variables", "checkpoint")
        )
        for variable, name in detect_architecture(names, "name").names:
            assert names[name] == keys[variable.key]
            assert name.removesuffix(":0").split("/")[-1] == variable.key.split("/")[-3]
            group, layer = re.search(r"block_group(\d)", name), re.search(r"/nl_(\d)/", name)
            assert not group or f"/block_groups/{int(group[1]) - 1}/" in variable.key
            assert not layer or f"/linear_layers/{layer[1]}/" in variable.key


def test_basic_block_has_the_keys_of_the_reference():
    # ResidualBlock of the reference: shortcut_layers, conv2d_bn_layers, se_layer.
    sizes = {"resnet_depth": 18, "sk_ratio": 0.0625, "se_ratio": 0.25, "stem": "imagenet"}
    keys = [v.key for v in reference_variables(Architecture(Encoder(**sizes), ProjectionHead()))]
    start = "model/resnet_model/block_groups/1/layers/0/"
    found = [key.removeprefix(start).removesuffix(SUFFIX) for key in keys if key.startswith(start)]
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    assert found == [
        "shortcut_layers/2/conv2d/kernel",  # after padding and pool
        *(f"shortcut_layers/3/bn/{leaf}" for leaf in norm),
        "conv2d_bn_layers/0/conv2d/kernel",
        *(f"conv2d_bn_layers/1/bn/{leaf}" for leaf in norm),
        "conv2d_bn_layers/2/conv2d/kernel",
        *(f"conv2d_bn_layers/3/bn/{leaf}" for leaf in norm),
        *("se_layer/se_reduce/kernel", "se_layer/se_reduce/bias"),
        *("se_layer/se_expand/kernel", "se_layer/se_expand/bias"),
    ]


@pytest.mark.parametrize("name_kind", ["name", "key"])
@pytest.mark.parametrize(
    ("encoder", "head", "classes"),
    [
        ({"width_multiplier": 2.0}, {"num_proj_layers": 2}, 1000),
        ({"width_multiplier": 4.0}, {"num_proj_layers": 2}, None),
        ({"width_multiplier": 2.0, "sk_ratio": 0.0625}, {}, 1000),
        ({"resnet_depth": 152, "width_multiplier": 3.0, "sk_ratio": 0.0625}, {}, 1000),
        ({"resnet_depth": 101, "sk_ratio": 0.1, "width_multiplier": 2.0}, {}, 1000),
        ({"resnet_depth": 200, "se_ratio": 0.25}, {"proj_head_mode": "none"}, None),
        ({"resnet_depth": 34, "stem": "cifar", "se_ratio": 0.0625}, {"num_proj_layers": 4}, 10),
        ({"stem": "cifar", "sk_ratio": 0.5, "se_ratio": 0.5}, {"proj_out_dim": 64}, 2),
        ({"resnet_depth": 18, "sk_ratio": 0.0625}, {"num_proj_layers": 1}, 100),
        ({"resnet_depth": 18, "width_multiplier": 0.1875, "stem": "cifar"}, {}, 1),
    ],
)
def test_every_architecture_is_detected(encoder, head, classes, name_kind):
    encoder = {"stem": "imagenet", **encoder}
    architecture = Architecture(Encoder(**encoder), ProjectionHead(**head), classes)
    assert (
        detect_architecture(shapes_of(architecture, name_kind), name_kind).architecture
        == architecture
    )


def test_linear_head_is_detected_by_its_name():
    linear = dataclasses.replace(SMALL, head=ProjectionHead(proj_head_mode="linear"))
    assert detect_architecture(shapes_of(linear), "name").architecture == linear


def test_detected_width_has_the_same_shapes():
    odd = dataclasses.replace(SMALL, encoder=Encoder(resnet_depth=18, width_multiplier=0.3))
    found = detect_architecture(shapes_of(odd), "name").architecture
    assert found.encoder.width_multiplier == 153 / 512
    assert shapes_of(found) == shapes_of(odd)


@pytest.mark.parametrize(
    ("encoder", "head"),
    [
        ({"resnet_depth": 18, "stem": "cifar", "se_ratio": 0.5}, {"proj_head_mode": "none"}),
        (
            {"resnet_depth": 18, "stem": "imagenet", "sk_ratio": 0.0625},
            {"proj_head_mode": "linear"},
        ),
        ({"resnet_depth": 50, "stem": "imagenet", "sk_ratio": 0.25, "se_ratio": 0.5}, {}),
    ],
)
def test_reference_variables_match_the_model(monkeypatch, encoder, head):
    # Of every group at least one block, and a second one without a shortcut.
    monkeypatch.setitem(
        DEPTHS, encoder["resnet_depth"], (encoder["resnet_depth"] > 34, [2, 1, 1, 1])
    )
    encoder, head = Encoder(**encoder, width_multiplier=0.125), ProjectionHead(**head)
    config = PretrainConfig(Data(dataset="shapes"), Augmentation(image_size=32), encoder, head)
    model = build_model(config, TrainingPlan(0, 7, 0, 0, 0.0, 0.0))
    theirs = reference_variables(Architecture(encoder, head, 7))
    ours = {
        f"{part}/{variable.name}": tuple(variable.shape)
        for part in ("encoder", "projection_head")
        for variable in getattr(model, part).variables
    }
    for variable in model.linear_head.variables:
        ours[f"linear_head/linear_head/{variable.name}"] = tuple(variable.shape)
    assert {f"{v.part}/{v.keras_name}:0": v.shape for v in theirs} == ours


def renumbered(shapes, number, sync="sync_"):
    """The shapes with every counted layer's number changed, as another process would count."""

    def change(match):
        found = number(match[1], int(match[2] or 0))
        kind = sync + match[1] if match[1] == "batch_normalization" else match[1]
        return f"{kind}_{found}" if found else kind

    kinds = "conv2d_fixed_padding|conv2d|batch_norm_relu|batch_normalization|dense|residual_block"
    pattern = re.compile(rf"(?<=/)({kinds})(?:_(\d+))?(?=/)")
    return {pattern.sub(change, name): shape for name, shape in shapes.items()}


@pytest.mark.parametrize("sync", ["sync_", ""])
@pytest.mark.parametrize(
    "number",
    [
        lambda kind, n: n,
        lambda kind, n: n + len(kind),  # every kind from a number of its own
        lambda kind, n: 7 + 3 * n + n % 2,  # in order, with gaps; past 9, 99: no sorting as text
    ],
    ids=["from 0", "from elsewhere", "with gaps"],
)
def test_layers_are_matched_by_the_order_of_their_numbers(number, sync):
    shapes = shapes_of(SMALL)
    found = detect_architecture(renumbered(shapes, number, sync), "name")
    assert found.architecture == SMALL
    assert [variable.name for variable, _ in found.names] == list(shapes)
    names = renumbered(dict.fromkeys(shapes), number, sync)
    assert [name for _, name in found.names] == list(names)


def names_of_layer(shapes, layer):
    return [name for name in shapes if f"/{layer}/" in name]


@pytest.mark.parametrize("above", [0, 17])
@pytest.mark.parametrize(
    "layer", ["conv2d", "batch_norm_relu", "conv2d_5", "batch_norm_relu_9", "conv2d_20", "dense_1"]
)
def test_missing_layer_is_named(layer, above):
    shapes = shapes_of(SMALL)
    first, *others = names_of_layer(shapes, layer)
    remaining = {name: shape for name, shape in shapes.items() if name not in (first, *others)}

    def number(kind, n):
        return n + above

    (name,) = renumbered({first: None}, number)
    with pytest.raises(UserError) as refused:
        detect_architecture(renumbered(remaining, number), "name")
    message = str(refused.value)
    # Of the first of a kind nobody knows what its number would have been.
    if layer in ("conv2d", "batch_norm_relu") and above:
        name = re.sub(r"_\d+", r"_\\d+", name)
    assert re.match(rf"{name} is missing", message), message


@pytest.mark.parametrize("position", [0, 3, 57, 100, 120])
@pytest.mark.parametrize("name_kind", ["name", "key"])
def test_first_variable_that_differs_is_named(position, name_kind):
    shapes = shapes_of(SMALL, name_kind)
    name = list(shapes)[position]
    for what, changed in {
        "missing": {n: s for n, s in shapes.items() if n != name},
        "has shape": {**shapes, name: (*shapes[name][:-1], shapes[name][-1] + 1)},
        "not a variable": {**shapes, f"{name}/more": shapes[name]},
    }.items():
        with pytest.raises(UserError) as refused:
            detect_architecture(changed, name_kind)
        message = str(refused.value)
        shown = re.sub(r"(?<=/)batch_normalization", "(sync_)?batch_normalization", name)
        assert re.match(shown + ("/more" if what == "not a variable" else "") + " ", message), (
            message
        )
        assert what in message and "\n" not in message
        assert "ResNet-18" in message


@pytest.mark.parametrize("shape", [(), (0,), (3, 3), (3, 3, 16, 0)])
def test_variable_of_any_shape_is_named_in_the_error(shape):
    shapes = shapes_of(SMALL)
    for name in ("resnet/conv2d_fixed_padding/conv2d/kernel:0", list(shapes)[-1]):
        with pytest.raises(UserError, match=f"{name} has shape"):
            detect_architecture({**shapes, name: shape}, "name")


def test_error_for_another_model_names_its_first_variable():
    with pytest.raises(UserError, match=r"no model of the authors' TF2 code.* dense/kernel:0"):
        detect_architecture({"dense/kernel:0": (3, 4), "dense/bias:0": (4,)}, "name")
    with pytest.raises(UserError, match="no model of the authors' TF2 code"):
        detect_architecture({}, "key")


def test_names_with_and_without_sync_are_refused():
    shapes = shapes_of(SMALL)
    name = next(name for name in shapes if "batch_normalization" in name)
    shapes[name.replace("/batch_normalization", "/sync_batch_normalization")] = (16,)
    with pytest.raises(UserError, match="with and without sync_"):
        detect_architecture(shapes, "name")
