"""Runs to report, trained in moments: with hostile names, on shapes, compared."""

from pathlib import Path

import numpy as np
import pytest

from simclr_tf.cli.main import main
from simclr_tf.training.tasks import pretrain
from tests.reporting import chromium
from tests.reporting.tiny_runs import CLOSING, IMAGE, SCRIPT, picture, tiny


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
    yield from chromium.started()
