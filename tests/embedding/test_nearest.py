"""Nearest-neighbor search: order, queries of every kind, the plot."""

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from simclr_tf.data import open_source
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset
from simclr_tf.embedding.nearest import (
    Query,
    format_neighbors,
    nearest_neighbors,
    nearest_others,
    plot_neighbors,
    resolve_query,
)
from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import FeatureExtractor
from tests.embedded_datasets import random_dataset

NAMES = [r"$\frac{$.png", 'a,b"c.png', "<script>.png", "$x$.png", "new\nline.png", "猫.png"]


def _pixels(images, training):
    return tf.reshape(images, [images.shape[0], -1])


def _png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_HEADER = struct.pack(">IIBBBBB", 2**16, 2**16, 8, 2, 0, 0, 0)
HUGE_PNG = b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", _HEADER) + _png_chunk(b"IDAT", b"")
EXTRACT = FeatureExtractor(_pixels, 16, 1)


@pytest.mark.parametrize("position", [0, 7, 39])
def test_order_and_similarity_are_those_of_scikit_learn(position):
    embedded = random_dataset()
    found = nearest_neighbors(embedded, Query("", position), EXTRACT, 12)
    assert found[0].position == position
    assert found[0].similarity == pytest.approx(1, abs=1e-6)
    oracle = NearestNeighbors(n_neighbors=12, metric="cosine").fit(embedded.features)
    distance, expected = oracle.kneighbors(embedded.features[[position]])
    assert [n.position for n in found] == expected[0].tolist()
    np.testing.assert_allclose([n.similarity for n in found], 1 - distance[0], atol=1e-6)
    assert [n.id for n in found] == [str(i) for i in expected[0]]


def test_nearest_others_leave_out_the_query_even_among_duplicates():
    features = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    features[[3, 8, 9, 20]] = features[3]
    queries = np.array([3, 5, 20])
    similarity, found = nearest_others(features, queries, 2)
    assert set(found[0]) <= {8, 9, 20} and set(found[2]) <= {3, 8, 9}
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit[queries] @ unit.T
    cosines[np.arange(3), queries] = -np.inf
    np.testing.assert_array_equal(found[1], np.argsort(-cosines[1])[:2])
    np.testing.assert_allclose(similarity, -np.sort(-cosines, axis=1)[:, :2], atol=1e-6)


def test_a_query_names_a_row_by_number_or_id():
    source = open_source("shapes", "train[100:120]")
    assert resolve_query("3", source, 24) == Query("train/103", 3)
    assert resolve_query("train/103", source, 24) == Query("train/103", 3)


