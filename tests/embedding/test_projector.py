"""The projector's files, as TensorBoard itself reads and serves them."""

import json

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin, projector
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client

from simclr_tf.data.base import ArraySource
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset, evenly_spaced_sample
from simclr_tf.embedding.projector import make_sprite, write_projector
from tests.embedded_datasets import random_dataset

NAMES = ["tab\there.png", "line\n.png", 'quo"te.png', "<script>.png", "\u2028.png"]


@pytest.fixture
def served(tmp_path):
    """Writes a projector and returns TensorBoard's responses: `served(dataset, max_images)`."""

    def write(dataset, max_images=10_000):
        write_projector(dataset, tmp_path / "projector", max_images)
        provider = MultiplexerDataProvider(EventMultiplexer(), str(tmp_path / "projector"))
        context = base_plugin.TBContext(logdir=str(tmp_path / "projector"), data_provider=provider)
        apps = ProjectorPlugin(context).get_plugin_apps()

        def get(route):
            response = Client(apps[route]).get("/?run=.&name=features")
            assert response.status_code == 200, response.data
            return response.data

        return get

    return write


def _points(get):
    return np.frombuffer(get("/tensor"), np.float32).reshape(-1, 6)


def test_tensorboard_serves_the_written_files(served, tmp_path, caplog):
    embedded = random_dataset(len(NAMES), names=NAMES)
    get = served(embedded)
    assert not caplog.records
    np.testing.assert_array_equal(_points(get), embedded.features)
    (info,) = json.loads(get("/info"))["embeddings"]
    assert info["tensorShape"] == [5, 6] and info["sprite"]["singleImageDim"] == [32, 32]
    header, *found = get("/metadata").decode().removesuffix("\n").split("\n")
    assert header == "label\tid\tindex"
    ids = ["tab\\there.png", "line\\n.png", 'quo"te.png', "<script>.png", "\\u2028.png"]
    assert [row.split("\t")[1] for row in found] == ids
    assert [row.split("\t")[2] for row in found] == ["0", "1", "2", "3", "4"]
    sprite = tf.io.decode_png(get("/sprite_image")).numpy()
    assert sprite.shape == (64, 96, 3)  # 3 columns
    np.testing.assert_array_equal(sprite[32:64, 32:64], embedded.source.images[4])
    config = projector.ProjectorConfig()
    text_format.Parse((tmp_path / "projector" / "projector_config.pbtxt").read_text(), config)
    assert config.embeddings[0].metadata_path == "metadata.tsv"


def test_features_whose_bytes_read_as_text_are_served(served):
    # As raw bytes, zeros would be a file that reads as text.
    get = served(random_dataset(features=np.zeros((40, 6), np.float32)))
    assert not _points(get).any()


def test_a_large_dataset_is_sampled_evenly_with_a_message(served, caplog):
    embedded = random_dataset(40)
    with caplog.at_level("INFO", "simclr_tf"):
        get = served(embedded, max_images=9)
    assert "projector: 9 of 40 images, evenly spaced (--projector_images" in caplog.text
    chosen = evenly_spaced_sample(40, 9)
    np.testing.assert_array_equal(_points(get), embedded.features[chosen])
    index = [int(line.split("\t")[2]) for line in get("/metadata").decode().split("\n")[1:-1]]
    assert index == chosen.tolist()
    sprite = tf.io.decode_png(get("/sprite_image")).numpy()
    for number, image in enumerate(embedded.source.images[chosen]):
        y, x = (32 * i for i in divmod(number, 3))
        np.testing.assert_array_equal(sprite[y : y + 32, x : x + 32], image)


def test_a_sample_has_one_position_of_each_interval_and_is_repeatable():
    chosen = evenly_spaced_sample(40, 9)
    edges = [i * 40 // 9 for i in range(10)]
    assert all(a <= p < b for a, p, b in zip(edges, chosen, edges[1:], strict=False))
    assert chosen.tolist() != edges[:-1]  # not the first of each
    np.testing.assert_array_equal(chosen, evenly_spaced_sample(40, 9))


def test_an_older_projector_is_replaced_completely(served, tmp_path):
    served(random_dataset(40))
    (tmp_path / ".incomplete.projector").mkdir()  # of a kill
    (tmp_path / ".incomplete.projector" / "leftover").touch()
    get = served(random_dataset(12))
    assert len(get("/metadata").decode().splitlines()) == 13
    assert [path.name for path in tmp_path.iterdir()] == ["projector"]
    assert not (tmp_path / "projector" / "leftover").exists()


def test_thumbnails_shrink_so_that_the_sprite_fits():
    embedded = random_dataset(40)
    sprite, tile = make_sprite(embedded, np.arange(40), max_side=100)
    assert tile == 100 // 7 and sprite.shape == (6 * 14, 7 * 14, 3)
    assert (sprite[5 * 14 :, 5 * 14 :] == 255).all()  # beyond the 40th
    mean = embedded.source.images[8].mean()
    assert abs(sprite[14:28, 14:28].mean() - mean) < 8


def test_a_thumbnail_has_the_proportions_of_the_original():
    # A square in the middle of an original twice as wide as high, stored as a square.
    images = np.zeros((1, 64, 64, 3), np.uint8)
    images[:, 16:48, 24:40] = 255
    source = ArraySource("wide", images, aspects=np.array([2.0], np.float32))
    wide = EmbeddedDataset(source, np.ones((1, 2), np.float32), np.array([-1]))
    sprite, tile = make_sprite(wide, np.arange(1))
    bright = sprite[..., 0] > 127
    assert tile == 64
    assert abs(bright.any(0).sum() - bright.any(1).sum()) <= 1
