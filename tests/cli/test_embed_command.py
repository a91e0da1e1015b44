"""`simclr-tf embed`: every format, a kill, folders, the search, mistakes."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from PIL import Image

import simclr_tf
from simclr_tf.augment import eval_transform
from simclr_tf.data import open_source
from tests.commands import error_of, output_of
from tests.processes import finish, python

NAMES = ['a,b"c.png', "<script>.png", "$x$.png", "new\nline.png", r"$\frac{$.png"]


@pytest.fixture(scope="module")
def embedded(run_dir):
    """The directory of the run's own images in every format, and what was printed."""
    printed = output_of(
        *("embed", f"--model_dir={run_dir}", "--format=npy,parquet,projector", "--nearest=7"),
        *("--projector_images=100", "--neighbours=5", "--eval_batch_size=32"),
    )
    (place,) = (run_dir / "embeddings").glob("shapes-train-300-*-step-3")
    return place, printed


@pytest.fixture(scope="module")
def own_features(run_dir):
    """Return h and g(h) of the run's images by its model itself."""
    model = simclr_tf.load(run_dir)
    source = open_source("shapes", "train[:300]")
    images = eval_transform(tf.constant(source.images[source.indices]), 16)
    h = model.encoder(images, training=False)
    return h.numpy(), model.projection_head(h, training=False).numpy()


