"""What a run is: frozen dataclasses, validated, to and from JSON.

Every field is an option of the commands under the same name, with its help, range and default here
and nowhere else. Where the reference implementation has the flag, name and default are its own.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from simclr_tf.errors import UserError
from simclr_tf.options import OptionGroup, option, option_fields

ADDED_IN_LATER_VERSION = {"added_in_later_version": True}


@dataclasses.dataclass(frozen=True)
class Data(OptionGroup):
    """Images to learn from"""

    dataset: str = option(
        "",
        "What to train on: a TFDS name, folder:PATH (images in any depth), or shapes (built in).",
    )
    data_dir: str = option("", "Where TFDS datasets are prepared; TFDS's own default if empty.")
    train_split: str = option("train", "Split to train on; slices such as train[:90%] work.")
    eval_split: str = option("validation", "Labelled split that probes and evaluations test on.")
    storage_size: int = option(
        0, "Images of varying size are stored at this side; 0: 1.5 × image_size.", min=0
    )
    cache_dataset: bool = option(False, "Decode the training images once and keep them in memory.")
    skip_unreadable: bool = option(False, "Leave out files that cannot be read, and count them.")
    validation_fraction: float = option(
        0.0, "Share of the training images held out for a validation loss.", min=0, max=0.5
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.dataset:
            raise UserError(
                "--dataset is missing: a TFDS name, folder:PATH or shapes; "
                "or start with --flagfile=flags/quickstart.flags"
            )


# Of one view alone: what `augment.NamedTransforms` knows.
TRANSFORMATIONS = ("crop", "cutout", "color", "sobel", "noise", "blur", "rotation")


@dataclasses.dataclass(frozen=True)
class Augmentation(OptionGroup):
    """Augmentation"""

    image_size: int = option(224, "Side of the views in pixels.", min=8)
    color_jitter_strength: float = option(
        1.0, "Strength of colour jitter: 1 for ImageNet, 0.5 for CIFAR-10, 0 for none.", min=0
    )
    use_blur: bool = option(True, "Blur half of the views; off for CIFAR-10.")
    brightness: str = option(
        "v2", "Brightness jitter: v2 multiplies, v1 adds.", choices=("v1", "v2")
    )
    crop_min_area: float = option(
        0.08, "Smallest share of the image that a crop takes.", exclusive_min=0, max=1
    )
    crop_max_area: float = option(1.0, "Largest such share.", exclusive_min=0, max=1)
    use_flip: bool = option(True, "Mirror half of the views.")
    use_grayscale: bool = option(True, "Take the colour out of a fifth of the views.")
    policy: str = option(
        "simclr",
        "simclr: the paper's; randaugment: crop, flip and KerasCV's RandAugment.",
        choices=("simclr", "randaugment"),
        added_in_later_version=True,
    )
    transformations: str = option(
        "",
        "In place of the policy: both views are the same crop, and the second alone goes through "
        f"these, in this order: any of {', '.join(TRANSFORMATIONS)}.",
        added_in_later_version=True,
    )

    @property
    def transformation_names(self) -> tuple[str, ...]:
        """Those that `transformations` lists."""
        return tuple(name.strip() for name in self.transformations.split(",") if name.strip())

    def __post_init__(self):
        super().__post_init__()
        names = self.transformation_names
        for name in names:
            if name not in TRANSFORMATIONS or names.count(name) > 1:
                raise UserError(
                    f"--transformations={self.transformations}: must be of "
                    f"{', '.join(TRANSFORMATIONS)}, each once"
                )
        if names and self.policy != "simclr":
            raise UserError(
                f"--transformations take the place of the policy: leave --policy={self.policy} out"
            )
        if self.crop_min_area > self.crop_max_area:
            raise UserError(
                f"--crop_min_area={self.crop_min_area:g}: must not exceed "
                f"--crop_max_area={self.crop_max_area:g}"
            )


@dataclasses.dataclass(frozen=True)
class Encoder(OptionGroup):
    """Encoder"""

    encoder: str = option(
        "resnet",
        "resnet, or keras_cv:PRESET_OR_DIRECTORY: a backbone of KerasCV under global average "
        "pooling; a preset of its own by name (downloaded), or a directory that holds one.",
        added_in_later_version=True,
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
    # Of a KerasCV encoder: what `models.keras_cv.describe_preset` found, enough to build it again.
    backbone: dict | None = dataclasses.field(default=None, metadata=ADDED_IN_LATER_VERSION)

    def __post_init__(self):
        super().__post_init__()
        if self.encoder != "resnet":
            self._check_keras_cv()
        if self.resnet_depth not in (18, 34, 50, 101, 152, 200):
            raise UserError(
                f"--resnet_depth={self.resnet_depth}: expected one of 18, 34, 50, 101, 152, 200"
            )

    def _check_keras_cv(self) -> None:
        if not self.preset:
            raise UserError(
                f"--encoder={self.encoder}: must be resnet or keras_cv:PRESET_OR_DIRECTORY"
            )
        for field in option_fields(self):
            value = getattr(self, field.name)
            if field.name in _RESNET_ONLY and value != field.default:
                raise UserError(
                    f"--{field.name}={value} is of --encoder=resnet, and {self.encoder} brings its "
                    "own architecture: leave one of them out"
                )

    @property
    def preset(self) -> str:
        """What a KerasCV encoder is made of; empty for the built-in ResNet."""
        kind, _, preset = self.encoder.partition(":")
        return preset if kind == "keras_cv" else ""

    def describe(self) -> str:
        """Returns the architecture in words; of a resolved config."""
        if self.preset:
            return f"KerasCV {self.backbone['class_name'] if self.backbone else self.preset}"
        return f"ResNet-{self.resnet_depth} × {self.width_multiplier:g} ({self.stem} stem)"


_RESNET_ONLY = ("resnet_depth", "width_multiplier", "stem", "sk_ratio", "se_ratio")


@dataclasses.dataclass(frozen=True)
class ProjectionHead(OptionGroup):
    """Projection head"""

    proj_head_mode: str = option(
        "nonlinear", "Kind of projection head.", choices=("none", "linear", "nonlinear")
    )
    num_proj_layers: int = option(3, "Layers of a nonlinear head.", min=1, max=4)
    proj_out_dim: int = option(128, "Width of the projections.", min=1)


@dataclasses.dataclass(frozen=True)
class ContrastiveLoss(OptionGroup):
    """Contrastive loss"""

    loss: str = option(
        "nt_xent",
        "nt_xent, nt_logistic, margin or dcl; supcon: images of the same label are positives, too; "
        "nt_logistic_semi_hard, margin_semi_hard: of an anchor's negatives only those that are "
        "less similar to it than its positive, by less than the margin.",
        choices=(
            *("nt_xent", "nt_logistic", "nt_logistic_semi_hard", "margin", "margin_semi_hard"),
            *("supcon", "dcl"),
        ),
        added_in_later_version=True,
    )
    margin: float = option(
        0.8,
        "Of the margin and semi_hard losses, in cosines; the paper tried 0, 0.4, 0.8 and 1.6.",
        min=0,
        added_in_later_version=True,
    )
    temperature: float = option(
        0.1, "Temperature of the loss; to the margin losses, of the figures alone.", exclusive_min=0
    )
    hidden_norm: bool = option(True, "Normalise the projections before the loss.")
    lineareval_while_pretraining: bool = option(
        True, "Train a linear head behind a stop-gradient where each image has a label."
    )

    def __post_init__(self):
        super().__post_init__()
        if self.loss.endswith("semi_hard") and self.margin == 0:
            raise UserError(
                f"--margin=0: no negative is semi-hard within it; raise it for --loss={self.loss}"
            )


PRECISIONS = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Optimization(OptionGroup):
    """Optimization"""

    train_batch_size: int = option(512, "Global batch, in images; each gives two views.", min=2)
    microbatch_size: int = option(
        0,
        "Images of a replica's share that are encoded at a time: the gradient of the whole batch "
        "in less memory, for about a third more time. It must divide the share; 0: all at once.",
        min=0,
    )
    train_epochs: float = option(100, "Passes over the training images.", exclusive_min=0)
    train_steps: int = option(0, "Steps of the run; above 0 it overrides train_epochs.", min=0)
    optimizer: str = option(
        "lars",
        "momentum, adam, adamw, lars, or lamb (of TensorFlow Addons, Python 3.11).",
        choices=("momentum", "adam", "adamw", "lars", "lamb"),
    )
    learning_rate: float = option(0.3, "Base learning rate, scaled by the batch.", exclusive_min=0)
    learning_rate_scaling: str = option(
        "linear",
        "linear: × batch / 256; sqrt: × √batch; none.",
        choices=("linear", "sqrt", "none"),
    )
    warmup_epochs: float = option(10, "Linear warm-up.", min=0)
    weight_decay: float = option(1e-6, "L2 on kernels, not on biases or batch norm.", min=0)
    momentum: float = option(0.9, "Of momentum and LARS.", min=0, exclusive_max=1)
    precision: str = option(
        "float32",
        "What the network computes in; weights, loss and statistics stay float32. auto: bfloat16 "
        "where a short trial finds it clearly faster, else float32.",
        choices=("auto", *PRECISIONS),
    )
    seed: int = option(0, "Of the weights, the data order and the views.", min=0, max=2**31 - 1)


@dataclasses.dataclass(frozen=True)
class Labels(OptionGroup):
    """Labels"""

    label_fraction: float = option(
        1.0, "Share of the labels that is used, class by class.", exclusive_min=0, max=1
    )
    labels_per_class: int = option(
        0, "Labelled images of each class; above 0 it overrides label_fraction.", min=0
    )


@dataclasses.dataclass(frozen=True)
class FineTuning(Labels):
    """Fine-tuning"""

    ft_proj_selector: int = option(
        0,
        "Layer of the projection head on which the new head sits (SimCLR v2: 1); 0: the encoder.",
        min=0,
        max=4,
    )
    fine_tune_after_block: int = option(
        -1,
        "What learns: -1 everything; 0 what comes after the stem, 1 to 3 after that block group; "
        "4 the new head alone. The rest stays as it is, batch statistics included.",
        min=-1,
        max=4,
    )
    zero_init_logits_layer: bool = option(False, "Start the new head at zero.")
    views_per_image: int = option(1, "Views of each image that a step learns from.", min=1, max=2)
    from_scratch: bool = option(
        False,
        "Train with labels from random weights (or a KerasCV preset's): no checkpoint, all flags "
        "as in pretrain.",
    )

    def check_start(self, checkpoint: str) -> None:
        """Raises UserError unless either a checkpoint is named or none is wanted."""
        if bool(checkpoint) == self.from_scratch:
            raise UserError(
                "--checkpoint=RUN and --from_scratch exclude each other"
                if checkpoint
                else "--checkpoint is missing: the run whose encoder is fine-tuned "
                "(or --from_scratch: training with labels from random weights)"
            )


@dataclasses.dataclass(frozen=True)
class Distillation(Labels):
    """Distillation"""

    teacher: str = option(
        "",
        "What the student learns from: a run of finetune or distill, or an exported SavedModel "
        "with a classifier.",
    )
    distill_temperature: float = option(
        1.0,
        "Of teacher's and student's softmax. SimCLR v2: 1, or 0.1 for a student of the teacher's "
        "own architecture.",
        exclusive_min=0,
    )
    distill_alpha: float = option(
        1.0,
        "Weight of the teacher's answers; 1 - alpha is that of the labels. 1: no label is used.",
        min=0,
        max=1,
    )
    # A digest of the teacher's weights, found when it was opened.
    teacher_weights: str = ""

    def __post_init__(self):
        super().__post_init__()
        if not self.teacher:
            raise UserError(
                "--teacher is missing: a run of finetune or distill, or an exported SavedModel "
                "with a classifier"
            )
        if self.distill_alpha == 1 and (self.label_fraction < 1 or self.labels_per_class):
            raise UserError(
                "--label_fraction and --labels_per_class need labels to be used: give a "
                "--distill_alpha below 1, or leave them out"
            )


@dataclasses.dataclass(frozen=True)
class Monitoring(OptionGroup):
    """Monitoring the run"""

    log_every: int = option(50, "Steps between lines of metrics.", min=1)
    knn_every_epochs: float = option(
        0.0, "Epochs between k-NN and linear probes of the encoder; 0: none.", min=0
    )
    pictures_every_epochs: float = option(
        10.0,
        "Epochs between TensorBoard's pictures of what the encoder finds alike (neighbours, "
        "similarity matrix, projector), which the end of the run has, too; 0: none.",
        min=0,
        added_in_later_version=True,
    )
    profile: bool = option(
        False,
        "Trace ten calls early in the run, to be looked at in TensorBoard's Profile tab.",
        added_in_later_version=True,
    )
    probe_dataset: str = option(
        "",
        "Labelled dataset of the probes, if not --dataset: its splits train and eval_split.",
    )
    eval_every_epochs: float = option(
        1.0,
        "Epochs between validation losses, if validation_fraction is above 0.",
        exclusive_min=0,
    )


@dataclasses.dataclass(frozen=True)
class Checkpoints(OptionGroup):
    """Checkpoints"""

    checkpoint: str = option("", "Run directory whose weights to start from, instead of random.")
    checkpoint_epochs: float = option(1.0, "Epochs between checkpoints.", exclusive_min=0)
    checkpoint_steps: int = option(
        0, "Steps between checkpoints; above 0 it overrides checkpoint_epochs.", min=0
    )
    keep_checkpoint_max: int = option(5, "Checkpoints kept, the newest ones.", min=1)
    keep_hub_module_max: int = option(1, "Exported models kept, the newest ones.", min=1)


@dataclasses.dataclass(frozen=True)
class Distribution(OptionGroup):
    """Distribution and machines"""

    strategy: str = option(
        "auto",
        "one_device; mirrored: all GPUs of this machine, or --num_replicas CPU devices; "
        "multi_worker: several processes, from TF_CONFIG or --workers; tpu. auto takes a TPU only "
        "where asked to, several workers where they are named, else all GPUs.",
        choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
    )
    num_replicas: int = option(
        0, "Replicas of mirrored: GPUs, or CPU devices where there is none; 0: all GPUs.", min=0
    )
    workers: str = option("", "host:port of every worker process, the same list on each.")
    worker_index: int = option(-1, "Which of --workers this process is, from 0.", min=-1)
    worker_timeout: int = option(300, "Seconds to wait for the other workers.", min=1)
    steps_per_execution: int = option(
        1,
        "Steps per call from the host; on TPU some hundred. Metrics, checkpoints and signals wait "
        "for the end of a call.",
        min=1,
    )
    use_tpu: bool = option(False, "The same as --strategy=tpu.")
    tpu_name: str = option("", "Name or grpc:// address of the TPU; local if empty.")
    tpu_zone: str = option("", "Google Cloud zone of a named TPU.")
    gcp_project: str = option("", "Google Cloud project of a named TPU.")


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """All that makes a pretraining run, but for where it is written."""

    task: ClassVar[str] = "pretrain"

    data: Data
    augmentation: Augmentation = Augmentation()
    encoder: Encoder = Encoder()
    projection_head: ProjectionHead = ProjectionHead()
    contrastive_loss: ContrastiveLoss = ContrastiveLoss()
    optimization: Optimization = Optimization()
    monitoring: Monitoring = Monitoring()
    checkpoints: Checkpoints = Checkpoints()

    def resolve(self) -> Self:
        """Returns the config with every automatic choice made that needs no trial."""
        size = self.augmentation.image_size
        stem = self.encoder.stem
        if stem == "auto" and not self.encoder.preset:
            stem = "cifar" if size <= 32 else "imagenet"
        storage_size = self.data.storage_size or round(1.5 * size)
        return self.override({"data": {"storage_size": storage_size}, "encoder": {"stem": stem}})

    def override(self, changes: Mapping[str, Mapping[str, Any]]) -> Self:
        """Returns the config with other values of options, given by section and name."""
        sections = {
            name: dataclasses.replace(getattr(self, name), **values)
            for name, values in changes.items()
        }
        return dataclasses.replace(self, **sections)

    def to_supervised_baseline(self) -> "FinetuneConfig":
        """Returns its supervised baseline.

        The same encoder from random weights, the same augmentation, optimizer, batch and length,
        and both views of every image; only the loss is another.
        """
        config = self.override(
            {
                "optimization": {"microbatch_size": 0},
                "encoder": {"preset_weights": not self.encoder.preset},
                "monitoring": {"knn_every_epochs": 0.0},
                "checkpoints": {"checkpoint": ""},
            }
        )
        sections = {f.name: getattr(config, f.name) for f in dataclasses.fields(PretrainConfig)}
        learning = FineTuning(views_per_image=2, from_scratch=True)
        return FinetuneConfig(**sections, finetuning=learning)


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(PretrainConfig):
    """All that makes a run with labels: what pretraining is made of, and how labels are used."""

    task: ClassVar[str] = "finetune"

    finetuning: FineTuning = FineTuning()

    def __post_init__(self):
        self.finetuning.check_start(self.checkpoints.checkpoint)
        if self.augmentation.transformations and self.finetuning.views_per_image != 2:
            raise UserError(
                "--transformations are of the second of two views: with labels they need "
                "--views_per_image=2"
            )
        after = self.finetuning.fine_tune_after_block
        if self.encoder.preset and 0 <= after < 4:
            raise UserError(
                f"--fine_tune_after_block={after}: only --encoder=resnet has block groups; of "
                f"{self.encoder.encoder} -1 trains all, 4 the new head alone"
            )


@dataclasses.dataclass(frozen=True)
class DistillConfig(PretrainConfig):
    """All that makes a student: what pretraining is made of, and what it learns from.

    Its encoder has no projection head: `projection_head` and `contrastive_loss` have no effect.
    """

    task: ClassVar[str] = "distill"

    distillation: Distillation = dataclasses.field(kw_only=True)

    def __post_init__(self):
        if self.augmentation.transformations:
            raise UserError(
                "--transformations are of the second of two views, and a student learns from one: "
                "leave them out"
            )


CONFIGS = {config.task: config for config in (PretrainConfig, FinetuneConfig, DistillConfig)}
# The runs that end in a classifier of their own.
CLASSIFIER_CONFIGS = (FinetuneConfig, DistillConfig)


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """What the data made of the config: enough, with it, to rebuild the model without the data."""

    num_examples: int
    num_classes: int | None
    total_steps: int
    warmup_steps: int
    steps_per_epoch: float
    peak_learning_rate: float
    num_replicas: int = 1
    num_workers: int = 1
    class_names: tuple[str, ...] = ()  # of a classifier's logits
    # That distillation uses.
    num_labels: int = dataclasses.field(default=0, metadata=ADDED_IN_LATER_VERSION)

    @property
    def is_imported(self) -> bool:
        """Whether the weights were brought in: such a run has no step, and no images are known."""
        return self.total_steps == 0


def to_json(config: Any) -> dict[str, Any]:
    """Returns a config as JSON's types."""
    return dataclasses.asdict(config)


