"""Groups of options that every training run has.

Every option is a command-line flag and a keyword argument of the Python API of the same name; its
help, range and default are defined here only. Flags of the reference implementation have its names
and defaults.
"""

import dataclasses
import itertools
import re
from typing import Any, Self

from simclr_tf.errors import UserError
from simclr_tf.options import OptionGroup, option, option_fields, split_commas

ADDED_IN_LATER_VERSION = {"added_in_later_version": True}
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 2**14
MAX_EPOCHS = 1e6
MAX_PIXELS = 178_956_970  # Pillow's: a file of a few kilobytes can claim gigabytes
MAX_VIEWS = 32  # per image


@dataclasses.dataclass(frozen=True)
class Data(OptionGroup):
    """Training images

    >>> from simclr_tf.option_groups import Data
    >>> Data("shapes", eval_split="test").train_split
    'train'
    """

    dataset: str = option(
        "",
        "Training dataset: a TFDS name, folder:PATH (images at any depth) or shapes (built in).",
        is_path=True,
    )
    data_dir: str = option("", "Directory of TFDS datasets. Default: that of TFDS.", is_path=True)
    train_split: str = option("train", "Training split; slices such as train[:90%] are allowed.")
    eval_split: str = option("validation", "Labeled test split of evaluations, and of probes.")
    storage_size: int = option(
        0,
        "Side in pixels to which images of varying size are resized when read; 0: 1.5 × the "
        "largest of image_size, eval_image_size and the sizes of view_size_schedule.",
        min=0,
        max=MAX_IMAGE_SIZE,
    )
    cache_dataset: bool = option(False, "Decode the training images once and cache them in memory.")
    labels: str = option(
        "auto",
        "auto: the labels of the dataset, for folder:PATH its class folders; none: no labels, as "
        "for photos in subfolders that are not classes.",
        choices=("auto", "none"),
        added_in_later_version=True,
    )
    skip_unreadable: bool = option(
        False,
        "Skip files and subfolders that cannot be read, and log their number. All files are "
        "decoded once; a run continues without images that have become unreadable.",
    )
    duplicates: str = option(
        "keep",
        "Links and exact copies of other images of a folder: keep, or drop all but the first.",
        choices=("keep", "drop"),
        added_in_later_version=True,
    )
    max_pixels: int = option(
        MAX_PIXELS,
        "Maximum pixels of an image file; larger ones count as unreadable.",
        min=1,
        added_in_later_version=True,
    )
    validation_fraction: float = option(
        0.0, "Fraction of the training images held out for a validation loss.", min=0, max=0.5
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.dataset:
            raise UserError(
                "--dataset is missing: expected a TFDS name, folder:PATH or shapes. Fix: set it, "
                "or start with --flagfile=flags/quickstart.flags"
            )

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of `open_source` that apply to every split."""
        names = ("data_dir", "storage_size", "labels", "skip_unreadable", "duplicates")
        return {name: getattr(self, name) for name in (*names, "max_pixels")}


# Names of `augment.NamedTransforms`, which apply to one of the two views.
TRANSFORMATIONS = ("crop", "cutout", "color", "sobel", "noise", "blur", "rotation")


@dataclasses.dataclass(frozen=True)
class Augmentation(OptionGroup):
    """Augmentation

    >>> from simclr_tf.option_groups import Augmentation
    >>> Augmentation(image_size=32, transformations="crop,color").transformation_names
    ('crop', 'color')
    """

    image_size: int = option(
        224, "Side of the views in pixels.", min=MIN_IMAGE_SIZE, max=MAX_IMAGE_SIZE
    )
    eval_image_size: int = option(
        0,
        "Side in pixels of the images in evaluations, probes and exports; 0: image_size.",
        min=0,
        max=MAX_IMAGE_SIZE,
        added_in_later_version=True,
    )
    view_size_schedule: str = option(
        "",
        "Sides of the views over the run, each until a fraction of its steps (below 1) or a step, "
        "the last one image_size: 16:0.4,24:0.8,32. Default: always image_size.",
        added_in_later_version=True,
    )
    color_jitter_strength: float = option(
        1.0, "Strength of color jitter: 1 for ImageNet, 0.5 for CIFAR-10, 0 disables it.", min=0
    )
    color_jitter_probability: float = option(
        0.8,
        "Fraction of the views with color jitter.",
        min=0,
        max=1,
        added_in_later_version=True,
    )
    use_blur: bool = option(True, "Blur a part of the views; disable it for CIFAR-10.")
    blur_probability: float = option(
        0.5, "Fraction of the views that use_blur blurs.", min=0, max=1, added_in_later_version=True
    )
    brightness: str = option(
        "v2", "Brightness jitter: v2 multiplies, v1 adds.", choices=("v1", "v2")
    )
    crop_min_area: float = option(
        0.08, "Minimum area of a crop as a fraction of the image.", exclusive_min=0, max=1
    )
    crop_max_area: float = option(
        1.0, "Maximum area of a crop as a fraction of the image.", exclusive_min=0, max=1
    )
    use_flip: bool = option(True, "Flip half of the views horizontally.")
    flip: str = option(
        "random",
        "Which half use_flip flips: random: each view with probability 0.5; alternating: one of "
        "the two views of every image.",
        choices=("random", "alternating"),
        added_in_later_version=True,
    )
    use_grayscale: bool = option(True, "Convert a part of the views to grayscale.")
    grayscale_probability: float = option(
        0.2,
        "Fraction of the views that use_grayscale converts.",
        min=0,
        max=1,
        added_in_later_version=True,
    )
    solarize_probability: float = option(
        0.0,
        "Fraction of the views whose values above 0.5 are inverted, as in BYOL.",
        min=0,
        max=1,
        added_in_later_version=True,
    )
    policy: str = option(
        "simclr",
        "simclr: that of the paper; randaugment: crop, flip and RandAugment of KerasCV.",
        choices=("simclr", "randaugment"),
        added_in_later_version=True,
    )
    transformations: str = option(
        "",
        "Replaces the policy: both views are the same crop, and only the second is transformed, by "
        f"any of {', '.join(TRANSFORMATIONS)}, in this order.",
        added_in_later_version=True,
    )

    @property
    def evaluation_size(self) -> int:
        """The side in pixels of the images in evaluations."""
        return self.eval_image_size or self.image_size

    @property
    def view_sizes(self) -> tuple[tuple[int, float], ...]:
        """The sizes of `view_size_schedule` before the last, and where each ends."""
        entries = [entry.split(":") for entry in split_commas(self.view_size_schedule)[:-1]]
        return tuple((int(size), float(end)) for size, end in entries)

    @property
    def all_sizes(self) -> dict[int, str]:
        """The sizes of training and evaluation, each with the option that sets it."""
        return {
            self.evaluation_size: f"--eval_image_size={self.eval_image_size}",
            **{
                size: f"--view_size_schedule={self.view_size_schedule}"
                for size, _ in self.view_sizes
            },
            self.image_size: f"--image_size={self.image_size}",
        }

    def at_size(self, size: int) -> Self:
        """Returns the augmentation at one size, without a schedule."""
        return dataclasses.replace(self, image_size=size, eval_image_size=0, view_size_schedule="")

    @property
    def transformation_names(self) -> tuple[str, ...]:
        """The transformations in `transformations`."""
        return tuple(name.strip() for name in self.transformations.split(",") if name.strip())

    def __post_init__(self):
        super().__post_init__()
        if 0 < self.eval_image_size < MIN_IMAGE_SIZE:
            raise UserError(
                f"--eval_image_size={self.eval_image_size}: expected an integer of at least "
                f"{MIN_IMAGE_SIZE}, or 0, got {self.eval_image_size}. Fix: choose a larger size"
            )
        self._check_view_sizes()
        names = self.transformation_names
        for name in names:
            if name not in TRANSFORMATIONS or names.count(name) > 1:
                raise UserError(
                    f"--transformations={self.transformations}: expected any of "
                    f"{', '.join(TRANSFORMATIONS)}, each at most once, got {name!r}"
                )
        if names and self.policy != "simclr":
            raise UserError(
                f"--policy={self.policy}: expected simclr with --transformations, which replaces "
                "the policy. Fix: omit --policy"
            )
        if self.solarize_probability and (names or self.policy != "simclr"):
            raise UserError(
                f"--solarize_probability={self.solarize_probability:g}: expected --policy=simclr "
                f"with it, got {self.transformations or self.policy}. Fix: omit --policy and "
                "--transformations"
            )
        if self.flip == "alternating" and (names or not self.use_flip):
            other = "--use_flip=False" if not self.use_flip else "--transformations"
            raise UserError(f"--flip=alternating: expected no {other} with it. Fix: omit {other}")
        if self.crop_min_area > self.crop_max_area:
            raise UserError(
                f"--crop_min_area={self.crop_min_area:g}: expected at most "
                f"--crop_max_area={self.crop_max_area:g}. Fix: change one of them"
            )

    def _check_view_sizes(self) -> None:
        def check(is_expected: bool, problem: str) -> None:
            if not is_expected:
                raise UserError(f"--view_size_schedule={self.view_size_schedule}: {problem}")

        *entries, last = split_commas(self.view_size_schedule) or [str(self.image_size)]
        for entry in entries:
            check(
                bool(re.fullmatch(r"\d+:(\d+|0?\.\d+)", entry)),
                "expected SIZE:END,…,SIZE, where END is a fraction of the run below 1 or a step, "
                f"got {entry!r}. Fix: write for example 16:0.4,{self.image_size}",
            )
        check(
            last == str(self.image_size),
            f"expected --image_size={self.image_size} as the last size, got {last!r}. Fix: set "
            "--image_size to the last size",
        )
        for size, _ in self.view_sizes:
            check(
                MIN_IMAGE_SIZE <= size <= MAX_IMAGE_SIZE,
                f"expected sizes of {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} pixels, got {size}. "
                "Fix: choose another size",
            )
        ends = [0, *(end for _, end in self.view_sizes)]
        check(
            all(a < b for a, b in itertools.pairwise(ends)),
            f"expected ends above 0 that ascend, got {', '.join(f'{end:g}' for end in ends[1:])}. "
            "Fix: order them",
        )


@dataclasses.dataclass(frozen=True)
class Encoder(OptionGroup):
    """Encoder

    >>> from simclr_tf.option_groups import Encoder
    >>> Encoder(resnet_depth=18, stem="cifar").describe()
    'ResNet-18 × 1 (cifar stem)'
    """

    encoder: str = option(
        "resnet",
        "resnet, or keras_cv:PRESET_OR_DIRECTORY: a backbone of KerasCV under global average "
        "pooling; a KerasCV preset by name (downloaded), or a directory that contains one. Python "
        "also accepts a functional Keras model, stored as keras:NAME.",
        added_in_later_version=True,
        is_path=True,
    )
    preset_weights: bool = option(
        True,
        "Start from the weights of a KerasCV preset, where it has any; else random.",
        added_in_later_version=True,
    )
    resnet_depth: int = option(50, "18, 34, 50, 101, 152 or 200.")
    width_multiplier: float = option(1.0, "Factor of all filter counts; fractions too.", min=1 / 32)
    stem: str = option(
        "auto",
        "imagenet (7×7/2 and pool) or cifar (3×3, no pool); auto: cifar up to 32 px.",
        choices=("auto", "imagenet", "cifar"),
    )
    sk_ratio: float = option(0.0, "Selective kernels if above 0; SimCLR v2: 0.0625.", min=0, max=1)
    se_ratio: float = option(0.0, "Squeeze and excitation if above 0.", min=0, max=1)
    batch_norm_decay: float = option(
        0.9, "Momentum of batch norm's moving statistics.", min=0, exclusive_max=1
    )
    global_bn: bool = option(True, "Batch statistics over all replicas.")
    # Description from which `models.build` rebuilds a KerasCV or custom Keras encoder.
    backbone: dict | None = dataclasses.field(default=None, metadata=ADDED_IN_LATER_VERSION)

    def __post_init__(self):
        super().__post_init__()
        if self.encoder != "resnet":
            self._check_other_encoder()
        if self.resnet_depth not in (18, 34, 50, 101, 152, 200):
            raise UserError(
                f"--resnet_depth={self.resnet_depth}: expected one of 18, 34, 50, 101, 152, 200, "
                f"got {self.resnet_depth}"
            )

    def _check_other_encoder(self) -> None:
        if not self.preset and not self.keras_model:
            raise UserError(
                f"--encoder={self.encoder}: expected resnet or keras_cv:PRESET_OR_DIRECTORY, got "
                f"{self.encoder!r}"
            )
        for field in option_fields(self):
            value = getattr(self, field.name)
            if field.name in _RESNET_ONLY and value != field.default:
                raise UserError(
                    f"--{field.name}={value}: expected --encoder=resnet with it, got "
                    f"{self.encoder}. Fix: omit --{field.name} or --encoder"
                )

    @property
    def preset(self) -> str:
        """Preset or directory of a KerasCV encoder; empty for other encoders."""
        kind, _, preset = self.encoder.partition(":")
        return preset if kind == "keras_cv" else ""

    @property
    def keras_model(self) -> str:
        """Name of the user's own Keras model; empty for other encoders."""
        kind, _, name = self.encoder.partition(":")
        return name if kind == "keras" else ""

    def describe(self) -> str:
        """Returns the architecture in words; of a resolved config."""
        if self.keras_model:
            return f"Keras model {self.keras_model}"
        if self.preset:
            return f"KerasCV {self.backbone['class_name'] if self.backbone else self.preset}"
        return f"ResNet-{self.resnet_depth} × {self.width_multiplier:g} ({self.stem} stem)"


_RESNET_ONLY = ("resnet_depth", "width_multiplier", "stem", "sk_ratio", "se_ratio")


@dataclasses.dataclass(frozen=True)
class ProjectionHead(OptionGroup):
    """Projection head

    >>> from simclr_tf.option_groups import ProjectionHead
    >>> ProjectionHead(num_proj_layers=2).proj_out_dim
    128
    """

    proj_head_mode: str = option(
        "nonlinear", "Kind of projection head.", choices=("none", "linear", "nonlinear")
    )
    num_proj_layers: int = option(3, "Layers of a nonlinear projection head.", min=1, max=4)
    proj_out_dim: int = option(128, "Dimension of the projections.", min=1, max=2**16)
    proj_hidden_dim: int = option(
        0,
        "Width of the hidden layers; 0: that of the encoder's features.",
        min=0,
        max=2**16,
        added_in_later_version=True,
    )


# Values of `loss` that take more than two views per image.
MULTI_VIEW_LOSSES = ("nt_xent", "supcon", "dcl", "vicreg", "tcr")


@dataclasses.dataclass(frozen=True)
class ContrastiveLoss(OptionGroup):
    """Contrastive loss

    >>> from simclr_tf.option_groups import ContrastiveLoss
    >>> ContrastiveLoss(loss="margin", margin=0.4).temperature
    0.1
    """

    loss: str = option(
        "nt_xent",
        "nt_xent, nt_logistic, margin or dcl; supcon: images with the same label are also "
        "positives; nt_logistic_semi_hard, margin_semi_hard: only negatives that are less similar "
        "to the anchor than its positive, by less than the margin; vicreg: variance, invariance "
        "and covariance; tcr: total coding rate and cosine to the mean view (EMP-SSL).",
        choices=(
            *("nt_xent", "nt_logistic", "nt_logistic_semi_hard", "margin", "margin_semi_hard"),
            *("supcon", "dcl", "vicreg", "tcr"),
        ),
        added_in_later_version=True,
    )
    margin: float = option(
        0.8,
        "Margin of the margin and semi_hard losses as a cosine; the paper tried 0, 0.4, 0.8 and "
        "1.6.",
        min=0,
        added_in_later_version=True,
    )
    temperature: float = option(
        0.1,
        "Temperature of the loss. For the margin losses, vicreg and tcr it only affects the logged "
        "accuracy and entropy.",
        exclusive_min=0,
    )
    hidden_norm: bool = option(
        True,
        "Normalize the projections before the loss. It does not affect vicreg, which never "
        "normalizes them, and tcr, which always does.",
    )
    invariance_weight: float | None = option(
        None,
        "Weight of the agreement of views in vicreg and tcr. Default: 25 for vicreg, 200 for tcr.",
        min=0,
        added_in_later_version=True,
    )
    variance_weight: float = option(
        25.0, "Weight of the variance in vicreg.", min=0, added_in_later_version=True
    )
    covariance_weight: float = option(
        1.0, "Weight of the covariance in vicreg.", min=0, added_in_later_version=True
    )
    lineareval_while_pretraining: bool = option(
        True, "Train a linear head behind a stop-gradient if every image has a label."
    )
    num_views: int = option(
        2,
        "Views per image. More than two: every view is contrasted with all others of its image, "
        f"by the losses {', '.join(MULTI_VIEW_LOSSES)}.",
        min=2,
        max=MAX_VIEWS,
        added_in_later_version=True,
    )
    num_small_views: int = option(
        0,
        "Additional views per image of small_view_size (multi-crop), contrasted like the others; "
        "the encoder runs once per size.",
        min=0,
        max=MAX_VIEWS - 2,
        added_in_later_version=True,
    )
    small_view_size: int = option(
        0,
        "Side of the small views in pixels; 0: half of image_size.",
        min=0,
        max=MAX_IMAGE_SIZE,
        added_in_later_version=True,
    )
    small_crop_min_area: float = option(
        0.05,
        "Minimum area of the crop of a small view as a fraction of the image.",
        exclusive_min=0,
        max=1,
        added_in_later_version=True,
    )
    small_crop_max_area: float = option(
        0.4,
        "Maximum area of the crop of a small view as a fraction of the image.",
        exclusive_min=0,
        max=1,
        added_in_later_version=True,
    )

    @property
    def views_per_image(self) -> int:
        """Number of views of each image in a step, of all sizes."""
        return self.num_views + self.num_small_views

    def __post_init__(self):
        super().__post_init__()
        if self.loss.endswith("semi_hard") and self.margin == 0:
            raise UserError(
                f"--margin=0: expected a number above 0 for --loss={self.loss}, because no "
                "negative is semi-hard without a margin. Fix: raise --margin"
            )
        if self.views_per_image > 2 and self.loss not in MULTI_VIEW_LOSSES:
            option_name = "num_views" if self.num_views > 2 else "num_small_views"
            raise UserError(
                f"--{option_name}={getattr(self, option_name)}: expected two views per image with "
                f"--loss={self.loss}, got {self.views_per_image}. Fix: omit --{option_name}, or "
                f"set --loss to one of {', '.join(MULTI_VIEW_LOSSES)}"
            )
        if self.views_per_image > MAX_VIEWS:
            raise UserError(
                f"--num_small_views={self.num_small_views}: expected at most {MAX_VIEWS} views "
                f"per image with --num_views, got {self.views_per_image}"
            )
        if self.small_crop_min_area > self.small_crop_max_area:
            raise UserError(
                f"--small_crop_min_area={self.small_crop_min_area:g}: expected at most "
                f"--small_crop_max_area={self.small_crop_max_area:g}. Fix: lower it"
            )


PRECISIONS = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Optimization(OptionGroup):
    """Optimization

    >>> from simclr_tf.option_groups import Optimization
    >>> Optimization(optimizer="adam", learning_rate=1e-3).train_batch_size
    512
    """

    train_batch_size: int = option(
        512, "Global batch size in images; each gives num_views views.", min=2, max=2**24
    )
    microbatch_size: int = option(
        0,
        "Images per replica that are encoded at a time (gradient caching): the exact gradient of "
        "the whole batch in less memory, about a third slower. Must divide the per-replica batch "
        "size; 0 disables it.",
        min=0,
        max=2**24,
    )
    train_epochs: float = option(
        100, "Passes over the training images.", exclusive_min=0, max=MAX_EPOCHS
    )
    train_steps: int = option(0, "Training steps; a value above 0 overrides train_epochs.", min=0)
    optimizer: str = option(
        "lars",
        "momentum, adam, adamw, lars, muon (orthogonalized momentum for kernels, momentum for "
        "others), or lamb (requires TensorFlow Addons, Python 3.11).",
        choices=("momentum", "adam", "adamw", "lars", "lamb", "muon"),
    )
    learning_rate: float = option(
        0.3, "Base learning rate, scaled by the batch size.", exclusive_min=0
    )
    learning_rate_scaling: str = option(
        "linear",
        "linear: × batch size / 256; sqrt: × √batch size; none.",
        choices=("linear", "sqrt", "none"),
    )
    warmup_epochs: float = option(10, "Epochs of linear warm-up.", min=0, max=MAX_EPOCHS)
    weight_decay: float = option(
        1e-6, "L2 regularization of kernels, not of biases and batch norm.", min=0
    )
    momentum: float = option(
        0.9, "Momentum of the optimizers momentum, lars and muon.", min=0, exclusive_max=1
    )
    ema_decay: float = option(
        0.0,
        "Decay per step of an exponential moving average of the weights and batch-norm statistics, "
        "which probes, evaluations and exports use; at most t / (t + 9) after t steps. 0 disables "
        "it.",
        min=0,
        exclusive_max=1,
        added_in_later_version=True,
    )
    precision: str = option(
        "float32",
        "Precision of the network; weights, loss and statistics are float32. auto: bfloat16 if a "
        "short trial finds it clearly faster, otherwise float32.",
        choices=("auto", *PRECISIONS),
    )
    seed: int = option(
        0, "Seed of the weights, the data order and the views.", min=0, max=2**31 - 1
    )


@dataclasses.dataclass(frozen=True)
class Monitoring(OptionGroup):
    """Monitoring

    >>> from simclr_tf.option_groups import Monitoring
    >>> Monitoring(knn_every_epochs=5).pictures_every_epochs
    10.0
    """

    log_every: int = option(50, "Steps between rows of metrics.", min=1)
    knn_every_epochs: float = option(
        0.0,
        "Epochs between k-NN and linear probes of the encoder; 0 disables them.",
        min=0,
        max=MAX_EPOCHS,
    )
    pictures_every_epochs: float = option(
        10.0,
        "Epochs between TensorBoard images of similar embeddings (nearest neighbors, similarity "
        "matrix, projector), which are also written at the end; 0 disables them.",
        min=0,
        max=MAX_EPOCHS,
        added_in_later_version=True,
    )
    profile: bool = option(
        False,
        "Trace ten calls early in the run for TensorBoard's Profile tab.",
        added_in_later_version=True,
    )
    probe_dataset: str = option(
        "",
        "Labeled dataset of the probes. Default: dataset. If dataset has no labels, evaluate and "
        "report use it, too.",
        is_path=True,
    )
    probe_train_split: str = option(
        "",
        "Split to which the probes are fitted. Default: train of probe_dataset, if that is set, "
        "otherwise train_split.",
        added_in_later_version=True,
    )
    probe_eval_split: str = option(
        "",
        "Split on which the probes are tested. Default: eval_split.",
        added_in_later_version=True,
    )
    eval_every_epochs: float = option(
        1.0,
        "Epochs between validation losses, if validation_fraction is above 0.",
        exclusive_min=0,
        max=MAX_EPOCHS,
    )


@dataclasses.dataclass(frozen=True)
class Checkpoints(OptionGroup):
    """Checkpoints

    >>> from simclr_tf.option_groups import Checkpoints
    >>> Checkpoints(checkpoint_epochs=10).keep_checkpoint_max
    5
    """

    checkpoint: str = option(
        "", "Run directory with the initial weights. Default: random weights.", is_path=True
    )
    checkpoint_epochs: float = option(
        1.0, "Epochs between checkpoints.", exclusive_min=0, max=MAX_EPOCHS
    )
    checkpoint_steps: int = option(
        0, "Steps between checkpoints; a value above 0 overrides checkpoint_epochs.", min=0
    )
    keep_checkpoint_max: int = option(
        5, "Number of checkpoints to store; older ones are deleted.", min=1
    )
    keep_hub_module_max: int = option(
        1, "Number of exports to store; older ones are deleted.", min=1
    )


@dataclasses.dataclass(frozen=True)
class Distribution(OptionGroup):
    """Devices and workers

    >>> from simclr_tf.option_groups import Distribution
    >>> Distribution(num_replicas=2).strategy
    'auto'
    """

    strategy: str = option(
        "auto",
        "one_device; mirrored: all GPUs of this machine, or num_replicas CPU devices; "
        "multi_worker: several processes, from TF_CONFIG or workers; tpu; auto: a TPU if use_tpu "
        "or tpu_name is set, several workers if they are listed, otherwise all GPUs.",
        choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
    )
    num_replicas: int = option(
        0,
        "Replicas of mirrored: GPUs, or CPU devices without a GPU; 0: all GPUs.",
        min=0,
        max=4096,
    )
    workers: str = option(
        "", "host:port of every worker process, comma-separated; the same list for every worker."
    )
    worker_index: int = option(-1, "Index of this process in workers, from 0.", min=-1, max=2**16)
    worker_timeout: int = option(300, "Seconds to wait for the other workers.", min=1)
    steps_per_execution: int = option(
        1,
        "Training steps per call of the compiled function; some hundred on TPU. Metrics, "
        "checkpoints and signals are handled between calls.",
        min=1,
    )
    use_tpu: bool = option(False, "The same as --strategy=tpu.")
    tpu_name: str = option("", "Name or grpc:// address of the TPU. Default: a local TPU.")
    tpu_zone: str = option("", "Google Cloud zone of the TPU.")
    gcp_project: str = option("", "Google Cloud project of the TPU.")
