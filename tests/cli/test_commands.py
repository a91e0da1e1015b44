"""A user's way from images to an exported encoder, on the built-in shapes and on folders."""

import json
import logging
import re

import numpy as np
import pytest
from PIL import Image

from simclr_tf.errors import UserError
from simclr_tf.evaluation import EvalOptions, make_protocols
from simclr_tf.evaluation.splits import Splits, check_evaluation
from simclr_tf.runs.metrics_log import read_metrics
from tests.commands import TINY, error_of, output_of


def _records(directory):
    return json.loads((directory / "evaluations.json").read_text(encoding="utf-8"))


def test_pretrain_prints_progress_ignored_flags_and_the_next_command(pretraining):
    path, printed = pretraining
    assert "step 3/3" in printed and "--train_summary_steps has no effect" in printed
    assert f"simclr-tf evaluate --model_dir={path}" in printed


def test_evaluate_writes_every_protocol_and_baseline(run_dir):
    output_of("evaluate", f"--model_dir={run_dir}", "--baselines=pca,random")
    records = _records(run_dir)
    assert {record["protocol"] for record in records} == {
        *("knn", "logistic", "knn/pca", "logistic/pca", "knn/random", "logistic/random")
    }
    keys = {"protocol", "dataset", "train_split", "test_split", "top1", "top5"}
    keys |= {"num_train", "num_test", "step", "seconds", "setting", "metric", "value"}
    for record in records:
        assert set(record) == keys
        assert 0 <= record["top1"] <= record["top5"] <= 1
        assert (record["num_train"], record["num_test"], record["step"]) == (300, 100, 3)


@pytest.mark.slow
def test_exported_encoder_is_evaluated_like_its_run(run_dir, tmp_path):
    assert "tf.saved_model.load" in output_of("export", f"--model_dir={run_dir}")
    exported = run_dir / "export" / "3"
    assert (exported / "saved_model.pb").exists() and (exported / "README.md").exists()
    both = [f"--output={tmp_path}", *TINY[:3], "--protocols=knn", "--table"]
    printed = output_of("evaluate", f"--encoder={exported}", *both)
    assert re.search(r"^\| top-1 % +\| +encoder \|$", printed, re.MULTILINE)
    assert re.search(r"^\| knn +\| +\d+\.\d \|$", printed, re.MULTILINE)
    output_of("evaluate", f"--model_dir={run_dir}", "--protocols=knn")
    (of_export,), of_run = _records(tmp_path), _records(run_dir)[-1]
    assert of_export["top1"] == pytest.approx(of_run["top1"], abs=0.011)  # one image of 100


def test_training_on_fewer_images_than_the_default_k_can_be_evaluated():
    splits = Splits("shapes", "train[:120]", "test[:50]")
    check_evaluation(splits, make_protocols(EvalOptions()))
    with pytest.raises(UserError, match="--knn_k=200: expected 1 to 120"):
        check_evaluation(splits, make_protocols(EvalOptions(knn_k=200)))


@pytest.mark.slow
def test_train_then_eval_evaluates_and_exports(tmp_path):
    # With fewer images than k-NN has neighbors by default.
    flags = [f"--model_dir={tmp_path}", "--train_steps=1", "--mode=train_then_eval"]
    output_of("pretrain", *TINY, *flags, "--train_split=train[:120]")
    assert (tmp_path / "evaluations.json").exists()
    assert (tmp_path / "export" / "1" / "saved_model.pb").exists()


