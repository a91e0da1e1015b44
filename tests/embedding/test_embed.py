"""Embedding from Python: arrays without files, sources from memory, lazy imports."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.embedding import EmbedOptions, embed_saved_model
from simclr_tf.errors import UserError
from tests.embedded_datasets import random_dataset, random_images


@pytest.fixture(scope="module")
def color_means(tmp_path_factory):
    """A SavedModel like an exported encoder, whose features are the mean colors of 16-px images."""
    module = tf.__internal__.tracking.AutoTrackable()
    images = tf.TensorSpec([None, 16, 16, 3], tf.float32, name="images")

    @tf.function(input_signature=[images, tf.TensorSpec([], tf.bool)])
    def call(images, training):
        del training
        return tf.reduce_mean(images, axis=[1, 2])

    def outputs(images):
        return {"features": tf.reduce_mean(images, axis=[1, 2])}

    module.__call__ = call
    module.variables = [tf.Variable(1.0)]
    function = tf.function(outputs, input_signature=[images])
    signatures = {"serving_default": function, "all_outputs": function}
    path = tmp_path_factory.mktemp("encoder") / "saved_model"
    tf.saved_model.save(module, str(path), signatures)
    return path


def test_arrays_without_an_output_directory(color_means, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = random_dataset(size=16).source
    result = embed_saved_model(color_means, EmbedOptions(nearest="7", neighbours=3), source=source)
    features, ids, labels = result
    expected = random_images(40, 16).mean(axis=(1, 2)) / 255
    assert isinstance(features, np.memmap)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert ids == [str(i) for i in range(40)]
    np.testing.assert_array_equal(labels, source.labels())
    assert result.neighbors[0].position == 7 and len(result.neighbors) == 3
    assert result.files == () and not list(tmp_path.iterdir())


def test_labels_of_an_unlabeled_dataset_are_none(color_means):
    source = random_dataset(size=16, labeled=False).source
    assert embed_saved_model(color_means, EmbedOptions(), source=source).labels is None


def test_written_files_are_listed(color_means, tmp_path):
    source = random_dataset(size=16).source
    options = EmbedOptions(format=["npy", "projector"])
    result = embed_saved_model(color_means, options, tmp_path / "out", source)
    assert [path.name for path in result.files] == ["features.npy", "ids.csv", "projector"]
    assert all(path.exists() for path in result.files)
    np.testing.assert_array_equal(np.load(result.files[0]), result.features)


def test_an_exported_encoder_without_a_dataset_is_refused(color_means):
    with pytest.raises(UserError, match="--dataset is missing"):
        embed_saved_model(color_means, EmbedOptions())


def test_options_do_not_import_tensorflow():
    code = "import sys, simclr_tf.embedding as e, simclr_tf.evaluation as v; e.EmbedOptions();"
    code += "import simclr_tf.reporting as r; v.EvalOptions(); r.ReportOptions();"
    code += "print('tensorflow' in sys.modules, dir(e))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False") and "embed_run" in done.stdout