def test_embed_writes_the_features_of_the_run_in_every_format(embedded, own_features):
    place, printed = embedded
    h, _ = own_features
    features = np.load(place / "features.npy", mmap_mode="r")
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, h, atol=1e-5)
    with (place / "ids.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    source = open_source("shapes", "train[:300]")
    assert [row["id"] for row in table] == [f"train/{i}" for i in range(300)]
    assert [row["label"] for row in table] == [source.class_names[i] for i in source.labels()]
    parquet = pq.read_table(place / "features.parquet")
    assert parquet["id"].to_pylist() == [row["id"] for row in table]
    assert parquet["label"].to_pylist() == [row["label"] for row in table]
    lists = np.array(parquet["features"].to_pylist(), np.float32)
    np.testing.assert_array_equal(lists, features)
    reader = tf.train.load_checkpoint(str(place / "projector"))
    lines = (place / "projector" / "metadata.tsv").read_text().splitlines()
    rows = [int(line.split("\t")[2]) for line in lines[1:]]
    assert len(rows) == 100
    np.testing.assert_array_equal(reader.get_tensor("features"), features[rows])
    sprite = np.asarray(Image.open(place / "projector" / "sprite.png"))
    np.testing.assert_array_equal(sprite[32:64, 64:96], source.images[rows[12]])
    for said in ("features.npy", "features.parquet", f"tensorboard --logdir {place / 'projector'}"):
        assert said in printed.partition("next:")[2]


def test_search_prints_and_plots_the_nearest_images(embedded):
    place, printed = embedded
    lines = printed.partition("nearest to train/7")[2].splitlines()[2:7]
    found = [(float(line.split()[1]), line.split()[2]) for line in lines]
    features = np.load(place / "features.npy").astype(np.float64)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = unit @ unit[7]
    order = np.argsort(-cosine)[:5]
    assert found[0] == (1.0, "train/7")
    assert [name for _, name in found] == [f"train/{i}" for i in order]
    np.testing.assert_allclose([s for s, _ in found], cosine[order], atol=1e-4)
    assert Image.open(place / "nearest.png").size[0] > 500


def test_repeated_embed_encodes_and_writes_nothing(embedded, run_dir):
    place, _ = embedded
    cached = next((run_dir / "features").glob("*/features.npy"))
    files = [place / "features.npy", place / "ids.csv", place / "features.parquet", cached]
    before = [file.stat().st_mtime_ns for file in files]
    flags = ["--format=npy,parquet", "--nearest=train/9"]
    printed = output_of("embed", f"--model_dir={run_dir}", *flags)
    assert f"features are already cached in {cached.parent}" in printed
    assert "features.npy exists already" in printed and "train/9" in printed
    assert [file.stat().st_mtime_ns for file in files] == before
    assert len(list((run_dir / "features").iterdir())) == 1


@pytest.mark.slow
def test_embed_uses_a_saved_model_or_a_projection_head(run_dir, own_features, tmp_path):
    h, projection = own_features
    exported = tmp_path / "exported"
    output_of("export", f"--model_dir={run_dir}", f"--output={exported}")
    data = ["--dataset=shapes", "--split=train[:300]", "--eval_batch_size=100"]
    encoder = f"--encoder={exported}"
    output_of("embed", encoder, f"--output={tmp_path / 'h'}", *data)
    np.testing.assert_allclose(np.load(tmp_path / "h" / "features.npy"), h, atol=1e-5)
    for model in (encoder, f"--model_dir={run_dir}"):
        output = tmp_path / f"g{len(model)}"
        flags = [f"--output={output}", "--representation=projection", *data]
        output_of("embed", model, *flags)
        np.testing.assert_allclose(np.load(output / "features.npy"), projection, atol=1e-5)


KILLED = """
import os, sys
from simclr_tf.cli.main import main
from simclr_tf.evaluation.features import FeatureStore

add = FeatureStore.add

def killed(self, features, labels):
    add(self, features, labels)
    self.flush()
    if self.count == 128:
        os.kill(os.getpid(), 9)

FeatureStore.add = killed
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_killed_embed_resumes(embedded, run_dir, tmp_path):
    place, _ = embedded
    for name in ("config.json", "checkpoints"):
        (tmp_path / name).symlink_to(run_dir / name)
    command = ("embed", f"--model_dir={tmp_path}", "--format=npy,parquet", "--eval_batch_size=32")
    status, _, errors = finish(python("-c", KILLED, *command))
    assert status == -9, errors
    output = tmp_path / "embeddings" / place.name
    assert [file.name for file in output.iterdir()] == ["embedding.json"]
    printed = output_of(*command)
    assert "features of shapes train[:300]: 128 of 300 images are already cached" in printed
    for name in ("features.npy", "features.parquet", "ids.csv"):
        assert (output / name).read_bytes() == (place / name).read_bytes()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        size = (40, 30 + i, 3)
        Image.fromarray(pixels.integers(0, 256, size, np.uint8)).save(folder / name, format="PNG")
    return folder


@pytest.mark.slow
def test_embed_escapes_file_names_of_an_unlabeled_folder(run_dir, photos, tmp_path):
    output = tmp_path / "out"
    printed = output_of(
        *("embed", f"--model_dir={run_dir}", f"--dataset=folder:{photos}", f"--output={output}"),
        *("--format=npy,parquet,projector", "--neighbours=5", f"--nearest={photos / NAMES[4]}"),
    )
    lines = (output / "ids.csv").read_text().splitlines()
    assert lines[0] == "index,id" and len(lines) == 6
    names = {row[1] for row in csv.reader(lines[1:])}
    shown = {'a,b"c.png', "<script>.png", "$x$.png", r"new\nline.png", r"$\\frac{$.png"}
    assert names == shown
    assert set(pq.read_table(output / "features.parquet")["id"].to_pylist()) == shown
    metadata = (output / "projector" / "metadata.tsv").read_text().splitlines()
    assert {line.split("\t")[0] for line in metadata[1:]} == shown
    first = printed.partition("nearest to ")[2].splitlines()[2].split()
    assert first == ["1", "1.0000", r"$\\frac{$.png"]
    assert (output / "nearest.png").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--encoder=x"], "expected either --model_dir=RUN or --encoder=SAVEDMODEL"),
        (["--format=npz"], "--format=npz: expected any of npy, parquet, projector"),
        (["--format=,"], "--format=,: expected any of npy"),
        (["--representation=g"], "--representation=g: expected one of h, projection"),
        (["--output=gs://bucket/x"], "--output=gs://bucket/x: expected a directory"),
        (["--split=valid"], "has no split 'valid': expected train"),
        (["--split=train[:0]"], "is empty"),
        (["--nearest=300"], "--nearest=300: expected a row from 0 to 299 of shapes train[:300]"),
        (["--nearest=0", "--neighbours=301"], "--neighbours=301: expected at most 300"),
        (["--neighbours=0"], "--neighbours=0: expected an integer of at least 1"),
        (["--projector_images=200000"], "--projector_images=200000: expected an integer of at"),
    ],
)
def test_mistakes_are_one_line_before_any_work(run_dir, tmp_path, flags, message):
    output = [] if flags[0].startswith("--output") else [f"--output={tmp_path / 'out'}"]
    assert message in error_of("embed", f"--model_dir={run_dir}", *output, *flags)
    assert not list(tmp_path.iterdir())


def test_missing_inputs_are_errors(run_dir, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    run, encoder = f"--model_dir={run_dir}", f"--encoder={tmp_path / 'none'}"
    assert "none holds no run" in error_of("embed", f"--model_dir={tmp_path / 'none'}")
    assert "expected either --model_dir=RUN" in error_of("embed")
    assert "/none: expected --output=DIR and --dataset" in error_of("embed", encoder)
    more = (f"--output={tmp_path / 'out'}", "--dataset=shapes")
    assert "expected a SavedModel of an encoder" in error_of("embed", encoder, *more)
    empty = f"--dataset=folder:{tmp_path / 'empty'}"
    assert "contains no images: expected files that end in .jpg" in error_of("embed", run, empty)
    assert "expected a folder, but" in error_of("embed", run, f"--dataset=folder:{tmp_path / 'no'}")
    assert sorted(place.name for place in tmp_path.iterdir()) == ["empty"]


def test_directory_with_other_features_is_refused_and_not_changed(embedded, run_dir, tmp_path):
    place, _ = embedded
    before = {file.name: file.stat().st_mtime_ns for file in place.iterdir()}
    flags = (f"--model_dir={run_dir}", "--split=train[300:600]")
    message = error_of("embed", *flags, f"--output={place}")
    assert "holds features of other weights, images or settings (shapes train[:300]" in message
    assert "Fix: choose another directory" in message
    assert {file.name: file.stat().st_mtime_ns for file in place.iterdir()} == before
    (tmp_path / "features.npy").write_bytes(b"somebody's")
    assert "(features.npy)" in error_of("embed", *flags, f"--output={tmp_path}")
    assert (tmp_path / "features.npy").read_bytes() == b"somebody's"
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "embedding.json").write_text("{")
    assert "other weights" in error_of("embed", *flags, f"--output={tmp_path / 'damaged'}")
    (tmp_path / "file").touch()
    assert "got: Not a directory" in error_of("embed", *flags, f"--output={tmp_path / 'file'}")


def test_full_disk_is_a_one_line_error(run_dir, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "features.npy")

    monkeypatch.setattr(np.lib.format, "open_memmap", full)
    line = error_of("embed", f"--model_dir={run_dir}", "--split=train[:9]", f"--output={tmp_path}")
    assert "No space left on device. Fix: free disk space" in line


def test_manifest_describes_the_features(embedded):
    place, _ = embedded
    about = json.loads((place / "embedding.json").read_text())
    assert (about["dataset"], about["split"], about["images"]) == ("shapes", "train[:300]", 300)
    assert (about["step"], about["representation"], about["image_size"]) == (3, "h", 16)
