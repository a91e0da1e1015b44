"""Contents of a folder: splits, classes, and files that are not data."""

import json
import os
import stat
import unicodedata

import numpy as np
import pytest
from PIL import Image

from simclr_tf.data import open_source
from simclr_tf.data.folder_layout import read_layout
from simclr_tf.errors import UserError


def _write(root, *paths):
    for i, path in enumerate(paths):
        path = os.path.join(os.fsencode(root), os.fsencode(path))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            Image.new("RGB", (8, 8), (i, len(path), 0)).save(file, "PNG")


def _open(root, split="train", **more):
    return open_source(f"folder:{root}", split, storage_size=8, **more)


def _paths(*folders):
    """Two images in each of some folders."""
    return [f"{folder}/{i}.png" for folder in folders for i in range(2)]


LAYOUTS = [
    (("Training/cat", "Training/dog", "Testing/cat", "Testing/dog"), {"train": 4, "test": 4}),
    (("TRAIN/a", "TRAIN/b", "Val/a", "Val/b"), {"train": 4, "validation": 4}),
    (("train/a", "train/b", "valid/a", "valid/b"), {"train": 4, "validation": 4}),
    (("train/a", "dev/a", "test/a", "train/b"), {"train": 4, "validation": 2, "test": 2}),
    (("training_set/a", "training_set/b", "test_set/a"), {"train": 4, "test": 2}),
    (("train2017", "val2017"), {"train": 2, "validation": 2}),
    (("Training", "PublicTest", "PrivateTest"), {"train": 2, "test": 4}),
    (("seg_train/seg_train/a", "seg_test/seg_test/a"), {"train": 2, "test": 2}),
    (("archive/Train/a", "archive/Test/a"), {"train": 2, "test": 2}),
    (("cat/train", "cat/test", "dog/train", "dog/test"), {"train": 4, "test": 4}),
    (("valid", "invalid"), {"train": 4}),
    (("training", "running", "swimming"), {"train": 6}),
    (("dev",), {"train": 2}),
    (("test",), {"test": 2}),
    (("train/a", "Eval/a"), {"train": 2, "validation": 2}),
    (("2023/beach", "2024/city"), {"train": 4}),
]


@pytest.mark.parametrize(("folders", "sizes"), LAYOUTS)
def test_folders_are_recognized_as_splits_or_as_classes(tmp_path, folders, sizes):
    _write(tmp_path, *_paths(*folders))
    layout = read_layout(str(tmp_path))
    assert {split: len(paths) for split, paths in layout.splits.items()} == sizes


def test_first_line_names_folders_of_splits_and_classes(tmp_path, log):
    _write(tmp_path, *_paths("Training/cat", "Training/dog", "Testing/dog", "other"))
    train, test = _open(tmp_path), _open(tmp_path, "test")
    assert train.class_names == test.class_names == ("cat", "dog")
    assert (train.num_examples, test.num_examples) == (4, 2)
    assert set(test.labels()) == {1}
    expected = "4 images in train (folder Training), 2 images in test (folder Testing); 2 classes"
    assert f"{expected} from subfolders (cat, dog)" in log.messages[0]
    assert "not used: 2 images outside the split folders, in other" in log.messages[0]


def test_classes_of_split_folders_within_class_folders(tmp_path):
    _write(tmp_path, *_paths("cat/train", "cat/test", "dog/train", "dog/test"))
    assert _open(tmp_path, "test").class_names == ("cat", "dog")


WRAPPED = [
    ("PetImages/cat", "PetImages/dog"),
    ("seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/cat"),
    ("set/train/images/cat", "set/train/images/dog", "set/val/images/cat"),
    ("archive/cat/train", "archive/cat/test", "archive/dog/train"),
]


