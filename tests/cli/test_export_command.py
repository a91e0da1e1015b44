"""`simclr-tf export`: any checkpoint, size and form, while the run is training too."""

import contextlib
import shutil
import signal
import textwrap

import numpy as np
import pytest
import tensorflow as tf

import simclr_tf
from simclr_tf.evaluation.protocols import AffineClassifier, FittedClassifier
from simclr_tf.runs.run_dir import RunDir
from tests.commands import TINY, error_of, output_of
from tests.processes import finish, pretrain

IMAGES = np.random.default_rng(0).uniform(size=(3, 16, 16, 3)).astype(np.float32)


def run_example(printed: str, directory) -> dict:
    """Runs the lines after "to use it" where photo.jpg is; returns their variables."""
    photo = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    (directory / "photo.jpg").write_bytes(tf.io.encode_jpeg(photo).numpy())
    variables: dict = {"images": IMAGES}
    with contextlib.chdir(directory):
        exec(textwrap.dedent(printed.partition("to use it:\n\n")[2]), variables)
    return variables


@pytest.mark.slow
def test_printed_example_shows_what_the_export_has(pretrained, tmp_path):
    run = shutil.copytree(pretrained, tmp_path / 'a "run"')
    command = ["export", f"--model_dir={run}"]
    plain = run_example(output_of(*command), tmp_path)
    assert plain["features"].shape == (3, 32) and "classes" not in plain
    encoded = run_example(output_of(*command, "--with_preprocessing"), tmp_path)
    assert encoded["features"].shape == (1, 32) and set(encoded["outputs"]) == {"features"}
    head = AffineClassifier(np.ones((32, 2), np.float32), np.array([0, 9], np.float32))
    fitted = FittedClassifier(head, ("a", "b"), "logistic", "shapes", 3)
    fitted.save(RunDir(run).classifier_file)
    classified = run_example(output_of(*command), tmp_path)
    assert classified["features"].shape == (3, 32)
    assert classified["classes"].numpy().tolist() == [b"b"] * 3
    both = run_example(output_of(*command, "--with_preprocessing"), tmp_path)
    assert both["features"].shape == (1, 32) and both["classes"].numpy().tolist() == [b"b"]
    card = (run / "export" / "3" / "README.md").read_text(encoding="utf-8")
    assert 'encoder.signatures["serving_encoded"](image_bytes=files)' in card


@pytest.mark.slow
def test_export_writes_any_checkpoint_at_any_image_size(run_dir, tmp_path):
    flags = ["--step=1", "--image_size=24", "--with_preprocessing"]
    printed = output_of(
        "export", f"--model_dir={run_dir}", f"--output={tmp_path / 'first'}", *flags
    )
    assert f'encoder = tf.saved_model.load("{tmp_path / "first"}")' in printed
    assert "[N, 24, 24, 3] in [0, 1] → [N, 32]" in printed
    loaded = tf.saved_model.load(str(tmp_path / "first"))
    images = np.repeat(IMAGES, 2, axis=1)[:, :24].repeat(2, axis=2)[:, :, :24]
    first, last = (simclr_tf.load(run_dir, step).encoder for step in (1, None))
    np.testing.assert_allclose(loaded(images), first(images, training=False), atol=1e-5)
    assert np.abs(loaded(images) - last(images, training=False)).max() > 1e-4
    card = (tmp_path / "first" / "README.md").read_text(encoding="utf-8")
    assert "float32 `[N, 24, 24, 3]`" in card and "1 steps" in card and "serving_encoded" in card
    # A file of that size is taken as it is.
    png = tf.io.encode_png(np.round(255 * images[0]).astype(np.uint8))
    served = loaded.signatures["serving_encoded"](image_bytes=png[tf.newaxis])["features"]
    np.testing.assert_allclose(served, loaded(np.round(255 * images[:1]) / np.float32(255)), 1e-4)


@pytest.mark.slow
def test_formats_are_exported_next_to_each_other(run_dir):
    command = ["export", f"--model_dir={run_dir}"]
    for flags in ([], ["--format=keras"], ["--format=tflite_int8", "--calibration_images=8"]):
        output_of(*command, *flags)
    names = {"3", "3.keras", "3.keras.md", "3-int8.tflite", "3-int8.tflite.md"}
    assert {path.name for path in (run_dir / "export").iterdir()} == names
    assert "8 bits" in (run_dir / "export" / "3-int8.tflite.md").read_text(encoding="utf-8")
    # Another step takes their place: --keep_hub_module_max is 1.
    output_of(*command, "--step=2")
    assert {path.name for path in (run_dir / "export").iterdir()} == {"2"}


def test_calibration_reads_images_as_the_run_does(run_dir, photos, tmp_path):
    run = RunDir(shutil.copytree(run_dir, tmp_path / "run"))
    settings, plan = run.read_config()
    data = {"dataset": f"folder:{photos}", "train_split": "train", "max_pixels": 9}
    run.write_config(settings.override({"data": data}), plan)
    command = ["export", f"--model_dir={run.path}", "--format=tflite_int8"]
    assert "claims more than 9 pixels" in error_of(*command)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--step=7"], "checkpoints: 1, 2, 3"),
        (
            ["--format=keras", "--with_preprocessing"],
            "--with_preprocessing: expected --format=saved_model, got keras",
        ),
        (["--format=onnx"], "--format=onnx"),
        (["--image_size=4"], "--image_size=4"),
        ([f"--output={__file__}"], "got an existing one"),
    ],
)
def test_mistakes_are_one_line_errors(run_dir, flags, message):
    before = sorted((run_dir / "export").rglob("*"))
    assert message in error_of("export", f"--model_dir={run_dir}", *flags)
    assert before == sorted((run_dir / "export").rglob("*"))


@pytest.mark.slow
def test_classifier_of_another_step_is_omitted_with_a_note(run_dir, tmp_path):
    head = AffineClassifier(np.ones((32, 2), np.float32), np.zeros(2, np.float32))
    saved = FittedClassifier(head, ("a", "b"), "logistic", "shapes", 2)
    saved.save(RunDir(run_dir).classifier_file)
    command = ["export", f"--model_dir={run_dir}"]
    printed = output_of(*command, f"--output={tmp_path / 'third'}")
    assert "was fitted at step 2 and is not part of the export of step 3" in printed
    signatures = tf.saved_model.load(str(tmp_path / "third")).signatures
    assert set(signatures) == {"serving_default", "all_outputs"}
    flags = [f"--output={tmp_path / 'second'}", "--step=2", "--with_preprocessing"]
    assert "note:" not in output_of(*command, *flags)
    signatures = tf.saved_model.load(str(tmp_path / "second")).signatures
    assert "classify" in signatures
    png = tf.io.encode_png(np.zeros([16, 16, 3], np.uint8))
    answer = signatures["serving_encoded"](image_bytes=png[tf.newaxis])
    assert set(answer) == {"features", "logits", "probabilities", "label", "class_name"}


@pytest.mark.slow
def test_run_is_exported_during_training(tmp_path):
    run = tmp_path / "run"
    process = pretrain(run, *TINY, "--train_steps=100000", "--checkpoint_steps=5")
    try:
        for line in process.stdout:
            if line.startswith("step 10/"):
                break
        output_of("export", f"--model_dir={run}", f"--output={tmp_path / 'out'}")
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGTERM)
        status, _, errors = finish(process)
    assert status == 143, errors
    assert tf.saved_model.load(str(tmp_path / "out"))(IMAGES).shape == (3, 32)
