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
from simclr_tf.embedding import projector as projector_module
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset
from simclr_tf.embedding.projector import evenly_spaced_sample, make_sprite, write_projector
from tests.sets import rows

NAMES = ["tab\there.png", "line\n.png", 'quo"te.png', "<script>.png", "\u2028.png"]


@pytest.fixture
def served(tmp_path):
    """What TensorBoard answers for a directory that was written: `served(rows, most)`."""

    def write(embedded, most=10_000):
        lines = []
        write_projector(embedded, tmp_path / "projector", most, lines.append)
        provider = MultiplexerDataProvider(EventMultiplexer(), str(tmp_path / "projector"))
        context = base_plugin.TBContext(logdir=str(tmp_path / "projector"), data_provider=provider)
        apps = ProjectorPlugin(context).get_plugin_apps()

        def get(route):
            answer = Client(apps[route]).get("/?run=.&name=features")
            assert answer.status_code == 200, answer.data
            return answer.data

        return get, lines

    return write


def test_tensorboard_serves_what_was_written(served, tmp_path):
    embedded = rows(len(NAMES), names=NAMES)
    get, lines = served(embedded)
    assert lines == []
    points = np.frombuffer(get("/tensor"), np.float32).reshape(-1, 6)
    np.testing.assert_array_equal(points, embedded.features)
    (info,) = json.loads(get("/info"))["embeddings"]
    assert info["tensorShape"] == [5, 6] and info["sprite"]["singleImageDim"] == [32, 32]
    head, *found = get("/metadata").decode().removesuffix("\n").split("\n")
    assert head == "label\tid\tindex"
    assert [row.split("\t")[1] for row in found] == [
        *("tab\\there.png", "line\\n.png", 'quo"te.png', "<script>.png", "\\u2028.png")
    ]
    assert [row.split("\t")[2] for row in found] == ["0", "1", "2", "3", "4"]
    picture = tf.io.decode_png(get("/sprite_image")).numpy()
    assert picture.shape == (64, 96, 3)  # 3 columns
    np.testing.assert_array_equal(picture[32:64, 32:64], embedded.source.images[4])
    config = projector.ProjectorConfig()
    text_format.Parse((tmp_path / "projector" / "projector_config.pbtxt").read_text(), config)
    assert config.embeddings[0].metadata_path == "metadata.tsv"


def test_zeros_and_text_like_bytes_are_served(served):
    # As raw bytes, these would be a file that reads as text.
    get, _ = served(rows(features=np.zeros((40, 6), np.float32)))
    assert not np.frombuffer(get("/tensor"), np.float32).any()


def test_too_many_are_thinned_out_evenly_and_said(served):
    embedded = rows(40)
    get, lines = served(embedded, most=9)
    assert lines == [
        "projector: 9 of 40 images, evenly spaced, because more are too many for a browser; "
        "--projector_images sets how many"
    ]
    chosen = evenly_spaced_sample(40, 9)
    points = np.frombuffer(get("/tensor"), np.float32).reshape(-1, 6)
    np.testing.assert_array_equal(points, embedded.features[chosen])
    index = [int(line.split("\t")[2]) for line in get("/metadata").decode().split("\n")[1:-1]]
    assert index == chosen.tolist()
    picture = tf.io.decode_png(get("/sprite_image")).numpy()
    for place, position in enumerate(chosen):
        y, x = (32 * i for i in divmod(place, 3))
        image = embedded.source.images[position]
        np.testing.assert_array_equal(picture[y : y + 32, x : x + 32], image)
    # One of each ninth, and not the first of each; the same again.
    edges = [i * 40 // 9 for i in range(10)]
    assert all(a <= p < b for a, p, b in zip(edges, chosen, edges[1:], strict=False))
    assert chosen.tolist() != edges[:-1]
    np.testing.assert_array_equal(chosen, evenly_spaced_sample(40, 9))


def test_an_older_projector_is_replaced_whole(served, tmp_path):
    served(rows(40))
    (tmp_path / ".incomplete.projector").mkdir()  # of a kill
    (tmp_path / ".incomplete.projector" / "rubbish").touch()
    get, _ = served(rows(12))
    assert len(get("/metadata").decode().splitlines()) == 13
    assert [place.name for place in tmp_path.iterdir()] == ["projector"]
    assert not (tmp_path / "projector" / "rubbish").exists()


def test_tiles_shrink_so_that_the_sprite_fits(monkeypatch):
    monkeypatch.setattr(projector_module, "_SIDE", 100)
    embedded = rows(40)
    picture, tile = make_sprite(embedded, np.arange(40))
    assert tile == 100 // 7 and picture.shape == (6 * 14, 7 * 14, 3)
    assert (picture[5 * 14 :, 5 * 14 :] == 255).all()  # beyond the 40th
    mean = embedded.source.images[8].mean()
    assert abs(picture[14:28, 14:28].mean() - mean) < 8


def test_a_tile_shows_the_originals_proportions():
    # A square in the middle of an original twice as wide as high, stored as a square.
    images = np.zeros((1, 64, 64, 3), np.uint8)
    images[:, 16:48, 24:40] = 255
    source = ArraySource("wide", images, aspects=np.array([2.0], np.float32))
    picture, tile = make_sprite(
        EmbeddedDataset(source, np.ones((1, 2), np.float32), np.array([-1])), np.arange(1)
    )
    bright = picture[..., 0] > 127
    assert tile == 64
    assert abs(bright.any(0).sum() - bright.any(1).sum()) <= 1
