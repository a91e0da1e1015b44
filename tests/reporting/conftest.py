"""Runs to report: on the shapes with evaluations, and on images with hostile names."""

from pathlib import Path

import numpy as np
import pytest

from simclr_tf.cli.main import main
from tests.reporting import chromium
from tests.reporting.tiny_runs import CLOSING, IMAGE, SCRIPT, picture, tiny, write_run


@pytest.fixture(scope="session")
def shapes_run(tmp_path_factory) -> Path:
    """A run on the shapes, evaluated."""
    run = write_run(tmp_path_factory.mktemp("shapes") / "steps & 3", tiny("shapes"))
    flags = ("--protocols=knn", "--knn_k=5", "--baselines=pca")
    assert main(["evaluate", f"--model_dir={run.path}", *flags]) == 0
    return run.path


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory) -> Path:
    """A reported run on 45 images in three class folders, whose names and files' are scripts."""
    folder = tmp_path_factory.mktemp("hostile")
    draw = np.random.default_rng(0)
    for name in (SCRIPT, CLOSING, (IMAGE, f"{IMAGE}.png")):
        picture(draw, folder.joinpath(*name), 0)
    for tint, name in enumerate((SCRIPT[0], CLOSING[0], IMAGE)):
        for i in range(14):
            picture(draw, folder / name / f"{i}.png", tint)
    path = tmp_path_factory.mktemp("runs") / "<b>hostile"
    write_run(path, tiny(f"folder:{folder}"))
    assert main(["report", f"--model_dir={path}", "--map=tsne"]) == 0
    return path


@pytest.fixture(scope="session")
def browser():
    yield from chromium.started()