@pytest.mark.parametrize("folders", WRAPPED)
def test_folders_that_contain_a_whole_split_are_no_classes(tmp_path, folders):
    _write(tmp_path, *_paths(*folders))
    source = _open(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert sorted(source.labels()) == [0, 0, 1, 1]


def test_folders_within_one_class_folder_are_no_classes_if_it_has_images(tmp_path, log):
    _write(tmp_path, *_paths("cat/young", "cat/old"), "cat/1.png")
    assert _open(tmp_path).class_names is None
    assert "no classes (one subfolder, cat)" in log.text


def test_images_behind_a_second_link_are_used_once(tmp_path, log):
    _write(tmp_path, *_paths("a", "b"))
    (tmp_path / "c").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    assert _open(tmp_path).num_examples == 4
    assert "ignored 2 links to folders that are used already" in log.text


def test_class_names_that_differ_in_case_or_accents_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    _write(tmp_path, *_paths(f"train/{composed}", "train/Tea", f"test/{decomposed}", "test/tea"))
    names = _open(tmp_path).class_names
    assert [unicodedata.normalize("NFC", name) for name in names] == ["Tea", "café"]
    assert sorted(_open(tmp_path, "test").labels()) == [0, 0, 1, 1]


def test_letters_of_both_cases_in_one_split_are_different_classes(tmp_path):
    _write(tmp_path, *_paths("a", "A", "b"))
    assert _open(tmp_path).class_names == ("A", "a", "b")


def test_class_names_that_are_not_utf8_are_printable(tmp_path):
    _write(tmp_path, b"caf\xe9/1.png", b"t\xfcr/1.png", "ok/1.png")
    names = _open(tmp_path).class_names
    assert sorted(names) == ["caf\\xe9", "ok", "t\\xfcr"]
    assert "".join(names).encode()


def test_labels_none_makes_subfolders_no_classes(tmp_path, log):
    _write(tmp_path, *_paths("beach", "city"))
    source = _open(tmp_path, labels="none")
    assert source.class_names is None
    assert "no classes (--labels=none)" in log.messages[0]
    shapes = open_source("shapes", "train[:8]", labels="none")
    assert shapes.class_names is None
    assert "label" not in shapes.decode(np.arange(2))
    with pytest.raises(UserError, match="has no labels"):
        shapes.labels()


def test_folders_without_classes_say_why(tmp_path, log):
    _write(tmp_path, *_paths("beach"))
    assert _open(tmp_path).class_names is None
    assert "no classes (one subfolder, beach)" in log.text
    _write(tmp_path, "city/1.png", "loose.png")
    assert _open(tmp_path).class_names is None
    assert "no classes (1 image in no subfolder)" in log.text


OUTPUTS = [
    ("config.json", {"simclr_tf": "0.1.0", "task": "pretrain"}),
    ("embedding.json", {"representation": "h"}),
    ("evaluations.json", [{"protocol": "knn"}]),
    ("study.json", {"study": "heads", "simclr_tf": "0.1.0"}),
    ("saved_model.pb", {}),
    ("state.json", {"state": "running", "pid": 1}),
]


@pytest.mark.parametrize(("marker", "document"), OUTPUTS)
def test_outputs_within_the_folder_are_no_data(tmp_path, log, marker, document):
    _write(tmp_path, *_paths("a", "b", "runs/x/evaluations/knn"))
    (tmp_path / "runs" / "x" / marker).write_text(json.dumps(document))
    source = _open(tmp_path)
    assert source.num_examples == 4
    assert source.class_names == ("a", "b")
    assert f"ignored 1 folders of results ({os.path.join('runs', 'x')})" in log.text


def test_a_run_directory_that_is_the_folder_itself_has_images(tmp_path, log):
    _write(tmp_path, *_paths("a", "b", "evaluations/knn", "tensorboard"), "nearest.png")
    (tmp_path / "config.json").write_text(json.dumps({"simclr_tf": "0.1.0"}))
    assert _open(tmp_path).class_names == ("a", "b")
    assert "(evaluations, tensorboard)" in log.text


def test_images_next_to_an_output_are_data(tmp_path, log):
    _write(tmp_path, *_paths("a", "b", "b/projector", "runs"), "a/nearest.png", "heads.png")
    (tmp_path / "b" / "embedding.json").write_text(json.dumps({"representation": "h"}))
    (tmp_path / "a" / "embedding.json").write_text(json.dumps({"representation": "h"}))
    (tmp_path / "study.json").write_text(json.dumps({"study": "heads", "simclr_tf": "0.1.0"}))
    (tmp_path / "a" / "features.npy").touch()
    assert {name.split("/")[0] for name in _open(tmp_path).image_ids(np.arange(6))} == {
        *("a", "b", "runs")
    }
    assert "2 written by this program" in log.text and "folders of results (b)" in log.text
    assert ".npy" not in log.text


def test_config_files_of_other_programs_are_no_marker(tmp_path):
    _write(tmp_path, *_paths("a", "b"))
    (tmp_path / "a" / "config.json").write_text('{"model": "x"}')
    (tmp_path / "b" / "config.json").write_text("no json")
    assert _open(tmp_path).num_examples == 4


def test_folders_of_other_systems_are_no_data(tmp_path, log):
    hidden = (".thumbnails", ".Trash-1000", ".ipynb_checkpoints")
    system = ("@eaDir/1.jpg", "__MACOSX", "$RECYCLE.BIN", "lost+found", "#recycle", "LOST.DIR")
    _write(tmp_path, *_paths("a", *(f"a/{name}" for name in (*hidden, *system))), "a/._1.png")
    (tmp_path / "a" / "Thumbs.db").touch()
    assert _open(tmp_path).num_examples == 2
    for part in ("3 hidden folders", "1 @eaDir folders", "1 .db", "1 hidden"):
        assert part in log.text


def test_errors_count_what_is_ignored(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.tif").touch()
    with pytest.raises(UserError, match=r"contains no images: .*; ignored 5 \.tif"):
        _open(tmp_path)
    _write(tmp_path, "a/1.png")
    with pytest.raises(UserError, match=r"has no split 'test': .*; ignored 5 \.tif"):
        _open(tmp_path, "test")
    (tmp_path / "b.png").touch()
    with pytest.raises(UserError, match=r"1 of 2 files cannot be read; ignored 5 \.tif"):
        _open(tmp_path)


@pytest.mark.parametrize("name", ["a", "train"])
def test_unreadable_subfolder_is_named_or_counted(tmp_path, log, name):
    _write(tmp_path, *_paths(name, "b"))
    folder, is_root = tmp_path / name, os.geteuid() == 0
    folder.chmod(0)
    if is_root:  # permissions do not apply to root
        for directory in (tmp_path, *tmp_path.parents):
            if not directory.stat().st_mode & stat.S_IXOTH:
                directory.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(
            UserError, match=f"{folder} cannot be opened .Permission denied.; 1 sub"
        ):
            _open(tmp_path)
        assert _open(tmp_path, skip_unreadable=True).num_examples == 2
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
    assert f"skipped 1 unreadable subfolder: {name}" in log.text
