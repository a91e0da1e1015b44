"""From a config to the model, its optimizer compiled in: the one place where they meet."""

import functools
from typing import Any

import tf_keras as keras

from simclr_tf import losses, optimizers
from simclr_tf.augment import NamedTransforms, RandAugment, SimCLRAugment
from simclr_tf.config import (
    Augmentation,
    DistillConfig,
    Encoder,
    FinetuneConfig,
    PretrainConfig,
    TrainingPlan,
)
from simclr_tf.errors import UserError
from simclr_tf.models import Classifier, DistilledClassifier, ResNet, SimCLR, build_projection_head
from simclr_tf.models.classifier import freeze_through_block, truncate_projection_head
from simclr_tf.models.keras_cv_backbones import build_backbone, describe_preset
from simclr_tf.models.multi_view import Augment

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def build_encoder(encoder: Encoder, precision: str = "float32") -> keras.Model:
    """Returns the encoder of a resolved config, with random weights."""
    common: dict[str, Any] = {
        "batch_norm_momentum": encoder.batch_norm_decay,
        "global_bn": encoder.global_bn,
        "dtype": _POLICIES[precision],
    }
    if encoder.preset:
        return build_backbone(encoder.backbone or {}, **common)
    return ResNet(
        encoder.resnet_depth,
        encoder.width_multiplier,
        encoder.stem,
        encoder.sk_ratio,
        encoder.se_ratio,
        **common,
    )


def resolve_encoder(config: PretrainConfig, known: Encoder | None = None) -> PretrainConfig:
    """Returns the config with what its KerasCV preset, if it has one, is.

    Args:
        config: of which a backbone that is known already stays.
        known: of a run to go on with: its preset need not be there any more.

    Raises:
        UserError: as `describe_preset`.
    """
    encoder = config.encoder
    for description in (encoder.backbone, known and known.backbone):
        if description and description["preset"] == encoder.preset:
            break
    else:
        size = config.augmentation.image_size
        description = describe_preset(encoder.preset, size) if encoder.preset else None
    return config.override({"encoder": {"backbone": description}})


def build_model(
    config: PretrainConfig, plan: TrainingPlan, steps_per_execution: int = 1
) -> SimCLR | Classifier:
    """Returns the model of a resolved config, compiled, every variable created.

    The weights are a function of the seed. Call it in the scope of the strategy that trains it.

    Raises:
        UserError: a fine-tuning config asks for a layer that the projection head does not have, or
            KerasCV cannot build the encoder.
    """
    keras.utils.set_random_seed(config.optimization.seed)
    model: SimCLR | Classifier
    if isinstance(config, FinetuneConfig):
        model = _classifier(config, plan)
    elif isinstance(config, DistillConfig):
        model = _student(config, plan)
    else:
        model = _simclr(config, plan)
    size = config.augmentation.image_size
    model.build((None, size, size, 3))
    optimizer = _optimizer(config, plan)
    model.compile(optimizer, steps_per_execution=steps_per_execution)
    # Built now, so that a checkpoint restores into it and is checked at once.
    # (A LossScaleOptimizer around LAMB cannot, so what it wraps is.)
    getattr(optimizer, "inner_optimizer", optimizer).build(model.trainable_variables)
    return model


def _simclr(config: PretrainConfig, plan: TrainingPlan) -> SimCLR:
    loss = config.contrastive_loss
    encoder = build_encoder(config.encoder, config.optimization.precision)
    width = encoder.output_shape[-1]
    return SimCLR(
        encoder,
        _projection_head(config, width),
        _augment(config.augmentation),
        contrastive_loss=losses.get(loss.loss, loss.margin),
        temperature=loss.temperature,
        normalize=loss.hidden_norm,
        linear_head=(
            _linear_head(width, plan.num_classes)
            if loss.lineareval_while_pretraining and plan.num_classes
            else None
        ),
        seed=config.optimization.seed,
        microbatch_size=config.optimization.microbatch_size,
    )


def _classifier(config: FinetuneConfig, plan: TrainingPlan) -> Classifier:
    finetuning = config.finetuning
    encoder = build_encoder(config.encoder, config.optimization.precision)
    width = encoder.output_shape[-1]
    projection = None
    if finetuning.ft_proj_selector:
        head = _projection_head(config, width)
        try:
            projection = truncate_projection_head(head, finetuning.ft_proj_selector)
        except ValueError as error:
            raise UserError(
                f"--ft_proj_selector={finetuning.ft_proj_selector}: {error}; choose a layer that "
                "it has, or 0 for the encoder itself"
            ) from None
        width = projection.output_shape[-1]
    freeze_through_block(encoder, finetuning.fine_tune_after_block)
    if projection is not None and finetuning.fine_tune_after_block == 4:
        projection.trainable = False
    return Classifier(
        encoder,
        _linear_head(width, plan.num_classes, zero=finetuning.zero_init_logits_layer),
        _augment(config.augmentation),
        projection=projection,
        seed=config.optimization.seed,
        views_per_image=finetuning.views_per_image,
    )


@functools.lru_cache
def _augment(views: Augmentation) -> Augment | tuple[Augment, Augment]:
    """One policy, or one for each view. They are shared, so that each is compiled once only."""
    crop: dict[str, Any] = {
        "crop_area": (views.crop_min_area, views.crop_max_area),
        "flip": views.use_flip,
    }
    if views.policy == "randaugment":
        return RandAugment(views.image_size, **crop)
    how: dict[str, Any] = crop | {
        "color_jitter_strength": views.color_jitter_strength,
        "brightness": views.brightness,
        "grayscale": views.use_grayscale,
    }
    if views.transformations:
        names = views.transformation_names
        return (
            NamedTransforms(views.image_size, **how),
            NamedTransforms(views.image_size, names, **how),
        )
    return SimCLRAugment(views.image_size, use_blur=views.use_blur, **how)


def _student(config: DistillConfig, plan: TrainingPlan) -> DistilledClassifier:
    """Without its teacher, which only training needs."""
    encoder = build_encoder(config.encoder, config.optimization.precision)
    return DistilledClassifier(
        encoder,
        _linear_head(encoder.output_shape[-1], plan.num_classes),
        _augment(config.augmentation),
        temperature=config.distillation.distill_temperature,
        alpha=config.distillation.distill_alpha,
        seed=config.optimization.seed,
    )


def _projection_head(config: PretrainConfig, width: int) -> keras.Model:
    head = config.projection_head
    return build_projection_head(
        head.proj_head_mode,
        head.num_proj_layers,
        head.proj_out_dim,
        input_dim=width,
        batch_norm_momentum=config.encoder.batch_norm_decay,
        global_bn=config.encoder.global_bn,
        dtype=_POLICIES[config.optimization.precision],
    )


def _linear_head(width: int, classes: int | None, zero: bool = False) -> keras.layers.Layer:
    initializer = "zeros" if zero else keras.initializers.GlorotUniform()
    head = keras.layers.Dense(
        classes, kernel_initializer=initializer, name="linear_head", dtype="float32"
    )
    head.build((None, width))
    return head


def _optimizer(config: PretrainConfig, plan: TrainingPlan) -> keras.optimizers.Optimizer:
    settings = config.optimization
    optimizer = optimizers.get(
        settings.optimizer,
        optimizers.WarmupCosine(plan.peak_learning_rate, plan.warmup_steps, plan.total_steps),
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    if settings.precision == "float16":
        return keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer
