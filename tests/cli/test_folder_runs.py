"""Runs on a folder of images: names, places and changes that real folders have."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from tests.commands import TINY, error_of, output_of

FLAGS = [
    *(flag for flag in TINY if not flag.startswith(("--dataset", "--train_split", "--eval_split"))),
    *("--train_split=train", "--eval_split=train", "--train_batch_size=8", "--train_steps=1"),
]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The working directory: a folder of two classes, one of whose names is not UTF-8."""
    draw = np.random.default_rng(0)
    root = tmp_path / "photos"
    for name in (b"caf\xe9", b"b"):
        folder = os.path.join(os.fsencode(root), name)
        os.makedirs(folder)
        for i in range(10):
            with open(os.path.join(folder, b"%d.png" % i), "wb") as file:
                image = draw.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(image).save(file, "PNG")
    monkeypatch.chdir(root)
    return root


@pytest.mark.slow
def test_run_within_its_folder_is_resumed_and_used_from_elsewhere(photos, tmp_path, monkeypatch):
    first = ["pretrain", *FLAGS, "--model_dir=runs/a"]
    output = output_of(*first, "--dataset=folder:.")
    assert f"folder:{photos}: 20 images in train; 2 classes from subfolders (b, caf\\xe9)" in output
    # Another spelling of the path, and images of the run itself.
    Image.new("RGB", (9, 9)).save("runs/a/confusion.png")
    output = output_of(*first, "--dataset=folder:../photos/")
    assert "20 images in train" in output and "1 folders of results (runs/a)" in output
    assert "is finished: 1 steps" in output
    monkeypatch.chdir(tmp_path)
    run = "photos/runs/a"
    output_of("evaluate", f"--model_dir={run}", "--protocols=knn", "--knn_k=3")
    table = next((photos / "runs" / "a").rglob("per_class.csv")).read_text(encoding="utf-8")
    assert "caf\\xe9" in table
    output_of("finetune", f"--checkpoint={run}", "--model_dir=f", "--train_steps=1")
    output_of("export", "--model_dir=f")
    output_of("embed", f"--model_dir={run}", "--output=photos/embedded")
    # Moved, with an image that has become unreadable.
    moved = photos.rename(tmp_path / "moved")
    run = tmp_path / "run"
    (moved / "runs" / "a").rename(run)
    victim = moved / "b" / "3.png"
    victim.write_bytes(victim.read_bytes()[:200])
    again = ["pretrain", *FLAGS, f"--model_dir={run}", f"--dataset=folder:{moved}"]
    assert f"{victim} has the header" in error_of(*again)
    output = output_of(*again, "--skip_unreadable")
    assert "continuing with 1 missing or unreadable of 20 images" in output
    assert f"--dataset was folder:{photos}, now its images are in folder:{moved}" in output
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert config["config"]["data"]["dataset"] == f"folder:{moved}"
    assert config["plan"]["num_examples"] == 20


@pytest.fixture
def odd_run(photos, tmp_path, monkeypatch):
    """A run on a folder whose name, a class and a file are not UTF-8, next to it."""
    (photos / "b" / "0.png").rename(photos / "b" / os.fsdecode(b"\xff.png"))
    odd = photos.rename(tmp_path / os.fsdecode(b"\xe9t\xe9"))
    monkeypatch.chdir(tmp_path)
    assert r"\xe9t\xe9: 20 images" in output_of(
        "pretrain", *FLAGS, f"--dataset=folder:{odd}", "--model_dir=run"
    )
    return tmp_path / "run"


def test_folder_whose_name_is_not_utf8_is_evaluated(odd_run, caplog):
    output_of("evaluate", "--model_dir=run", "--protocols=knn", "--knn_k=3")
    caplog.text.encode()  # raises UnicodeEncodeError unless every line can be written anywhere
    assert list(odd_run.rglob("confusion.png"))
    assert "knn" in output_of("show", "run")


@pytest.mark.slow
def test_report_and_embedding_of_names_that_are_not_utf8(odd_run):
    output_of("report", "--model_dir=run")
    assert "udcff.png" in (odd_run / "report.html").read_text(encoding="utf-8")
    output_of("embed", "--model_dir=run", "--output=out", "--format=npy,projector,parquet")
    assert "udcff.png" in (odd_run.parent / "out" / "ids.csv").read_text(encoding="utf-8")


@pytest.mark.slow
def test_labels_none_trains_without_a_linear_head(photos):
    output = output_of(
        *("pretrain", *FLAGS, "--model_dir=runs/a", "--dataset=folder:.", "--labels=none")
    )
    assert "no classes (--labels=none)" in output and "20 images of " in output
    plan = json.loads((photos / "runs/a/config.json").read_text(encoding="utf-8"))["plan"]
    assert plan["num_classes"] is None
    error = error_of("evaluate", "--model_dir=runs/a", "--protocols=knn")
    assert "has no labels" in error
    output_of("finetune", "--checkpoint=runs/a", "--model_dir=f", "--train_steps=1", "--mode=train")


def test_duplicates_are_dropped(photos):
    (photos / "b" / "copy.png").write_bytes((photos / "b" / "0.png").read_bytes())
    command = ["pretrain", *FLAGS, "--model_dir=runs/a", "--dataset=folder:."]
    assert "dropped 1 duplicate" in output_of(*command, "--duplicates=drop")
    assert "--duplicates (was drop, now keep)" in error_of(*command)
