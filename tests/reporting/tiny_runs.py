"""Runs that need no training, and images with hostile names."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from simclr_tf import config
from simclr_tf.models.build import build_model
from simclr_tf.runs.run_dir import RunDir

# Class folder and file together are what no file alone can be called, for the slash in it.
SCRIPT = ("<script>alert(1)<", "script>.png")
CLOSING = ("<", "script><script>alert(2)<", "script>.png")
IMAGE = "<img src=x onerror=alert(3)><b>&lt;"
STEPS = 3


def tiny(dataset: str, kind=config.PretrainConfig, **sections) -> config.PretrainConfig:
    """A config with a small encoder and 3 steps of 8 images."""
    data = {"train_split": "train[:120]", "eval_split": "test[:60]"} if dataset == "shapes" else {}
    return kind(
        config.Data(dataset=dataset, storage_size=24, **data),
        config.Augmentation(image_size=16, use_blur=False),
        config.Encoder(resnet_depth=18, width_multiplier=0.0625, stem="cifar"),
        config.ProjectionHead(num_proj_layers=2, proj_out_dim=16),
        config.ContrastiveLoss(),
        config.Optimization(
            train_batch_size=8,
            train_steps=STEPS,
            optimizer="momentum",
            learning_rate=0.1,
            warmup_epochs=0.0,
        ),
        config.Monitoring(log_every=1),
        **sections,
    ).resolve()


def write_run(
    path: Path,
    settings: config.PretrainConfig,
    steps: int = STEPS,
    weights: bool = True,
    num_classes: int | None = 10,
) -> RunDir:
    """Writes a run of 120 images of 10 classes as training leaves it, with initial weights."""
    run, classes = RunDir(path), tuple(f"class {i}" for i in range(10))
    plan = config.TrainingPlan(120, num_classes, steps, 0, 15.0, 0.1, class_names=classes)
    run.write_config(settings, plan)
    if weights:
        model = build_model(settings, plan)
        model.step.assign(steps)
        manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=model), run.checkpoint_dir, 1, checkpoint_name="step"
        )
        manager.save(checkpoint_number=steps)
    names = ("loss", "knn_top1", "contrastive_accuracy", "alignment", "uniformity")
    names += ("learning_rate", "weight_norm", "views_per_second")
    rows = [
        {"step": i, "epoch": i / 15} | {name: (i + j) / 20 for j, name in enumerate(names)}
        for i in range(1, steps + 1)
    ]
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return run


def picture(draw: np.random.Generator, path: Path, tint: int) -> None:
    pixels = draw.integers(0, 128, (24, 24, 3), np.uint8)
    pixels[..., tint] += 96
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")