@pytest.mark.slow
def test_train_then_eval_without_labels_uses_the_probe_dataset(tmp_path, caplog):
    caplog.set_level(logging.INFO, "simclr_tf")
    draw = np.random.default_rng(0)
    for i in range(40):
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / f"{i}.png")
    run, photos = tmp_path / "run", f"--dataset=folder:{tmp_path / 'photos'}"
    flags = [photos, "--train_split=train", "--train_steps=1", f"--model_dir={run}"]
    probes = ["--probe_dataset=shapes", "--probe_train_split=train[:60]"]
    error = error_of("pretrain", *TINY, *flags, "--mode=train_then_eval")
    assert "no split 'test[:100]'" in error and not run.exists()
    caplog.clear()
    output_of("pretrain", *TINY, *flags, *probes, "--mode=train_then_eval")
    assert "60 + 100 images of shapes" in caplog.text
    assert f"folder:{tmp_path / 'photos'}: " in caplog.text
    assert {record["dataset"] for record in _records(run)} == {"shapes"}
    caplog.clear()
    output_of("pretrain", *TINY, *flags, *probes, "--mode=eval")
    assert "60 + 100 images of shapes" in caplog.text


@pytest.mark.slow
def test_color_jitter_of_the_command_changes_the_views(pretrained, tmp_path):
    """The shared run has the default strength 1; this one differs in nothing else."""
    output_of("pretrain", *TINY, "--color_jitter_strength=0", f"--model_dir={tmp_path}")
    without, shared = (read_metrics(path / "metrics.jsonl")[0] for path in (tmp_path, pretrained))
    assert abs(without["loss"] - shared["loss"]) > 1e-3


@pytest.mark.slow
def test_cifar10_command_of_the_reference_runs(tmp_path, cifar_data_dir):
    command = """
    --train_mode=pretrain --train_batch_size=512 --train_epochs=1000 --learning_rate=1.0
    --weight_decay=1e-4 --temperature=0.5 --dataset=cifar10 --image_size=32 --eval_split=test
    --resnet_depth=18 --use_blur=False --color_jitter_strength=0.5 --use_tpu=False
    """
    # Its own settings but for the size: this is about the flags and the data.
    small = ["--train_steps=1", "--train_batch_size=16", "--width_multiplier=0.0625"]
    places = [f"--model_dir={tmp_path}", f"--data_dir={cifar_data_dir}"]
    output_of("pretrain", *command.split(), *places, *small)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["config"]["encoder"]["stem"] == "cifar"
    assert config["plan"]["num_examples"] == 50_000


@pytest.fixture(scope="module")
def mixed_folder(tmp_path_factory):
    """A folder of 300 unlabeled images of varying sizes and types and an unreadable one."""
    root = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for i in range(300):
        height, width = (400, 5) if i == 7 else draw.integers(20, 80, 2)
        mode = {5: "L", 6: "RGBA"}.get(i, "RGB")
        shape = (height, width, *{"L": (), "RGB": (3,), "RGBA": (4,)}[mode])
        suffix = "png" if mode == "RGBA" else ("jpg", "png", "bmp")[i % 3]
        folder = root / f"day{i % 4}" / "raw" if i else root  # one lies loose: no classes
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8))
        image.save(folder / f"{i:03}.{suffix}")
    (root / "day0" / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    (root / "notes.txt").write_text("not an image either")
    return root


UNLABELED = [
    *("--image_size=16", "--resnet_depth=18", "--width_multiplier=0.0625", "--num_proj_layers=2"),
    *("--train_batch_size=64", "--train_epochs=1", "--warmup_epochs=0", "--log_every=2"),
]


def test_unreadable_file_in_a_folder_is_named(mixed_folder, tmp_path):
    flags = [f"--dataset=folder:{mixed_folder}", f"--model_dir={tmp_path / 'run'}", *UNLABELED]
    error = error_of("pretrain", *flags)
    assert "broken.jpg" in error and "--skip_unreadable" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_folder_of_mixed_images_pretrains_without_labels(mixed_folder, tmp_path):
    flags = [f"--dataset=folder:{mixed_folder}", f"--model_dir={tmp_path}", *UNLABELED]
    printed = output_of("pretrain", *flags, "--skip_unreadable")
    assert "300 images" in printed and "no labels" in printed
    rows = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(rows[-1])
    assert last["step"] == 4  # 300 // 64
    assert {"alignment", "uniformity", "feature_std"} <= set(last)
    assert "linear_accuracy" not in last
