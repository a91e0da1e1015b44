"""Builds the encoder and the compiled model of a config."""

import dataclasses
import functools
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf import losses, optimizers
from simclr_tf.augment import NamedTransforms, RandAugment, SimCLRAugment
from simclr_tf.config import DistillConfig, FinetuneConfig, PretrainConfig, TrainingPlan
from simclr_tf.errors import UserError
from simclr_tf.models import Classifier, DistilledClassifier, ResNet, SimCLR, build_projection_head
from simclr_tf.models.classifier import freeze_through_block, truncate_projection_head
from simclr_tf.models.custom_encoder import (
    build_custom_encoder,
    describe_encoder,
    same_architecture,
)
from simclr_tf.models.keras_cv_backbones import build_backbone, describe_preset, first_line
from simclr_tf.models.multi_view import Augment
from simclr_tf.option_groups import Augmentation, Encoder

_KERAS_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def build_encoder(encoder: Encoder, precision: str = "float32") -> keras.Model:
    """Builds the encoder of a resolved config, with random weights."""
    common: dict[str, Any] = {
        "batch_norm_momentum": encoder.batch_norm_decay,
        "global_bn": encoder.global_bn,
        "dtype": _KERAS_POLICIES[precision],
    }
    if encoder.preset:
        return build_backbone(encoder.backbone or {}, **common)
    if encoder.keras_model:
        return build_custom_encoder(encoder.backbone or {}, **common)
    return ResNet(
        encoder.resnet_depth,
        encoder.width_multiplier,
        encoder.stem,
        encoder.sk_ratio,
        encoder.se_ratio,
        **common,
    )


def resolve_encoder(
    config: PretrainConfig, resumed: Encoder | None = None, model: keras.Model | None = None
) -> PretrainConfig:
    """Returns the config with the description of an encoder other than the built-in ResNet.

    `model`, the user's own, replaces `--encoder`. With the encoder of a `resumed` run its preset
    need not exist, nor its Keras model be passed, any more.
    """
    encoder, size = config.encoder, config.augmentation.image_size
    stored = encoder.backbone
    if resumed is not None and stored is None and (model or resumed.encoder == encoder.encoder):
        stored = resumed.backbone
    name, description = encoder.encoder, stored
    if model is not None:
        description = describe_encoder(model, size)
        if resumed is not None and resumed.keras_model and resumed.backbone:
            if not same_architecture(resumed.backbone, description):
                raise UserError(
                    f"encoder: expected the architecture of the run's {resumed.encoder}, got "
                    f"another ({model.name}). Fix: pass the same model, or set another --model_dir"
                )
            description = resumed.backbone
        name = f"keras:{description['class_name']}"
    elif encoder.keras_model and stored is None:
        raise UserError(
            f"--encoder={encoder.encoder}: expected a Keras model, got its name. Fix: pass the "
            "model in Python, simclr_tf.pretrain(model_dir, encoder=model)"
        )
    elif encoder.preset and stored is None:
        description = describe_preset(encoder.preset, size)
    elif not encoder.preset and not encoder.keras_model:
        description = None
    changes = {"encoder": name, "backbone": description}
    if model is not None:
        changes["stem"] = "auto"  # resolved for a ResNet, before the model was known
    return config.override({"encoder": changes})


def build_model(
    config: PretrainConfig, plan: TrainingPlan, steps_per_execution: int = 1
) -> SimCLR | Classifier:
    """Builds the model of a resolved config, compiled, with all variables created.

    The weights are a function of the seed. Call it in the scope of the strategy that trains it.
    """
    seed = config.optimization.seed
    keras.utils.set_random_seed(seed)
    encoder = build_encoder(config.encoder, config.optimization.precision)
    _check_sizes(encoder, config)
    augment = _build_augmentation(config.augmentation.at_size(config.augmentation.image_size))
    model: SimCLR | Classifier
    if isinstance(config, FinetuneConfig):
        model = _classifier(config, plan, encoder, augment)
    elif isinstance(config, DistillConfig):  # without its teacher, which only training needs
        head = _linear_head(encoder.output_shape[-1], plan.num_classes)
        temperature, alpha = (
            config.distillation.distill_temperature,
            config.distillation.distill_alpha,
        )
        model = DistilledClassifier(encoder, head, augment, temperature, alpha, seed)
    else:
        model = _simclr(config, plan, encoder, augment)
    size = config.augmentation.image_size
    model.build((None, size, size, 3))
    model.schedule_views(
        (end, _build_augmentation(config.augmentation.at_size(size)))
        for (size, _), end in zip(config.augmentation.view_sizes, plan.view_size_steps, strict=True)
    )
    optimizer = _optimizer(config, plan)
    model.compile(optimizer, steps_per_execution=steps_per_execution)
    if config.optimization.ema_decay:
        model.average_weights(config.optimization.ema_decay)
    # Built now, so that a checkpoint is restored and checked immediately. (A LossScaleOptimizer
    # around LAMB cannot be built, so the optimizer that it wraps is.)
    getattr(optimizer, "inner_optimizer", optimizer).build(model.trainable_variables)
    return model