def from_json(cls: Any, values: Any) -> Any:
    """Rebuilds a config dataclass, nested ones included.

    An option that was added later may be missing: its default is what was done before.

    Raises:
        UserError: if another value is missing, or one is unknown or out of range.
    """
    if not isinstance(values, dict):
        raise UserError(f"{cls.__name__}: expected an object, got {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if issubclass(cls, PretrainConfig):
        values = _with_current_sections(values)
    required = {
        name for name, field in fields.items() if not field.metadata.get("added_in_later_version")
    }
    odd = (set(values) - set(fields)) | (required - set(values))
    if odd:
        raise UserError(f"{cls.__name__}: missing or unknown: {', '.join(sorted(odd))}")

    def read(name: str, value: Any) -> Any:
        if dataclasses.is_dataclass(fields[name].type):
            return from_json(fields[name].type, value)
        return tuple(value) if isinstance(value, list) else value

    return cls(**{name: read(name, value) for name, value in values.items()})


def _with_current_sections(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config's JSON with the section names of earlier versions replaced."""
    renamed = {"views": "augmentation", "watching": "monitoring"}
    values = {renamed.get(name, name): section for name, section in values.items()}
    if isinstance(head := values.pop("head", None), dict):
        loss = {field.name for field in option_fields(ContrastiveLoss)}
        values["projection_head"] = {k: v for k, v in head.items() if k not in loss}
        values["contrastive_loss"] = {k: v for k, v in head.items() if k in loss}
    return values
