"""TensorBoard images of nearest neighbors and similarities, from known features."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics.pairwise import cosine_similarity

from simclr_tf.data.base import ArraySource
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset
from simclr_tf.training.image_summaries import EmbeddingSummaries, neighbor_grid, similarity_matrix

BLUE, ORANGE = (0, 114, 178), (230, 159, 0)
RNG = np.random.default_rng(0)


def make_rows(count=40, size=32, labels=None, features=None) -> EmbeddedDataset:
    """An embedded dataset of images of one color each."""
    colors = RNG.integers(0, 256, (count, 1, 1, 3), np.uint8)
    images = np.broadcast_to(colors, (count, size, size, 3)).copy()
    names = None if labels is None else ("ant", "bee", "cat")
    source = ArraySource("made", images, labels, names)
    features = RNG.normal(size=(count, 6)).astype(np.float32) if features is None else features
    return EmbeddedDataset(source, features, np.full(count, -1) if labels is None else labels)


def tiles(grid, columns):
    """The middle pixel and the frame's of every tile."""
    side = grid.shape[1] // columns
    lines = grid.reshape(-1, side, columns, side, 3).swapaxes(1, 2)
    return lines[:, :, side // 2, side // 2], lines[:, :, side // 2, 4]


@pytest.mark.parametrize("size", [16, 32, 100])
def test_grid_row_is_an_image_and_its_nearest_neighbors(size):
    labels = RNG.integers(0, 3, 40)
    labels[7] = -1
    rows = make_rows(size=size, labels=labels)
    shown, frames = tiles(neighbor_grid(rows), 9)
    assert shown.shape == (10, 9, 3)
    colors = rows.source.images[:, 0, 0]
    cosines = cosine_similarity(rows.features)
    queries = [int(np.flatnonzero((colors == pixel).all(1))[0]) for pixel in shown[:, 0]]
    assert queries == sorted(set(queries))
    for query, line, frame in zip(queries, shown, frames, strict=True):
        order = [i for i in np.argsort(-cosines[query]) if i != query][:8]
        np.testing.assert_array_equal(line[1:], colors[order])
        for place, other in enumerate(order, 1):
            known = labels[query] >= 0 and labels[other] >= 0
            same = BLUE if labels[query] == labels[other] else ORANGE
            assert tuple(frame[place]) == (same if known else (255, 255, 255))
        assert tuple(frame[0]) == (255, 255, 255)


def test_grid_contains_duplicates_but_not_the_query_itself():
    rows = make_rows(5, features=np.array([[1, 0]] * 3 + [[0, 1]] * 2, np.float32))
    shown, frames = tiles(neighbor_grid(rows), 5)  # itself and the four others
    assert len(shown) == 5 and (frames == 255).all()  # no labels
    for line in shown:
        assert len({tuple(pixel) for pixel in line}) == 5


class Known:
    """A model whose views are the images and whose features are their mean colors."""

    views_per_image = 2

    def encoder(self, images, training):
        assert not training
        return tf.reduce_mean(images, axis=[1, 2])

    def make_views(self, batch, step, offset):
        images = tf.cast(batch["image"], tf.float32) / 255.0
        return tf.concat([images, 1.0 - images], axis=0)  # the second view is the negative


def test_similarity_matrix_is_of_first_and_last_views_sorted_by_class():
    labels = RNG.permuted(np.arange(20) % 3)
    rows = make_rows(20, labels=labels)
    found = similarity_matrix(Known(), rows)
    colors = rows.source.images[:, 0, 0] / 255.0
    order = np.argsort(labels, kind="stable")
    wanted = cosine_similarity(colors[order], 1 - colors[order])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_sample_is_evenly_spaced_and_limited(tmp_path):
    source = make_rows(120).source
    make = EmbeddingSummaries(source, 16, tmp_path, max_images=12)
    found = make(Known())
    assert set(found) == {"nearest_neighbours", "similarity_matrix"}
    assert all(p.dtype == np.uint8 and p.shape[-1] == 3 for p in found.values())
    index = [int(line.split("\t")[0]) for line in metadata(tmp_path)]
    assert len(index) == 12 and all(10 * i <= n < 10 * (i + 1) for i, n in enumerate(index))
    assert "projector" not in {place.name for place in tmp_path.iterdir()}
    # Large images are fewer, and one alone has no neighbours.
    one = EmbeddingSummaries(source, 16, tmp_path, max_bytes=1, matrix_size=1)
    assert set(one(Known())) == {"similarity_matrix"}
    assert len(metadata(tmp_path)) == 1


def metadata(path):
    return (path / "metadata.tsv").read_text(encoding="utf-8").splitlines()[1:]