def _embedded(source):
    found = EXTRACT(source)
    return EmbeddedDataset(source, found.features, found.labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of images of several sizes, and its features."""
    path, rng = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for name, (width, height) in zip(NAMES, 2 * [(40, 30), (20, 60), (24, 24)], strict=True):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(path / name, format="PNG")
    return path, _embedded(open_source(f"folder:{path}", "train", storage_size=24))


def test_a_file_of_the_dataset_is_nearest_to_itself(folder):
    path, embedded = folder
    source = embedded.source
    for name in NAMES:
        query = resolve_query(str(path / name), source, 24)
        first, second = nearest_neighbors(embedded, query, EXTRACT, 2)
        assert source.image_ids(np.array([first.position])) == [name]
        assert first.similarity == pytest.approx(1, abs=1e-5) and second.similarity < 0.999
        assert resolve_query(name, source, 24).position == first.position


def test_an_image_stored_unresized_is_nearest_to_itself(tmp_path):
    source = open_source("shapes", "train[:50]")
    Image.fromarray(source.images[17]).save(tmp_path / "17.png")
    query = resolve_query(str(tmp_path / "17.png"), source, 24)
    first, *_ = nearest_neighbors(_embedded(source), query, EXTRACT, 3)
    assert first.position == 17 and first.similarity == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("a.txt", b"hello", r"a.txt is not a JPEG, PNG, GIF, BMP or WebP image"),
        ("a.png", b"", r"a.png is empty. Fix: choose an image file"),
        (
            "a.png",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\b\2",
            "has a damaged header|cannot be read or decoded",
        ),
        ("a.png", HUGE_PNG, "claims more than"),
        (None, None, r"nothing.png: expected an image file, an ID of shapes.* such as train/0"),
        ("20", None, r"--nearest=20: expected a row from 0 to 19 of shapes"),
    ],
)
def test_a_query_that_is_no_image_is_refused(tmp_path, name, contents, message):
    source = open_source("shapes", "train[:20]")
    query = name or "nothing.png"
    if contents is not None:
        (tmp_path / name).write_bytes(contents)
        query = str(tmp_path / name)
    with pytest.raises(UserError, match=message):
        resolve_query(query, source, 24)


def test_the_plot_has_a_tile_per_image(folder, tmp_path):
    _, embedded = folder
    query = resolve_query(NAMES[0], embedded.source, 24)
    found = nearest_neighbors(embedded, query, EXTRACT, 6)
    plot_neighbors(embedded, query, found, tmp_path / "out" / "nearest.png")
    plot = np.asarray(Image.open(tmp_path / "out" / "nearest.png"))
    assert plot.shape[0] >= 400 and plot.shape[1] >= 1000  # 7 of them, 6 in a line
    table = format_neighbors(query.name, found)
    assert len(table.splitlines()) == 8 and r"new\nline.png" in table


@pytest.fixture
def drawn(monkeypatch):
    """(images, titles) of the plots that are drawn."""
    from matplotlib.axes import Axes

    shown, titles = [], []
    imshow, set_title = Axes.imshow, Axes.set_title
    monkeypatch.setattr(Axes, "imshow", lambda s, i, **k: shown.append(i) or imshow(s, i, **k))
    monkeypatch.setattr(
        Axes, "set_title", lambda s, t, **k: titles.append(t) or set_title(s, t, **k)
    )
    return shown, titles


def test_the_plot_shows_originals_reduced_and_names_that_differ(tmp_path, drawn):
    """The names have the same start and end; the images are stored as squares of 24 px."""
    rng = np.random.default_rng(0)
    names = [f"holiday photos of 2021/IMG_{i}_edited-final version.png" for i in range(3)]
    for name, (width, height) in zip(names, [(600, 300), (200, 500), (300, 300)], strict=True):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        (tmp_path / name).parent.mkdir(exist_ok=True)
        coarse.resize((width, height), Image.Resampling.NEAREST).save(tmp_path / name)
    embedded = _embedded(open_source(f"folder:{tmp_path}", "train", storage_size=24))
    query = resolve_query(str(tmp_path / names[0]), embedded.source, 24)
    plot_neighbors(
        embedded, query, nearest_neighbors(embedded, query, EXTRACT, 3), tmp_path / "n.png"
    )
    shown, titles = drawn
    order = [title.replace("\n", "")[-len(names[0]) :] for title in titles]
    assert sorted(order[1:]) == names and titles[0].replace("\n", "").endswith(
        names[0].rpartition("/")[2]
    )
    shapes = dict(zip(order[1:], (image.shape for image in shown[1:]), strict=True))
    assert [shapes[name] for name in names] == [(128, 256, 3), (256, 102, 3), (256, 256, 3)]
    assert shown[0].shape == (128, 256, 3)
    # Edges are as sharp as in the original: hardly any pixel is a mixture of its colors.
    original = Image.open(tmp_path / names[2]).resize((256, 256), Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(original, float) - shown[1 + order[1:].index(names[2])])
    assert difference.mean() < 1


def test_the_plot_has_the_right_caption_at_each_image(tmp_path, drawn):
    embedded = random_dataset(30)
    shown, titles = drawn
    found = nearest_neighbors(embedded, Query("29", 29), EXTRACT, 5)
    plot_neighbors(embedded, Query("29", 29), found, tmp_path / "nearest.png")
    positions = [29, *(n.position for n in found)]
    np.testing.assert_array_equal(shown, embedded.source.images[positions])
    assert titles[0] == "query\n29"
    for title, neighbor in zip(titles[1:], found, strict=True):
        assert title.splitlines()[0] == f"{neighbor.similarity:.4f}"
        assert title.splitlines()[-1] == neighbor.id
