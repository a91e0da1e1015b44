"""Settings of a run: frozen dataclasses, validated, converted to and from JSON."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from simclr_tf.errors import UserError
from simclr_tf.option_groups import (
    ADDED_IN_LATER_VERSION,
    MAX_VIEWS,
    Augmentation,
    Checkpoints,
    ContrastiveLoss,
    Data,
    Encoder,
    Monitoring,
    Optimization,
    ProjectionHead,
)
from simclr_tf.options import OptionGroup, option, option_fields


@dataclasses.dataclass(frozen=True)
class Labels(OptionGroup):
    """Labels

    >>> from simclr_tf.config import Labels
    >>> Labels(labels_per_class=10).label_fraction
    1.0
    """

    label_fraction: float = option(
        1.0, "Fraction of the labels that is used, of each class.", exclusive_min=0, max=1
    )
    labels_per_class: int = option(
        0, "Labeled images per class; a value above 0 overrides label_fraction.", min=0
    )


@dataclasses.dataclass(frozen=True)
class FineTuning(Labels):
    """Fine-tuning

    >>> from simclr_tf.config import FineTuning
    >>> FineTuning(fine_tune_after_block=4, label_fraction=0.1).views_per_image
    1
    """

    ft_proj_selector: int = option(
        0,
        "Layer of the projection head whose output the classifier gets (SimCLR v2: 1); 0: the "
        "encoder's.",
        min=0,
        max=4,
    )
    fine_tune_after_block: int = option(
        -1,
        "Trainable layers: -1 all; 0 all after the stem; 1 to 3 all after that block group; 4 only "
        "the classifier. The other layers are frozen, including their batch statistics.",
        min=-1,
        max=4,
    )
    zero_init_logits_layer: bool = option(False, "Initialize the classifier with zeros.")
    views_per_image: int = option(1, "Views per image in a step.", min=1, max=MAX_VIEWS)
    from_scratch: bool = option(
        False,
        "Train from random weights, or those of a KerasCV preset, without a checkpoint. The "
        "defaults are then those of pretrain.",
    )

    def check_start(self, checkpoint: str) -> None:
        """Raises UserError unless there is either a checkpoint or `from_scratch`."""
        if bool(checkpoint) == self.from_scratch:
            raise UserError(
                f"--checkpoint={checkpoint} and --from_scratch exclude each other. Fix: omit one"
                if checkpoint
                else "--checkpoint is missing: expected the run whose encoder is fine-tuned. Fix: "
                "set it, or --from_scratch to train from random weights"
            )


@dataclasses.dataclass(frozen=True)
class Distillation(Labels):
    """Distillation

    >>> from simclr_tf.config import Distillation
    >>> Distillation(teacher="runs/tuned", distill_temperature=0.1).distill_alpha
    1.0
    """

    teacher: str = option(
        "",
        "Teacher: a run of finetune or distill, or an exported SavedModel with a classifier.",
        is_path=True,
    )
    distill_temperature: float = option(
        1.0,
        "Softmax temperature of teacher and student. SimCLR v2: 1, or 0.1 for a student of the "
        "teacher's architecture.",
        exclusive_min=0,
    )
    distill_alpha: float = option(
        1.0,
        "Weight of the teacher's predictions; labels have weight 1 - alpha. 1: labels are not "
        "used.",
        min=0,
        max=1,
    )
    # Hash of the teacher's weights, computed when it is loaded.
    teacher_weights: str = ""

    def __post_init__(self):
        super().__post_init__()
        if not self.teacher:
            raise UserError(
                "--teacher is missing: expected a run of finetune or distill, or an exported "
                "SavedModel with a classifier. Fix: set it"
            )
        if self.distill_alpha == 1 and (self.label_fraction < 1 or self.labels_per_class):
            raise UserError(
                "--distill_alpha=1: expected a value below 1 with --label_fraction or "
                "--labels_per_class, because 1 uses no labels. Fix: set --distill_alpha, or omit "
                "them"
            )


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Settings of a pretraining run, except its directory.

    >>> from simclr_tf.config import PretrainConfig
    >>> from simclr_tf.option_groups import Augmentation, Data
    >>> PretrainConfig(Data("shapes"), Augmentation(image_size=32)).resolve().encoder.stem
    'cifar'
    """

    task: ClassVar[str] = "pretrain"

    data: Data
    augmentation: Augmentation = Augmentation()
    encoder: Encoder = Encoder()
    projection_head: ProjectionHead = ProjectionHead()
    contrastive_loss: ContrastiveLoss = ContrastiveLoss()
    optimization: Optimization = Optimization()
    monitoring: Monitoring = Monitoring()
    checkpoints: Checkpoints = Checkpoints()

    def __post_init__(self):
        loss, size = self.contrastive_loss, self.augmentation.image_size
        if self.augmentation.transformations and loss.views_per_image != 2:
            raise UserError(
                f"--transformations={self.augmentation.transformations}: expected two views per "
                f"image with it, because only the second is transformed, got "
                f"{loss.views_per_image}. Fix: omit --num_views and --num_small_views"
            )
        if loss.num_small_views and self.augmentation.view_size_schedule:
            raise UserError(
                f"--view_size_schedule={self.augmentation.view_size_schedule}: expected no "
                f"schedule with --num_small_views, got {loss.num_small_views} small views. "
                "Fix: omit one"
            )
        if loss.num_small_views and not 8 <= self.small_view_size <= size:
            raise UserError(
                f"--small_view_size={self.small_view_size}: expected 8 to {size}, the "
                f"--image_size, got {self.small_view_size}. Fix: set another size"
            )

    @property
    def small_view_size(self) -> int:
        """Side of the small views in pixels."""
        return self.contrastive_loss.small_view_size or self.augmentation.image_size // 2

    def resolve(self) -> Self:
        """Returns the config with `stem=auto` and `storage_size=0` replaced by their values."""
        size = self.augmentation.image_size
        stem = self.encoder.stem
        if stem == "auto" and self.encoder.encoder == "resnet":
            stem = "cifar" if size <= 32 else "imagenet"
        storage_size = self.data.storage_size or round(1.5 * max(self.augmentation.all_sizes))
        return self.override({"data": {"storage_size": storage_size}, "encoder": {"stem": stem}})

    @property
    def probe_data(self) -> Data:
        """The data of the probes during training."""
        data, monitoring = self.data, self.monitoring
        if monitoring.probe_dataset:  # without the other options of the training images
            names = ("eval_split", "data_dir", "storage_size", "skip_unreadable", "max_pixels")
            reading = {name: getattr(data, name) for name in names}
            data = Data(monitoring.probe_dataset, **reading)
        return dataclasses.replace(
            data,
            train_split=monitoring.probe_train_split or data.train_split,
            eval_split=monitoring.probe_eval_split or data.eval_split,
        )

    def labeled_data(self, has_labels: bool) -> Data:
        """Returns the data of evaluations of a run whose training images have labels, or not.

        It is that of the probes, unless the run has labels and the probes another dataset.
        """
        probe = self.probe_data
        return self.data if has_labels and probe.dataset != self.data.dataset else probe

    def override(self, changes: Mapping[str, Mapping[str, Any]]) -> Self:
        """Returns the config with other values of options, by section and name."""
        sections = {
            name: dataclasses.replace(getattr(self, name), **values)
            for name, values in changes.items()
        }
        return dataclasses.replace(self, **sections)

    def to_supervised_baseline(self) -> "FinetuneConfig":
        """Returns the config of the supervised baseline.

        It trains the same encoder from random weights with the same augmentation, optimizer, batch
        size and length on as many views of every image, except small ones, with the cross-entropy
        of the labels as loss.
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
        views = self.contrastive_loss.num_views
        learning = FineTuning(views_per_image=views, from_scratch=True)
        return FinetuneConfig(**sections, finetuning=learning)


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(PretrainConfig):
    """Settings of a fine-tuning run: those of pretraining and the use of labels.

    >>> from simclr_tf.config import FinetuneConfig, FineTuning
    >>> from simclr_tf.option_groups import Data
    >>> config = FinetuneConfig(Data("shapes"), finetuning=FineTuning(from_scratch=True))
    >>> config.checkpoints.checkpoint
    ''
    """

    task: ClassVar[str] = "finetune"

    finetuning: FineTuning = FineTuning()

    def __post_init__(self):
        self.finetuning.check_start(self.checkpoints.checkpoint)
        if self.augmentation.transformations and self.finetuning.views_per_image != 2:
            raise UserError(
                f"--transformations={self.augmentation.transformations}: expected "
                "--views_per_image=2 with it, because only the second view is transformed, got "
                f"{self.finetuning.views_per_image}. Fix: set --views_per_image=2"
            )
        if self.augmentation.flip == "alternating" and self.finetuning.views_per_image != 2:
            raise UserError(
                "--flip=alternating: expected --views_per_image=2 with it, because it flips one of "
                f"two views, got {self.finetuning.views_per_image}. Fix: set it, or omit --flip"
            )
        after = self.finetuning.fine_tune_after_block
        if self.encoder.encoder != "resnet" and 0 <= after < 4:
            raise UserError(
                f"--fine_tune_after_block={after}: expected -1 (all layers) or 4 (only the "
                f"classifier) with --encoder={self.encoder.encoder}, which has no block "
                "groups. Fix: use one of them"
            )


@dataclasses.dataclass(frozen=True)
class DistillConfig(PretrainConfig):
    """Settings of a distillation run: those of pretraining and the teacher.

    Its encoder has no projection head: `projection_head` and `contrastive_loss` have no effect.

    >>> from simclr_tf.config import DistillConfig, Distillation
    >>> from simclr_tf.option_groups import Data
    >>> teacher = Distillation(teacher="runs/tuned", distill_temperature=0.1)
    >>> DistillConfig(Data("shapes"), distillation=teacher).distillation.distill_alpha
    1.0
    """

    task: ClassVar[str] = "distill"

    distillation: Distillation = dataclasses.field(kw_only=True)

    def __post_init__(self):
        if self.augmentation.transformations:
            raise UserError(
                f"--transformations={self.augmentation.transformations}: not available in "
                "distillation, which uses one view per image. Fix: omit it"
            )
        if self.augmentation.flip == "alternating":
            raise UserError(
                "--flip=alternating: not available in distillation, which uses one view per "
                "image. Fix: omit it"
            )
        if len(self.augmentation.all_sizes) > 1:
            name = "view_size_schedule" if self.augmentation.view_sizes else "eval_image_size"
            raise UserError(
                f"--{name}={getattr(self.augmentation, name)}: expected the image size of the "
                "teacher throughout. Fix: omit it"
            )


CONFIGS = {config.task: config for config in (PretrainConfig, FinetuneConfig, DistillConfig)}
# Configs of the runs whose model is a classifier.
CLASSIFIER_CONFIGS = (FinetuneConfig, DistillConfig)


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """Values derived from config and data, with which the model is rebuilt without the data."""

    num_examples: int
    num_classes: int | None
    total_steps: int
    warmup_steps: int
    steps_per_epoch: float
    peak_learning_rate: float
    num_replicas: int = 1
    num_workers: int = 1
    class_names: tuple[str, ...] = ()  # of the classifier's logits
    # Labeled images that distillation uses.
    num_labels: int = dataclasses.field(default=0, metadata=ADDED_IN_LATER_VERSION)
    # Steps at which the sizes of `Augmentation.view_sizes` end.
    view_size_steps: tuple[int, ...] = dataclasses.field(
        default=(), metadata=ADDED_IN_LATER_VERSION
    )

    @property
    def is_imported(self) -> bool:
        """True for imported weights: the run has no step, and its images are unknown."""
        return self.total_steps == 0


def to_json(config: Any) -> dict[str, Any]:
    """Returns a config as JSON's types."""
    return dataclasses.asdict(config)


def from_json(cls: Any, values: Any) -> Any:
    """Rebuilds a config dataclass; only options added in a later version may be missing."""
    if not isinstance(values, dict):
        raise UserError(f"{cls.__name__}: expected an object, got {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if issubclass(cls, PretrainConfig):
        values = _with_current_sections(values)
    required = {
        name for name, field in fields.items() if not field.metadata.get("added_in_later_version")
    }
    missing_or_unknown = (set(values) - set(fields)) | (required - set(values))
    if missing_or_unknown:
        raise UserError(
            f"{cls.__name__}: missing or unknown: {', '.join(sorted(missing_or_unknown))}"
        )

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
