"""Options of pretrain, finetune and distill, and the configs that they resolve to."""

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simclr_tf.config import Distillation, DistillConfig, FinetuneConfig, FineTuning, PretrainConfig
from simclr_tf.errors import UserError
from simclr_tf.option_groups import (
    Augmentation,
    Checkpoints,
    ContrastiveLoss,
    Data,
    Distribution,
    Encoder,
    Monitoring,
    Optimization,
    ProjectionHead,
)
from simclr_tf.options import (
    OptionGroup,
    OptionSet,
    absolute_dataset,
    make_group,
    option,
    option_fields,
)
from simclr_tf.runs.run_dir import RunDir

logger = logging.getLogger(__name__)

Options = Mapping[str, Any]  # the options that the caller sets, of any group


@dataclasses.dataclass(frozen=True)
class RunOptions(OptionGroup):
    """Run"""

    model_dir: str = option("", "Run directory, created if it does not exist.", is_path=True)
    mode: str = option(
        "train",
        "train; train_then_eval: also evaluate and export the trained model; eval: only evaluate "
        "and export it.",
        choices=("train", "eval", "train_then_eval"),
    )
    eval_batch_size: int = option(256, "Images per call of the encoder in evaluation.", min=1)

    def __post_init__(self):
        super().__post_init__()
        if not self.model_dir:
            raise UserError(
                "--model_dir is missing: expected the directory of the run. Fix: set it"
            )


GROUPS: dict[str, type[OptionGroup]] = {
    "data": Data,
    "augmentation": Augmentation,
    "encoder": Encoder,
    "projection_head": ProjectionHead,
    "contrastive_loss": ContrastiveLoss,
    "optimization": Optimization,
    "monitoring": Monitoring,
    "checkpoints": Checkpoints,
}
# Fine-tuning [v1 B.5] and distillation [v2 §3] only crop and flip.
CROP_AND_FLIP: dict[str, Any] = {
    "color_jitter_strength": 0.0,
    "use_blur": False,
    "use_grayscale": False,
    "flip": "random",
    "solarize_probability": 0.0,
    "policy": "simclr",
    "transformations": "",
    "eval_image_size": 0,
    "view_size_schedule": "",
}
# Options of how an architecture is trained, not of the architecture.
_FREE_ARCHITECTURE_OPTIONS = ("global_bn", "batch_norm_decay", "preset_weights")
# Options without effect if there is no contrastive loss.
_PRETRAIN_ONLY = tuple(field.name for field in option_fields(ContrastiveLoss))
_PROBES = ("knn_every_epochs", "probe_dataset", "probe_train_split", "probe_eval_split")

_FINETUNE_INHERITS = ("data", "augmentation", "encoder", "projection_head", "contrastive_loss")
# The paper's protocol [v1 B.5]: Nesterov 0.9, 0.05·B/256, no warm-up, no decay.
_FINETUNE_OPTIMIZATION = Optimization(
    optimizer="momentum",
    learning_rate=0.05,
    warmup_epochs=0.0,
    weight_decay=0.0,
    train_batch_size=256,
    train_epochs=30,
)
_LOW_LABEL_EPOCHS = 60  # for 1 % of the labels or fewer
_ONE_PERCENT_OF_IMAGENET = "imagenet2012_subset/1pct"

_DISTILL_INHERITS = ("data", "augmentation", "encoder")
# SimCLR v2 distills as it pretrains [v2 §3]: LARS, 0.1·√B, warm-up over a twentieth of the run.
_DISTILL_OPTIMIZATION = Optimization(
    learning_rate=0.1,
    learning_rate_scaling="sqrt",
    warmup_epochs=20,
    weight_decay=1e-4,
    train_epochs=400,
)


def _option_sets(
    first: type[OptionGroup], inherits: Sequence[str], source: str, optimization: OptionSet
) -> tuple[OptionSet, ...]:
    """Returns the options of a training that starts from a run, `source`."""
    sets = [OptionSet.of(RunOptions, {"mode": "train_then_eval"}), OptionSet.of(first)]
    for name, group in GROUPS.items():
        if group is Optimization:
            sets.append(optimization)
        elif name in inherits:
            defaults: dict[str, Any] = dict.fromkeys(f.name for f in option_fields(group))
            defaults |= CROP_AND_FLIP if name == "augmentation" else {}
            title = f"{OptionSet.of(group).heading} (default: that of {source})"
            help = {
                "image_size": f"Side of the views in pixels. Default: eval_image_size of {source}."
            }
            sets.append(OptionSet(title, group, defaults, help))
        elif group not in (ProjectionHead, ContrastiveLoss):
            sets.append(OptionSet.of(group))
    return (*sets, OptionSet.of(Distribution))


PRETRAIN_OPTIONS = (
    OptionSet.of(RunOptions),
    *(OptionSet.of(group) for group in GROUPS.values()),
    OptionSet.of(Distribution),
)
FINETUNE_OPTIONS = _option_sets(
    FineTuning,
    _FINETUNE_INHERITS,
    "the checkpoint's run",
    OptionSet.of(
        Optimization,
        {**vars(_FINETUNE_OPTIMIZATION), "train_epochs": None},
        {
            "train_epochs": "Passes over the labeled images. Default: 30, or 60 with "
            "labels_per_class or at most 1 % of the labels.",
            "train_batch_size": "Global batch size in images. If omitted, it is at most the number "
            "of labeled images.",
        },
    ),
)
DISTILL_OPTIONS = _option_sets(
    Distillation,
    _DISTILL_INHERITS,
    "the teacher's run",
    OptionSet.of(Optimization, vars(_DISTILL_OPTIMIZATION)),
)


def pretrain_config(options: Options) -> PretrainConfig:
    """Returns the config of a pretraining run."""
    return PretrainConfig(**_groups(GROUPS, options))


