"""Commands on a run that trained at smaller sizes than it is evaluated at."""

import json

import numpy as np
import pytest
import tensorflow as tf

import simclr_tf
from simclr_tf.augment import eval_transform
from simclr_tf.data import open_source
from simclr_tf.evaluation.load_encoder import encoder_from_run
from simclr_tf.runs.run_dir import RunDir
from tests.commands import TINY, error_of, output_of

SIZES = ["--view_size_schedule=8:0.4,12:2,16", "--eval_image_size=24"]


@pytest.fixture(scope="module")
def sized(tmp_path_factory):
    """A run whose step 1 had views of 8 px, step 2 of 12 and step 3 of 16; and its output."""
    path = tmp_path_factory.mktemp("sized") / "run"
    flags = ["--knn_every_epochs=1", "--flip=alternating", "--proj_hidden_dim=24"]
    flags += ["--grayscale_probability=0.1", "--color_jitter_probability=0.7"]
    return path, output_of("pretrain", *TINY, *SIZES, *flags, f"--model_dir={path}")


def test_pretrain_names_the_sizes_and_stores_the_options(sized):
    path, output = sized
    assert "; views of 8 px until step 1, 12 px until step 2, then 16 px" in output
    config, plan = RunDir(path).read_config()
    assert plan.view_size_steps == (1, 2) and config.data.storage_size == 36
    assert config.augmentation.grayscale_probability == 0.1
    head = simclr_tf.load(path).projection_head
    assert head.get_layer("layer1_dense").units == 24


@pytest.mark.slow
def test_every_command_uses_the_evaluation_size(sized, tmp_path):
    path, _ = sized
    encoder = simclr_tf.load(path).encoder
    test = open_source("shapes", "test[:100]", storage_size=36)
    images = eval_transform(test.images[test.indices], 24)
    expected = encoder(images, training=False).numpy()
    run = [f"--model_dir={path}"]

    assert encoder_from_run(path).image_size == 24  # of evaluate and report
    output_of("embed", *run, f"--output={tmp_path / 'embedded'}", "--split=test[:100]")
    found = np.load(tmp_path / "embedded" / "features.npy")
    np.testing.assert_allclose(found, expected, atol=1e-5)

    output_of("export", *run, f"--output={tmp_path / 'exported'}")
    loaded = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(
        loaded.signatures["serving_default"](images=images)["features"], expected, atol=1e-5
    )

    # The probe has stored the features of size 24, and the evaluation finds them.
    before = {file.name for file in RunDir(path).features_dir.iterdir()}
    output_of("evaluate", *run, "--protocols=knn")
    assert {file.name for file in RunDir(path).features_dir.iterdir()} == before
    (row,) = [json.loads(s) for s in (path / "metrics.jsonl").read_text().splitlines()][-1:]
    (record,) = json.loads((path / "evaluations.json").read_text(encoding="utf-8"))
    assert record["top1"] == pytest.approx(row["knn_top1"])


def test_finetune_takes_images_of_the_evaluation_size(sized, tmp_path):
    flags = ["--train_split=train[:40]", "--train_steps=1", "--mode=train"]
    output_of("finetune", f"--checkpoint={sized[0]}", f"--model_dir={tmp_path}", *flags)
    config, plan = RunDir(tmp_path).read_config()
    assert config.augmentation.image_size == config.augmentation.evaluation_size == 24
    assert (config.augmentation.view_sizes, plan.view_size_steps) == ((), ())
    assert config.augmentation.flip == "random" and config.data.storage_size == 36


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--view_size_schedule=8:0.9,12:2,16"], "expected steps above 0 that ascend, below"),
        (["--view_size_schedule=8:0.5,12:0.4,16"], "expected ends above 0 that ascend, got 0.5"),
        (["--view_size_schedule=8:0.5,12"], "expected --image_size=16 as the last size"),
        (["--eval_image_size=4"], "--eval_image_size=4: expected an integer of at least 8, or 0"),
        (["--flip=alternating", "--use_flip=False"], "--flip=alternating: expected no --use_flip"),
        (["--flip=alternating", "--transformations=crop"], "expected no --transformations"),
        (["--flip=both"], "--flip=both: expected one of random, alternating"),
        (
            ["--solarize_probability=0.2", "--policy=randaugment"],
            "--solarize_probability=0.2: expected --policy=simclr",
        ),
        (["--grayscale_probability=1.2"], "--grayscale_probability=1.2: expected a number of at"),
        (["--proj_hidden_dim=-1"], "--proj_hidden_dim=-1: expected an integer of at least 0"),
    ],
)
def test_mistake_is_one_line(tmp_path, flags, message):
    path = tmp_path / "run"
    assert message in error_of("pretrain", *TINY, *flags, f"--model_dir={path}")
    assert not path.exists()


@pytest.mark.parametrize("flag", ["--flip=alternating", "--view_size_schedule=8:0.5,24"])
def test_what_needs_two_views_or_one_size_is_refused_with_others(sized, tmp_path, flag):
    start = [f"--model_dir={tmp_path / 'new'}", flag]
    if flag.startswith("--flip"):
        error = error_of("finetune", f"--checkpoint={sized[0]}", *start)
        assert "--flip=alternating: expected --views_per_image=2" in error
    teacher = [f"--teacher={sized[0]}"]
    assert f"simclr-tf: error: {flag}: " in error_of("distill", *teacher, *start)
