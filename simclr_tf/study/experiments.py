"""The paper's experiments [v1] as data.

Values of the paper are linear evaluation of a ResNet-50 on ImageNet, top-1 in percent.
"""

from typing import Any

from simclr_tf.option_groups import TRANSFORMATIONS
from simclr_tf.study.grid import MATCH_BASE_LEARNING_RATE, Cell, PlotSpec, ScaledBy, Study

# Fig. 5: rows the first, columns the second transformation; single ones on the diagonal.
_FIG_5 = (
    (33.1, 33.9, 56.3, 46.0, 39.9, 35.0, 30.2),
    (32.2, 25.6, 33.9, 40.0, 26.5, 25.2, 22.4),
    (55.8, 35.5, 18.8, 21.0, 11.4, 16.5, 20.8),
    (46.2, 40.6, 20.9, 4.0, 9.3, 6.2, 4.2),
    (38.8, 25.8, 7.5, 7.6, 9.8, 9.8, 9.6),
    (35.1, 25.2, 16.6, 5.8, 9.7, 2.6, 6.7),
    (30.0, 22.5, 20.7, 4.3, 9.7, 6.5, 2.6),
)

AUGMENTATIONS = Study(
    "augmentations",
    "one or two transformations of one view, the other view only cropped",
    "Fig. 5",
    ("first", "second"),
    [
        Cell(
            (first, second),
            {"transformations": first if first == second else f"{first},{second}"},
            paper_value=_FIG_5[i][j],
        )
        for i, first in enumerate(TRANSFORMATIONS)
        for j, second in enumerate(TRANSFORMATIONS)
    ],
    PlotSpec("heat map", x="second", by="first"),
    "No single transformation suffices; crop and color together are by far the best pair.",
    subsets={"small": dict.fromkeys(("first", "second"), ("crop", "cutout", "color", "rotation"))},
)

_STRENGTHS = {"1/8": 1 / 8, "1/4": 1 / 4, "1/2": 1 / 2, "1": 1.0}
_POLICIES: dict[str, dict[str, Any]] = {
    **{
        name: {"color_jitter_strength": s, "use_blur": False, "policy": "simclr"}
        for name, s in _STRENGTHS.items()
    },
    "1 + blur": {"color_jitter_strength": 1.0, "use_blur": True, "policy": "simclr"},
    "RandAugment": {"policy": "randaugment"},
}
_TABLE_1 = {
    "SimCLR": (59.6, 61.0, 62.6, 63.2, 64.5, 61.1),
    "supervised": (77.0, 76.7, 76.5, 75.7, 75.4, 77.1),
}

COLOR_STRENGTH = Study(
    "color_strength",
    "strength of color distortion, with and without labels",
    "Table 1, whose last column is AutoAugment in place of RandAugment",
    ("training", "policy"),
    [
        Cell((training, policy), overrides, paper, supervised=training == "supervised")
        for training, values in _TABLE_1.items()
        for (policy, overrides), paper in zip(_POLICIES.items(), values, strict=True)
    ],
    PlotSpec("lines", x="policy", by="training"),
    "Stronger color distortion helps SimCLR and not the supervised model; a policy found for "
    "supervised learning does not beat it.",
    subsets={"small": {"policy": ("1/8", "1/2", "1", "RandAugment")}},
)

_DIMENSIONS = (32, 64, 128, 256, 512, 1024, 2048)

HEAD = Study(
    "head",
    "projection heads and their widths; h compared with g(h)",
    "Fig. 8, which has no numbers",
    ("head", "width"),
    [
        Cell(("none", "that of h"), {"proj_head_mode": "none"}),
        *(
            Cell((mode, str(width)), {"proj_head_mode": mode, "proj_out_dim": width})
            for mode in ("linear", "nonlinear")
            for width in _DIMENSIONS
        ),
    ],
    PlotSpec("bars", x="width", by="head"),
    "A nonlinear head is about 3 points better than a linear one and over 10 than none, at any "
    "width; h is over 10 points better than g(h).",
    columns=("knn/projection", "logistic", "logistic/projection"),
    subsets={"small": {"width": ("that of h", "32", "128", "512")}},
)

_TABLE_4 = {
    "margin": 50.9,
    "nt_logistic": 51.6,
    "margin_semi_hard": 57.5,
    "nt_logistic_semi_hard": 57.9,
    "nt_xent": 63.9,
    "dcl": None,
    "supcon": None,
}

LOSSES = Study(
    "losses",
    "losses; only supcon uses labels",
    "Table 4",
    ("loss",),
    [Cell((loss,), {"loss": loss}, paper) for loss, paper in _TABLE_4.items()],
    PlotSpec("bars", x="loss"),
    "NT-Xent is best; the next best losses use semi-hard negatives.",
    subsets={"small": {}},
)

_TEMPERATURES = {0.05: 59.7, 0.1: 64.4, 0.5: 60.7, 1.0: 58.0}

