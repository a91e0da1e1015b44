"""The runs that all tests of commands share."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands import TINY, output_of


@pytest.fixture(scope="session")
def pretraining(tmp_path_factory) -> tuple[Path, str]:
    """A pretrained run with checkpoints at steps 1, 2 and 3, and what the command printed."""
    path = tmp_path_factory.mktemp("pretrained") / "run"
    flags = [f"--model_dir={path}", "--checkpoint_steps=1", "--train_summary_steps=0"]
    return path, output_of("pretrain", *TINY, *flags)


@pytest.fixture(scope="session")
def pretrained(pretraining) -> Path:
    """The run, for tests that do not write into it."""
    return pretraining[0]


@pytest.fixture(scope="module")
def run_dir(pretrained, tmp_path_factory) -> Path:
    """A copy of the run for the tests of one module."""
    return shutil.copytree(pretrained, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="session")
def finetuning(pretrained, tmp_path_factory) -> tuple[Path, str]:
    """A run fine-tuned with 200 labels and its export, and what the command printed."""
    path = tmp_path_factory.mktemp("finetuned") / "run"
    flags = ["--labels_per_class=20", "--train_batch_size=40", "--train_steps=4", "--log_every=2"]
    start = [f"--checkpoint={pretrained}", f"--model_dir={path}"]
    return path, output_of("finetune", *start, *flags, "--ft_proj_selector=1", "--seed=3")


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder of two classes with eight images each."""
    path = tmp_path_factory.mktemp("photos")
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (16, 20, 24, 3))):
        (path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path / "ab"[i % 2] / f"{i}.png")
    return path
