"""Settings of runs that take seconds: the built-in shapes, an encoder of two convolutions."""

from collections.abc import Callable
from pathlib import Path

import tf_keras as keras
from PIL import Image

from simclr_tf import config
from simclr_tf.models.custom_encoder import describe_encoder
from tests.processes import rows


def keras_encoder(width: int, side: int | None = 16) -> keras.Model:
    """An encoder whose graph takes a fraction of a ResNet's time to trace."""
    return keras.Sequential(
        [
            keras.Input((side, side, 3)),
            keras.layers.Conv2D(width, 3, strides=2, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(2 * width, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
        ],
        name="tiny",
    )


RESNET = {"encoder": "resnet", "backbone": None, "resnet_depth": 18, "width_multiplier": 1 / 16}
NARROW, WIDE = (
    {"encoder": "keras:tiny", "backbone": describe_encoder(keras_encoder(width), 16)}
    for width in (8, 16)
)
TINY = config.PretrainConfig(
    data=config.Data(dataset="shapes", train_split="train[:256]", eval_split="test[:64]"),
    augmentation=config.Augmentation(image_size=16, use_blur=False, use_grayscale=False),
    encoder=config.Encoder(**NARROW),
    projection_head=config.ProjectionHead(num_proj_layers=2, proj_out_dim=16),
    optimization=config.Optimization(
        train_batch_size=32,
        train_steps=10,
        optimizer="momentum",
        learning_rate=0.1,
        warmup_epochs=0.5,
    ),
    monitoring=config.Monitoring(log_every=4, pictures_every_epochs=0),
    checkpoints=config.Checkpoints(checkpoint_steps=5, keep_checkpoint_max=2),
)
PLAN = config.TrainingPlan(256, 10, 10, 4, 8.0, 0.0125)
# 192 images in batches of 32: an epoch is 6 steps.
WATCHED = TINY.override(
    {
        "data": {"validation_fraction": 0.25},
        "optimization": {"train_steps": 12},
        "monitoring": {"knn_every_epochs": 1.0, "eval_every_epochs": 1.0, "profile": True},
    }
)
STILL = {"train_steps": 1, "learning_rate": 1e-12}  # one step that changes no weight


def changed(base: config.PretrainConfig = TINY, **sections) -> config.PretrainConfig:
    """A config with some fields of some sections changed."""
    return base.override(sections)


def finetune_config(checkpoint: Path | str, *, steps: int = 6, **finetuning):
    """Fine-tuning of a run, or from scratch."""
    return config.FinetuneConfig(
        **vars(_without_decay(steps, checkpoints={"checkpoint": str(checkpoint)})),
        finetuning=config.FineTuning(**finetuning),
    )


def distill_config(teacher: Path | str, steps: int = 6, *, alpha=1.0, labels=0, **sections):
    """Distillation of a teacher, with labels per class if alpha is below 1."""
    distillation = config.Distillation(
        teacher=str(teacher),
        distill_temperature=1.0,
        distill_alpha=alpha,
        labels_per_class=labels,
    )
    return config.DistillConfig(
        **vars(_without_decay(steps, **sections)), distillation=distillation
    )


def _without_decay(steps: int, **sections) -> config.PretrainConfig:
    """Settings for training with a teacher or labels."""
    base = changed(
        augmentation={"crop_min_area": 0.3},
        optimization={
            "train_steps": steps,
            "train_batch_size": 16,
            "weight_decay": 0.0,
            "learning_rate_scaling": "none",
        },
        checkpoints={"checkpoint_steps": 3},
        monitoring={"log_every": 2},
    )
    return changed(base, **sections)


def write_images(folder: Path, images) -> None:
    """Writes images uint8 [N, H, W, 3] as PNG files named by their index."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")


class CallbackError(Exception):
    pass


class AtStep(keras.callbacks.Callback):
    """A user's callback that calls a function with the model after a step."""

    def __init__(self, step: int, action: Callable[[keras.Model], None]):
        super().__init__()
        self._step, self._action = step, action

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.step) == self._step:
            self._action(self.model)


def raise_error(model: keras.Model) -> None:
    raise CallbackError


def reproducible_rows(run: Path) -> list[dict]:
    """The rows of a run without the rates, which no two runs share."""
    return [{k: v for k, v in row.items() if k != "views_per_second"} for row in rows(run)]


def assert_equal_variables(a: keras.Model, b: keras.Model) -> None:
    """Asserts that all variables are equal bit for bit."""
    for one, other in zip(a.variables, b.variables, strict=True):
        assert (one.numpy() == other.numpy()).all(), one.name
