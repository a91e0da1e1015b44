"""Configs of runs that train in moments, and images with hostile names."""

from pathlib import Path

import numpy as np
from PIL import Image

from simclr_tf import config

# Class folder and file together are what no file alone can be called, for the slash in it.
SCRIPT = ("<script>alert(1)<", "script>.png")
CLOSING = ("<", "script><script>alert(2)<", "script>.png")
IMAGE = "<img src=x onerror=alert(3)><b>&lt;"


def tiny(dataset: str, steps: int = 4, **data) -> config.PretrainConfig:
    """A run that trains in moments."""
    return config.PretrainConfig(
        config.Data(dataset=dataset, storage_size=24, **data),
        config.Augmentation(image_size=16, use_blur=False),
        config.Encoder(resnet_depth=18, width_multiplier=0.0625),
        config.ProjectionHead(num_proj_layers=2, proj_out_dim=16),
        config.ContrastiveLoss(),
        config.Optimization(
            train_batch_size=8,
            train_steps=steps,
            optimizer="momentum",
            learning_rate=0.1,
            warmup_epochs=0.0,
        ),
        config.Monitoring(log_every=1),
    )


def picture(draw: np.random.Generator, path: Path, tint: int) -> None:
    pixels = draw.integers(0, 128, (24, 24, 3), np.uint8)
    pixels[..., tint] += 96
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")
