"""From a config to the model, its optimizer compiled in: the one place where they meet."""

import tf_keras as keras

from simclr_tf.augment import SimCLRAugment
from simclr_tf.config import Encoder, Plan, PretrainConfig
from simclr_tf.models import ResNet, SimCLR, projection_head
from simclr_tf.optimizers import WarmupCosine, build_optimizer

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def build_encoder(encoder: Encoder, precision: str = "float32") -> keras.Model:
    """Returns the encoder of a resolved config, with random weights."""
    return ResNet(
        encoder.resnet_depth,
        encoder.width_multiplier,
        encoder.stem,
        encoder.sk_ratio,
        encoder.se_ratio,
        batch_norm_momentum=encoder.batch_norm_decay,
        global_bn=encoder.global_bn,
        dtype=_POLICIES[precision],
    )


def build_model(config: PretrainConfig, plan: Plan, steps_per_execution: int = 1) -> SimCLR:
    """Returns the model of a resolved config, compiled, every variable created.

    The weights are a function of the seed. Call it in the scope of the strategy that trains it.
    """
    keras.utils.set_random_seed(config.optimization.seed)
    precision, views, head = config.optimization.precision, config.views, config.head
    encoder = build_encoder(config.encoder, precision)
    width = encoder.output_shape[-1]
    model = SimCLR(
        encoder,
        projection_head(
            head.proj_head_mode,
            head.num_proj_layers,
            head.proj_out_dim,
            input_dim=width,
            batch_norm_momentum=config.encoder.batch_norm_decay,
            global_bn=config.encoder.global_bn,
            dtype=_POLICIES[precision],
        ),
        SimCLRAugment(
            views.image_size,
            views.color_jitter_strength,
            views.use_blur,
            brightness=views.brightness,
            crop_area=(views.crop_min_area, views.crop_max_area),
            flip=views.use_flip,
        ),
        temperature=head.temperature,
        normalize=head.hidden_norm,
        linear_head=_linear_head(width, plan) if head.lineareval_while_pretraining else None,
        seed=config.optimization.seed,
        microbatch_size=config.optimization.microbatch_size,
    )
    model.build((None, views.image_size, views.image_size, 3))
    optimizer = _optimizer(config, plan)
    model.compile(optimizer, steps_per_execution=steps_per_execution)
    # Built now, so that a checkpoint restores into it and is checked at once.
    optimizer.build(model.trainable_variables)
    return model


def _linear_head(width: int, plan: Plan) -> keras.layers.Layer | None:
    if not plan.num_classes:
        return None
    head = keras.layers.Dense(plan.num_classes, name="linear_head", dtype="float32")
    head.build((None, width))
    return head


def _optimizer(config: PretrainConfig, plan: Plan) -> keras.optimizers.Optimizer:
    settings = config.optimization
    optimizer = build_optimizer(
        settings.optimizer,
        WarmupCosine(plan.peak_learning_rate, plan.warmup_steps, plan.total_steps),
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    if settings.precision == "float16":
        return keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer
