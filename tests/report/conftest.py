"""Runs to report, trained in moments: with hostile names, without labels, compared."""

from pathlib import Path

import browser as browsers
import numpy as np
import pytest
from PIL import Image

from simclr_tf import config
from simclr_tf.cli.main import main
from simclr_tf.training.pretrain import pretrain

# Class folder and file together are what no file alone can be called, for the slash in it.
SCRIPT = ("<script>alert(1)<", "script>.png")
CLOSING = ("<", "script><script>alert(2)<", "script>.png")
IMAGE = "<img src=x onerror=alert(3)>"


def tiny(dataset: str, steps: int = 4, **data) -> config.PretrainConfig:
    """A run that trains in moments."""
    return config.PretrainConfig(
        config.Data(dataset=dataset, storage_size=24, **data),
        config.Views(image_size=16, use_blur=False),
        config.Encoder(resnet_depth=18, width_multiplier=0.0625),
        config.Head(num_proj_layers=2, proj_out_dim=16),
        config.Optimization(
            train_batch_size=8,
            train_steps=steps,
            optimizer="momentum",
            learning_rate=0.1,
            warmup_epochs=0.0,
        ),
        config.Watching(log_every=1),
    )


def picture(draw: np.random.Generator, path: Path, tint: int) -> None:
    pixels = draw.integers(0, 128, (24, 24, 3), np.uint8)
    pixels[..., tint] += 96
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")


@pytest.fixture(scope="session")
def hostile_photos(tmp_path_factory) -> Path:
    """45 images in three class folders, whose names and files' names are scripts."""
    folder = tmp_path_factory.mktemp("hostile")
    draw = np.random.default_rng(0)
    for name in (SCRIPT, CLOSING, (IMAGE, f"{IMAGE}.png")):
        picture(draw, folder.joinpath(*name), 0)
    for tint, name in enumerate((SCRIPT[0], CLOSING[0], IMAGE)):
        for i in range(14):
            picture(draw, folder / name / f"{i}.png", tint)
    return folder


@pytest.fixture(scope="session")
def hostile_run(hostile_photos, tmp_path_factory) -> Path:
    """A run on them, with its report."""
    path = tmp_path_factory.mktemp("runs") / "<b>hostile"
    pretrain(tiny(f"folder:{hostile_photos}"), path)
    assert main(["report", f"--model_dir={path}", "--map=tsne"]) == 0
    return path


@pytest.fixture(scope="session")
def shapes_runs(tmp_path_factory) -> list[Path]:
    """Two runs on the shapes that differ in their length, both evaluated."""
    place = tmp_path_factory.mktemp("shapes")
    runs = []
    for steps in (3, 4):
        run = place / f"steps & {steps}"
        data = {"train_split": "train[:120]", "eval_split": "test[:60]"}
        pretrain(tiny("shapes", steps, **data), run)
        flags = ("--protocols=knn", "--knn_k=5", "--baselines=pca")
        assert main(["evaluate", f"--model_dir={run}", *flags]) == 0
        runs.append(run)
    return runs


@pytest.fixture(scope="session")
def browser():
    yield from browsers.started()