TEMPERATURE = Study(
    "temperature",
    "temperature of NT-Xent, with normalized and plain projections",
    "Table 5",
    ("projections", "τ"),
    [
        *(
            Cell(("normalized", f"{t:g}"), {"hidden_norm": True, "temperature": t}, paper)
            for t, paper in _TEMPERATURES.items()
        ),
        *(
            Cell(("plain", f"{t:g}"), {"hidden_norm": False, "temperature": t}, paper)
            for t, paper in ((10.0, 57.2), (100.0, 57.0))
        ),
    ],
    PlotSpec("bars", x="τ", by="projections"),
    "Without normalization and a suitable temperature the representation is worse, although the "
    "contrastive accuracy is higher.",
    columns=("logistic", "contrastive_accuracy", "contrastive_entropy"),
    subsets={"small": {}},
)

# Table B.1, linear / sqrt, whose base has B = 4096 images and E = 100 epochs.
_BATCHES = {"B/16": 1 / 16, "B/8": 1 / 8, "B/4": 1 / 4, "B": 1.0, "2B": 2.0}
_EPOCHS = {"E": 1.0, "2E": 2.0, "4E": 4.0, "8E": 8.0}
_TABLE_B1 = {
    "B/16": ((57.5, 62.8), (61.9, 64.3), (64.7, 65.7), (66.6, 66.5)),
    "B/8": ((60.7, 63.8), (64.0, 65.6), (66.2, 66.7), (67.8, 67.4)),
    "B/4": ((62.8, 64.3), (65.3, 66.1), (67.2, 67.2), (68.5, 68.3)),
    "B": ((64.6, 64.5), (66.5, 66.8), (68.2, 68.0), (68.9, 69.1)),
    "2B": ((64.8, 64.8), (66.6, 67.0), (67.8, 68.3), (69.0, 69.1)),
}

BATCH_EPOCHS = Study(
    "batch_epochs",
    "multiples of the base's batch B and epochs E, at learning rates that agree at B",
    "Fig. 9 and Table B.1, where B is 4096 and E is 100",
    ("batch", "epochs", "rate by"),
    [
        Cell(
            (batch, epochs, scaling),
            {
                "train_batch_size": ScaledBy(_BATCHES[batch]),
                "train_epochs": ScaledBy(_EPOCHS[epochs]),
                "learning_rate_scaling": scaling,
                "learning_rate": MATCH_BASE_LEARNING_RATE,
            },
            paper,
        )
        for batch, rows in _TABLE_B1.items()
        for epochs, pair in zip(_EPOCHS, rows, strict=True)
        for scaling, paper in zip(("linear", "sqrt"), pair, strict=True)
    ],
    PlotSpec("lines", x="epochs", by="batch"),
    "Larger batches are better after few epochs, and the difference vanishes with more; "
    "square-root scaling is better for small batches and few epochs.",
    subsets={"small": {"batch": ("B/4", "B", "2B"), "epochs": ("E", "2E")}},
)

WIDTH_DEPTH = Study(
    "width_depth",
    "depth and width of the encoder, with and without labels",
    "Fig. 7, which has no numbers",
    ("training", "depth", "width ×"),
    [
        Cell(
            (training, str(depth), f"{factor:g}"),
            {"resnet_depth": depth, "width_multiplier": ScaledBy(factor)},
            supervised=training == "supervised",
        )
        for training in ("SimCLR", "supervised")
        for depth in (18, 34, 50, 101, 152)
        for factor in (1, 2, 4)
    ],
    PlotSpec("lines", x="width ×", by="depth"),
    "Bigger models are better, and learning without labels gains more from it than learning with "
    "them.",
    subsets={"small": {"training": ("SimCLR",), "depth": ("18", "34"), "width ×": ("1", "2")}},
)

BN = Study(
    "bn",
    "batch statistics over all replicas, or per replica",
    "§2.2, which has no numbers",
    ("statistics", "batch"),
    [
        Cell(
            (statistics, batch),
            {"global_bn": statistics == "global", "train_batch_size": ScaledBy(factor)},
        )
        for statistics in ("global", "of each replica")
        for batch, factor in (("B/4", 1 / 4), ("B", 1.0))
    ],
    PlotSpec("bars", x="batch", by="statistics"),
    "Both views of an image are on one replica, whose own statistics reveal them: the "
    "contrastive accuracy rises, but the representation does not improve.",
    columns=("logistic", "contrastive_accuracy", "contrastive_entropy"),
    subsets={"small": {"batch": ("B",)}},
    needs_replicas=True,
)

_ALL = (AUGMENTATIONS, COLOR_STRENGTH, HEAD, LOSSES, TEMPERATURE, BATCH_EPOCHS, WIDTH_DEPTH, BN)
STUDIES = {study.name: study for study in _ALL}