def finetune_config(options: Options) -> FinetuneConfig:
    """Returns the config of a fine-tuning run; omitted options are the checkpoint's run's."""
    fine_tuning, checkpoints = make_group(FineTuning, options), make_group(Checkpoints, options)
    checkpoint = checkpoints.checkpoint
    fine_tuning.check_start(checkpoint)
    if checkpoint:
        source, _ = RunDir(checkpoint).read_config()
        groups = _inherit_groups(source, _FINETUNE_INHERITS, options)
        for name in ("encoder", "projection_head"):
            _check_architecture(getattr(source, name), groups[name], checkpoint)
    else:
        groups = _groups(_FINETUNE_INHERITS, options, augmentation=Augmentation(**CROP_AND_FLIP))
    low_label = (
        fine_tuning.labels_per_class
        or fine_tuning.label_fraction <= 0.01
        or groups["data"].dataset.startswith(_ONE_PERCENT_OF_IMAGENET)
    )
    epochs = {"train_epochs": _LOW_LABEL_EPOCHS} if low_label else {}
    config = FinetuneConfig(
        **groups,
        optimization=make_group(Optimization, {**epochs, **options}, _FINETUNE_OPTIMIZATION),
        monitoring=make_group(Monitoring, options),
        checkpoints=checkpoints,
        finetuning=fine_tuning,
    )
    _check_no_microbatch(config)
    _log_ignored(options, (*_PRETRAIN_ONLY, *_PROBES))
    return config


def distill_config(options: Options) -> DistillConfig:
    """Returns the config of a distillation run; omitted options are the teacher's run's."""
    distillation = make_group(Distillation, options)
    checkpoints = make_group(Checkpoints, options)
    config = DistillConfig(
        **_distill_groups(options, distillation.teacher, checkpoints.checkpoint),
        projection_head=ProjectionHead(proj_head_mode="none"),
        optimization=make_group(Optimization, options, _DISTILL_OPTIMIZATION),
        monitoring=make_group(Monitoring, options),
        checkpoints=checkpoints,
        distillation=distillation,
    )
    _check_no_microbatch(config)
    _log_ignored(options, _PROBES)
    return config


def _log_ignored(options: Options, names: Iterable[str]) -> None:
    for name in names:
        if name in options:
            logger.info(f"note: --{name} has no effect here")


def _groups(names: Iterable[str], options: Options, **bases: OptionGroup) -> dict[str, Any]:
    return {name: make_group(GROUPS[name], options, bases.get(name)) for name in names}


def _inherit_groups(
    source: PretrainConfig, names: Sequence[str], options: Options
) -> dict[str, Any]:
    """Returns groups of another run with only crop and flip, overridden by the options.

    Another dataset comes with its standard splits.
    """
    from simclr_tf.evaluation.transfer_datasets import lookup_transfer_dataset

    bases = {name: getattr(source, name) for name in names}
    dataset = options.get("dataset")
    # The run's splits do not apply to another dataset.
    if dataset and absolute_dataset(str(dataset)) != source.data.dataset:
        known = lookup_transfer_dataset(str(dataset))
        bases["data"] = dataclasses.replace(
            bases["data"],
            train_split=known.train_split or "train",
            eval_split=known.test_split or "test",
            validation_fraction=0.0,
        )
    bases["data"] = dataclasses.replace(bases["data"], labels="auto")  # which it may now need
    before = source.augmentation
    bases["augmentation"] = dataclasses.replace(
        before, **CROP_AND_FLIP, image_size=before.evaluation_size
    )
    augmentation = make_group(Augmentation, options, bases["augmentation"])
    if max(augmentation.all_sizes) != max(before.all_sizes):  # resolved again for the new size
        bases["data"] = dataclasses.replace(bases["data"], storage_size=0)
    return _groups(names, options, **bases)


def _distill_groups(options: Options, teacher: str, checkpoint: str) -> dict[str, Any]:
    """Returns data and augmentation of the teacher's run, and the encoder.

    The encoder is the checkpoint's, if there is one, else that of the teacher's run.
    """
    teacher_run = RunDir(teacher)
    if teacher_run.config_file.exists():
        base, _ = teacher_run.read_config()
    else:  # an exported model does not contain its data
        base = PretrainConfig(make_group(Data, options), Augmentation(**CROP_AND_FLIP))
    groups = _inherit_groups(base, ("data", "augmentation"), options)
    encoder = base.encoder
    if checkpoint:
        encoder = RunDir(checkpoint).read_config()[0].encoder
    elif options.get("encoder") not in (None, encoder.encoder):  # sizes of another kind
        encoder = Encoder()
    else:  # the architecture of the teacher, but not its initial weights
        encoder = dataclasses.replace(encoder, preset_weights=not encoder.preset)
    groups["encoder"] = make_group(Encoder, options, encoder)
    if checkpoint:
        _check_architecture(encoder, groups["encoder"], checkpoint)
    return groups


def _check_architecture(expected: OptionGroup, actual: OptionGroup, checkpoint: str) -> None:
    """Raises UserError if an option contradicts the run whose weights are loaded."""
    for name, value in vars(actual).items():
        saved = getattr(expected, name)
        if value not in (saved, "auto") and name not in _FREE_ARCHITECTURE_OPTIONS:
            raise UserError(
                f"--{name}={value}: expected {saved}, as the encoder of "
                f"--checkpoint={checkpoint} has. Fix: omit --{name}"
            )


def _check_no_microbatch(config: PretrainConfig) -> None:
    if config.optimization.microbatch_size:
        raise UserError(
            f"--microbatch_size={config.optimization.microbatch_size}: it applies to the "
            "contrastive loss only, where the batch size matters. Fix: lower --train_batch_size"
        )
