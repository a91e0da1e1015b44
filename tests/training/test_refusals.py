"""Mistakes that are named before anything is trained or written."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import simclr_tf
from simclr_tf.errors import UserError
from simclr_tf.training.schedule import check_trainable
from simclr_tf.training.tasks import pretrain
from tests.processes import rows
from tests.training.tiny import TINY, WIDE, changed


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"optimization": {"train_batch_size": 512}}, "--train_batch_size=512: expected at most"),
        (
            {"optimization": {"train_epochs": 0.01, "train_steps": 0}},
            "--train_epochs=0.01: expected at least one step, got 2.56 images",
        ),
        ({"data": {"train_split": "trian"}}, "train"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(tmp_path, sections, message):
    with pytest.raises(UserError, match=message):
        pretrain(changed(**sections), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_microbatch_must_divide_a_replicas_images(tmp_path):
    uneven = changed(optimization={"microbatch_size": 12})
    with pytest.raises(UserError, match="--microbatch_size=12: expected a divisor of the 32"):
        pretrain(uneven, tmp_path)
    irreproducible = changed(
        optimization={"microbatch_size": 16}, augmentation={"policy": "randaugment"}
    )
    with pytest.raises(UserError, match="--microbatch_size=16: microbatches compute every view"):
        check_trainable(irreproducible, 1)
    assert not list(tmp_path.iterdir())


def test_url_is_no_run_directory():
    with pytest.raises(UserError, match="--model_dir=gs://bucket/run: expected a directory"):
        pretrain(TINY, "gs://bucket/run")


def test_checkpoint_of_another_architecture_is_refused(watched_run, tmp_path):
    wide = changed(encoder=WIDE, checkpoints={"checkpoint": str(watched_run)})
    with pytest.raises(UserError, match=r"--checkpoint=.*encoder has other shapes\. Fix: "):
        pretrain(wide, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    missing = changed(checkpoints={"checkpoint": str(tmp_path / "nothing")})
    with pytest.raises(UserError, match="holds no run"):
        pretrain(missing, tmp_path / "newer")


def store_dataset(path: Path, name: str, label: str, feature: object, labels: object) -> dict:
    """Data settings of a new TFDS dataset of 16 images, with labels(i) for image i."""
    draw = np.random.default_rng(0)
    examples = [
        (i, {"image": draw.integers(0, 256, (16, 16, 3), np.uint8), label: labels(i)})
        for i in range(16)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(16, 16, 3)), label: feature}
        ),
        split_datasets={"train": examples, "test": examples[:8]},
        data_dir=path,
    )
    return {"dataset": name, "data_dir": str(path), "train_split": "train", "eval_split": "test"}


NAMES = tfds.features.ClassLabel(names=list("abcd"))


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> dict:
    """Data settings of a dataset whose images have several labels each."""
    names = tfds.features.Sequence(NAMES)
    path = tmp_path_factory.mktemp("tfds")
    return store_dataset(path, "several", "labels", names, lambda i: [i % 3, 3])


@pytest.mark.parametrize("probe_dataset", ["", "several"])
def test_probes_of_several_labels_per_image_are_refused(tmp_path, several, probe_dataset):
    data = {**several, "dataset": "shapes"} if probe_dataset else several
    settings = changed(
        data=data,
        optimization={"train_batch_size": 4},
        monitoring={"knn_every_epochs": 1.0, "probe_dataset": probe_dataset},
    )
    message = "--knn_every_epochs: expected .* several t.* several labels per image.* --probe_dat"
    with pytest.raises(UserError, match=message):
        pretrain(settings, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_images_of_several_labels_train_without_a_linear_head(tmp_path, several, log):
    settings = changed(data=several, optimization={"train_batch_size": 4, "train_steps": 2})
    model = pretrain(settings, tmp_path)
    assert model.linear_head is None and int(model.step) == 2
    last = rows(tmp_path)[-1]
    assert np.isfinite(last["loss"]) and "linear_accuracy" not in last
    (note,) = [line for line in log.messages if "--lineareval_while_pretraining" in line]
    assert note.startswith("note: the images of several train have several labels each")
    assert any("several train, several labels per image; " in line for line in log.messages)
    assert simclr_tf.load(tmp_path).linear_head is None


def test_supcon_without_one_label_per_image_is_refused(tmp_path, several):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for i in range(4):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    unlabeled = store_dataset(tmp_path / "tfds", "unlabeled", "label", NAMES, lambda i: -1)
    for data, problem in (
        ({"dataset": f"folder:{tmp_path / 'photos'}", "train_split": "train"}, "no labels"),
        (several, "several labels per image"),
        (unlabeled, "no image with a label"),
    ):
        settings = changed(
            data=data, contrastive_loss={"loss": "supcon"}, optimization={"train_batch_size": 4}
        )
        message = f"--loss=supcon: expected one label per image, .* has {problem}"
        with pytest.raises(UserError, match=message):
            pretrain(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
