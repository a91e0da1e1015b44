"""Encoders as single files: TensorFlow Lite's and Keras's."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.errors import UserError
from simclr_tf.exporter import export_keras, export_tflite
from tests.export.tiny_encoder import FEATURES, IMAGES, SIZE, tiny_encoder


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


@pytest.mark.parametrize(
    ("quantization", "least", "most"),
    [("float32", 0, 1e-5), ("float16", 1e-6, 1e-2), ("int8", 1e-4, 0.1)],
)
def test_tflite_computes_the_features_for_any_batch_size(
    encoder, tmp_path, quantization, least, most
):
    path = export_tflite(
        encoder,
        tmp_path / "encoder.tflite",
        image_size=SIZE,
        model_card="# card\n",
        quantization=quantization,
        calibration=IMAGES,
    )
    run = tf.lite.Interpreter(str(path)).get_signature_runner("serving_default")
    for batch in (IMAGES, IMAGES[:1], IMAGES[:4]):
        features = run(images=batch)["features"]
        expected = encoder(batch, training=False).numpy()
        assert features.shape == expected.shape and features.dtype == np.float32
        assert least <= np.abs(features - expected).max() / np.abs(expected).max() < most
    card = (tmp_path / "encoder.tflite.md").read_text()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder.tflite", "encoder.tflite.md"]


TFLITE = """
import sys
import numpy as np, tensorflow as tf
run = tf.lite.Interpreter(sys.argv[1]).get_signature_runner()
print("features", run(images=np.ones([1, 16, 16, 3], np.float32))["features"].shape)
"""


@pytest.mark.slow
def test_truncated_tflite_file_computes_no_features(encoder, tmp_path):
    path = export_tflite(encoder, tmp_path / "a.tflite", image_size=SIZE, model_card="")

    def run():
        command = [sys.executable, "-c", TFLITE, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert f"features (1, {FEATURES})" in run().stdout
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    cut = run()
    # TensorFlow Lite raises, or it ends the process.
    assert cut.returncode and "features" not in cut.stdout


def test_tflite_export_with_invalid_arguments_writes_nothing(encoder, tmp_path):
    settings = {"image_size": SIZE, "model_card": ""}
    with pytest.raises(ValueError, match="calibration"):
        export_tflite(encoder, tmp_path / "a.tflite", quantization="int8", **settings)
    with pytest.raises(ValueError, match="float32, float16, int8"):
        export_tflite(encoder, tmp_path / "a.tflite", quantization="int4", **settings)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.tflite").touch()
    with pytest.raises(UserError, match="got an existing one"):
        export_tflite(encoder, tmp_path / "a.tflite", **settings)


def test_keras_export_has_a_card_with_the_checksum(encoder, tmp_path):
    path = export_keras(encoder, tmp_path / "encoder.keras", model_card="# card\n")
    card = (tmp_path / "encoder.keras.md").read_text()
    assert card.startswith("# card\n") and hashlib.sha256(path.read_bytes()).hexdigest() in card
    with pytest.raises(UserError, match="got an existing one"):
        export_keras(encoder, path, model_card="")