def _check_sizes(encoder: keras.Model, config: PretrainConfig) -> None:
    """Raises UserError if the encoder cannot take a size of the views or of evaluation."""
    sizes = config.augmentation.all_sizes
    if config.contrastive_loss.num_small_views:
        sizes[config.small_view_size] = f"--small_view_size={config.small_view_size}"
    if len(sizes) == 1 or config.encoder.backbone is None:  # a ResNet takes any size
        return
    for size, option in sizes.items():
        spec = tf.TensorSpec([1, size, size, 3], encoder.input.dtype)
        try:
            if not encoder.input.shape[1:].is_compatible_with(spec.shape[1:]):
                raise ValueError(f"its input has the shape {encoder.input.shape[1:]}")
            tf.function(encoder).get_concrete_function(spec, training=False)
        except (ValueError, tf.errors.OpError) as error:
            raise UserError(
                f"{option}: the encoder {config.encoder.describe()} cannot take images of {size} "
                f"pixels ({first_line(error)}). Fix: choose another size or encoder"
            ) from None


def _simclr(
    config: PretrainConfig, plan: TrainingPlan, encoder: keras.Model, augment: Any
) -> SimCLR:
    loss = config.contrastive_loss
    width = encoder.output_shape[-1]
    return SimCLR(
        encoder,
        _projection_head(config, width),
        augment if loss.views_per_image == 2 else _multi_crop(config, augment),
        contrastive_loss=losses.get(
            loss.loss,
            loss.margin,
            invariance_weight=loss.invariance_weight,
            variance_weight=loss.variance_weight,
            covariance_weight=loss.covariance_weight,
        ),
        temperature=loss.temperature,
        normalize=loss.hidden_norm,
        linear_head=(
            _linear_head(width, plan.num_classes)
            if loss.lineareval_while_pretraining and plan.num_classes
            else None
        ),
        seed=config.optimization.seed,
        microbatch_size=config.optimization.microbatch_size,
        num_views=loss.views_per_image,
    )


def _multi_crop(config: PretrainConfig, augment: Any) -> list[Augment]:
    """Returns the policies of the large views, then those of the small ones."""
    loss, size = config.contrastive_loss, config.small_view_size
    policies = [augment] * loss.num_views
    if not loss.num_small_views:
        return policies
    small = dataclasses.replace(
        config.augmentation.at_size(size),
        crop_min_area=loss.small_crop_min_area,
        crop_max_area=loss.small_crop_max_area,
    )
    return policies + [_build_augmentation(small)] * loss.num_small_views


def _classifier(
    config: FinetuneConfig, plan: TrainingPlan, encoder: keras.Model, augment: Any
) -> Classifier:
    finetuning = config.finetuning
    width = encoder.output_shape[-1]
    projection = None
    if finetuning.ft_proj_selector:
        head = _projection_head(config, width)
        try:
            projection = truncate_projection_head(head, finetuning.ft_proj_selector)
        except ValueError as error:
            raise UserError(
                f"--ft_proj_selector={finetuning.ft_proj_selector}: {error}. Fix: choose an "
                "existing layer, or 0 for the encoder itself"
            ) from None
        width = projection.output_shape[-1]
    freeze_through_block(encoder, finetuning.fine_tune_after_block)
    if projection is not None and finetuning.fine_tune_after_block == 4:
        projection.trainable = False
    return Classifier(
        encoder,
        _linear_head(width, plan.num_classes, zero=finetuning.zero_init_logits_layer),
        augment,
        projection=projection,
        seed=config.optimization.seed,
        views_per_image=finetuning.views_per_image,
    )


@functools.lru_cache
def _build_augmentation(options: Augmentation) -> Augment | tuple[Augment, Augment]:
    """Returns one policy, or one per view; cached, so that each is compiled only once."""
    crop: dict[str, Any] = {
        "crop_area": (options.crop_min_area, options.crop_max_area),
        "flip": options.use_flip if options.flip == "random" else options.flip,
    }
    if options.policy == "randaugment":
        return RandAugment(options.image_size, **crop)
    augment_kwargs: dict[str, Any] = crop | {
        "color_jitter_strength": options.color_jitter_strength,
        "brightness": options.brightness,
        "grayscale": options.use_grayscale,
        "jitter_probability": options.color_jitter_probability,
        "grayscale_probability": options.grayscale_probability,
        "blur_probability": options.blur_probability,
    }
    if options.transformations:
        names = options.transformation_names
        return (
            NamedTransforms(options.image_size, **augment_kwargs),
            NamedTransforms(options.image_size, names, **augment_kwargs),
        )
    return SimCLRAugment(
        options.image_size,
        use_blur=options.use_blur,
        solarize_probability=options.solarize_probability,
        **augment_kwargs,
    )


def _projection_head(config: PretrainConfig, width: int) -> keras.Model:
    head = config.projection_head
    return build_projection_head(
        head.proj_head_mode,
        head.num_proj_layers,
        head.proj_out_dim,
        input_dim=width,
        hidden_dim=head.proj_hidden_dim,
        batch_norm_momentum=config.encoder.batch_norm_decay,
        global_bn=config.encoder.global_bn,
        dtype=_KERAS_POLICIES[config.optimization.precision],
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
