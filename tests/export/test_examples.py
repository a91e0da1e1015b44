"""Every consumer of an export: a process of its own that never imports this package."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import simclr_tf
from simclr_tf.augment import eval_transform
from simclr_tf.cli.main import main
from simclr_tf.data import open_source
from simclr_tf.evaluation.features import extract_features
from simclr_tf.evaluation.knn import knn_predict
from tests.optional import needs

EXAMPLES = Path(__file__).resolve().parents[2] / "export" / "examples"
SIZE = 16
FLAGS = [
    *("--dataset=shapes", "--train_split=train[:4000]", "--eval_split=test[:1000]"),
    *(f"--image_size={SIZE}", "--resnet_depth=18", "--width_multiplier=0.0625"),
    *("--crop_min_area=0.5", "--train_batch_size=128", "--warmup_epochs=0"),
    *("--optimizer=adam", "--learning_rate=3e-3", "--learning_rate_scaling=none"),
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run without labels, exported in the forms that the examples take."""
    path = tmp_path_factory.mktemp("consumers") / "run"
    pretrain = ["pretrain", *FLAGS, "--train_steps=60", "--use_blur=False"]
    for command in (pretrain, ["export", "--with_preprocessing"], ["export", "--format=tflite"]):
        assert main([*command, f"--model_dir={path}"]) == 0
    return path


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    """A run with labels: in as few steps, its encoder is worth more."""
    path = tmp_path_factory.mktemp("labeled") / "run"
    train = ["finetune", *FLAGS, "--from_scratch", "--train_steps=200", "--mode=train"]
    train += ["--width_multiplier=0.125"]
    forms = ("tflite_int8", "saved_model_float16")
    for command in (train, *(["export", f"--format={form}"] for form in forms)):
        assert main([*command, f"--model_dir={path}"]) == 0
    return path


@pytest.fixture(scope="module")
def images(run_dir):
    """A folder of 60 images in class folders, and the run's own features of them in its order."""
    source = open_source("shapes", "test[:60]")
    views = eval_transform(tf.constant(source.images[source.indices]), SIZE)
    pixels = tf.cast(tf.round(255 * views), tf.uint8).numpy()
    folder = run_dir.parent / "images"
    order = np.lexsort((np.arange(60), np.array(source.class_names)[source.labels()]))
    for number, label in enumerate(source.labels()):
        file = folder / source.class_names[label] / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).save(file)
    encoder = simclr_tf.load(run_dir).encoder
    # Divided as a consumer does it.
    return folder, encoder(np.float32(pixels[order]) / 255, training=False).numpy()


@pytest.fixture(scope="module")
def alone(run_dir):
    """Run a Python file with a `simclr_tf` that cannot be imported; return what it printed."""
    (run_dir.parent / "blocked").mkdir()
    (run_dir.parent / "blocked" / "simclr_tf.py").write_text("raise ImportError('not here')\n")
    environ = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    environ["PYTHONPATH"] = str(run_dir.parent / "blocked")

    def run(file, *arguments):
        done = subprocess.run(
            [sys.executable, file, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environ,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.mark.parametrize(
    "name",
    [
        *("saved_model", "training_loop", "hub_keras_layer", "keras3", "serving", "tflite"),
        pytest.param("addons", marks=needs("tensorflow_addons")),
        pytest.param("keras_cv_preprocessing", marks=needs("keras_cv")),
    ],
)
def test_example_computes_the_features_of_the_run(name, run_dir, images, alone, tmp_path):
    folder, expected = images
    export = run_dir / "export" / ("60.tflite" if name == "tflite" else "60")
    output = tmp_path / "features.npy"
    printed = alone(
        EXAMPLES / f"{name}.py", export, folder, f"--image_size={SIZE}", f"--features={output}"
    )
    np.testing.assert_allclose(np.load(output), expected, atol=1e-5)
    for before, after in re.findall(r"loss (\S+) → ([\d.]+)", printed):
        assert float(after) < 0.97 * float(before), printed
    wanted = {
        "saved_model": ["projection: (60, 128)", "block_group4: (60, 2, 2, 32)"],
        "hub_keras_layer": [
            *("trainable=False: loss", "0 of 105 variables of the encoder moved"),
            *("trainable=True: loss", "105 of 105 variables of the encoder moved"),
        ],
        "serving": ["REST and gRPC differ by 0.0e+00", "of a file: [1, 32]"],
        "tflite": ["features: float32 [60, 32]"],
    }
    for words in wanted.get(name, ["loss"]):
        assert words in printed


def test_every_example_has_a_test():
    tested = {"folder", "scikit_learn", *_parameters()}
    assert {file.stem for file in EXAMPLES.glob("*.py")} == tested


def _parameters():
    (mark,) = test_example_computes_the_features_of_the_run.pytestmark
    return {getattr(value, "values", (value,))[0] for value in mark.args[1]}


def test_scikit_learn_example_classifies_embeddings(labeled, alone, tmp_path):
    flags = ["--split=train[:600]", f"--output={tmp_path}/out"]
    assert main(["embed", f"--model_dir={labeled}", *flags]) == 0
    printed = alone(EXAMPLES / "scikit_learn.py", tmp_path / "out")
    assert "features: float32 [600, 64]" in printed
    assert float(printed.rpartition(":")[2]) > 0.15  # of ten classes
    own = extract_features(
        simclr_tf.load(labeled).encoder, open_source("shapes", "train[:600]"), SIZE
    )
    np.testing.assert_allclose(np.load(tmp_path / "out" / "features.npy"), own.features, atol=1e-5)


def test_int8_and_float16_exports_have_the_accuracy_of_the_run(labeled):
    train, test = (open_source("shapes", split) for split in ("train[:4000]", "test"))
    own = simclr_tf.load(labeled).encoder
    half = tf.saved_model.load(str(labeled / "export" / "200-float16"))
    run = tf.lite.Interpreter(str(labeled / "export" / "200-int8.tflite")).get_signature_runner()

    def eight_bits(images, training):
        (features,) = tf.numpy_function(
            lambda x: [run(images=x)["features"]], [images], [tf.float32]
        )
        return tf.ensure_shape(features, [images.shape[0], 64])

    def accuracy(encoder):
        bank, queries = (extract_features(encoder, source, SIZE) for source in (train, test))
        predictions = knn_predict(bank.features, bank.labels, queries.features, 10, k=20)
        return np.mean(predictions[:, 0] == queries.labels), queries.features

    (best, features), (of_half, halves), (of_eight, _) = map(accuracy, (own, half, eight_bits))
    assert np.abs(halves - features).max() < 1e-2 * np.abs(features).max()
    assert best > 0.2 and abs(of_half - best) <= 0.01 and abs(of_eight - best) <= 0.02
