"""Every command in its own process, as a user runs it, on the built-in shapes."""

import json
import re

import numpy as np
import pytest
from PIL import Image

TINY = [
    *("--dataset=shapes", "--train_split=train[:600]", "--eval_split=test[:100]"),
    *("--image_size=16", "--resnet_depth=18", "--width_multiplier=0.0625", "--use_blur=False"),
    *("--num_proj_layers=2", "--proj_out_dim=16", "--optimizer=momentum", "--learning_rate=0.1"),
    *("--train_batch_size=32", "--train_steps=6", "--warmup_epochs=0", "--log_every=3"),
    "--pictures_every_epochs=0",
]


@pytest.fixture(scope="module")
def run_dir(run_cli, tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    done = run_cli("pretrain", *TINY, f"--model_dir={path}", "--train_summary_steps=0")
    assert done.returncode == 0, done.stderr
    assert "step 6/6" in done.stdout
    assert "--train_summary_steps has no effect" in done.stdout
    assert f"simclr-tf evaluate --model_dir={path}" in done.stdout
    return path


def test_evaluate_writes_every_protocol_and_baseline(run_cli, run_dir):
    done = run_cli("evaluate", f"--model_dir={run_dir}", "--baselines=pca,random")
    assert done.returncode == 0, done.stderr
    records = json.loads((run_dir / "evaluations.json").read_text(encoding="utf-8"))
    assert {record["protocol"] for record in records} == {
        *("knn", "logistic", "knn/pca", "logistic/pca", "knn/random", "logistic/random")
    }
    keys = {"protocol", "dataset", "train_split", "test_split", "top1", "top5"}
    keys |= {"num_train", "num_test", "step", "seconds", "setting", "metric", "value"}
    for record in records:
        assert set(record) == keys
        assert 0 <= record["top1"] <= record["top5"] <= 1
        assert (record["num_train"], record["num_test"], record["step"]) == (600, 100, 6)


@pytest.mark.slow
def test_exported_encoder_is_evaluated_like_its_run(run_cli, run_dir, tmp_path):
    done = run_cli("export", f"--model_dir={run_dir}")
    assert done.returncode == 0, done.stderr
    exported = run_dir / "export" / "6"
    assert (exported / "saved_model.pb").exists() and (exported / "README.md").exists()
    assert "tf.saved_model.load" in done.stdout

    both = [f"--output={tmp_path}", "--dataset=shapes", "--train_split=train[:600]"]
    both += ["--eval_split=test[:100]", "--protocols=knn"]
    done = run_cli("evaluate", f"--encoder={exported}", *both, "--table")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| top-1 % +\| +encoder \|$", done.stdout, re.MULTILINE)
    assert re.search(r"^\| knn +\| +\d+\.\d \|$", done.stdout, re.MULTILINE)
    done = run_cli("evaluate", f"--model_dir={run_dir}", "--protocols=knn")
    assert done.returncode == 0, done.stderr
    (of_export,) = json.loads((tmp_path / "evaluations.json").read_text(encoding="utf-8"))
    of_run = json.loads((run_dir / "evaluations.json").read_text(encoding="utf-8"))[-1]
    assert of_export["top1"] == pytest.approx(of_run["top1"], abs=0.011)  # one image of 100


@pytest.mark.slow
def test_train_then_eval_evaluates_and_exports(run_cli, tmp_path):
    flags = [f"--model_dir={tmp_path}", "--train_steps=1", "--mode=train_then_eval"]
    done = run_cli("pretrain", *TINY, *flags)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "evaluations.json").exists()
    assert (tmp_path / "export" / "1" / "saved_model.pb").exists()


@pytest.mark.slow
def test_cifar10_command_of_the_reference_runs(run_cli, tmp_path, cifar_data_dir):
    command = """
    --train_mode=pretrain --train_batch_size=512 --train_epochs=1000 --learning_rate=1.0
    --weight_decay=1e-4 --temperature=0.5 --dataset=cifar10 --image_size=32 --eval_split=test
    --resnet_depth=18 --use_blur=False --color_jitter_strength=0.5 --use_tpu=False
    """
    # Its own settings but for the size: this is about the flags and the data.
    small = ["--train_steps=1", "--train_batch_size=16", "--width_multiplier=0.0625"]
    done = run_cli(
        *(
            "pretrain",
            *command.split(),
            f"--model_dir={tmp_path}",
            f"--data_dir={cifar_data_dir}",
            *small,
        )
    )
    assert done.returncode == 0, done.stderr
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


def test_unreadable_file_in_a_folder_is_named(run_cli, mixed_folder, tmp_path):
    flags = [f"--dataset=folder:{mixed_folder}", f"--model_dir={tmp_path / 'run'}", *UNLABELED]
    done = run_cli("pretrain", *flags)
    assert done.returncode == 2
    assert "broken.jpg" in done.stderr and "--skip_unreadable" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_folder_of_mixed_images_pretrains_without_labels(run_cli, mixed_folder, tmp_path):
    flags = [f"--dataset=folder:{mixed_folder}", f"--model_dir={tmp_path}", *UNLABELED]
    done = run_cli("pretrain", *flags, "--skip_unreadable")
    assert done.returncode == 0, done.stderr
    assert "300 images" in done.stdout and "no labels" in done.stdout
    rows = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(rows[-1])
    assert last["step"] == 4  # 300 // 64
    assert {"alignment", "uniformity", "feature_std"} <= set(last)
    assert "linear_accuracy" not in last
