"""`shapes`: the same bytes everywhere, balanced, and not separable by pixels."""

import hashlib

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from simclr_tf.data import open_source, sequential_batches
from simclr_tf.data.shapes import CLASS_NAMES, SPLITS, render_split
from simclr_tf.errors import UserError


def test_shapes_image_depends_on_split_and_index_alone():
    images, labels = render_split("train", 600)
    fewer, fewer_labels = render_split("train", 37)
    np.testing.assert_array_equal(fewer, images[:37])
    np.testing.assert_array_equal(fewer_labels, labels[:37])
    test_images, _ = render_split("test", 37)
    assert (test_images != images[:37]).any(axis=(1, 2, 3)).all()


def test_shapes_bytes_are_the_same_on_every_machine():
    digests = [
        hashlib.sha256(render_split(split, 200)[0].tobytes()).hexdigest() for split in SPLITS
    ]
    assert digests == [
        "1168d38eecf7e87bd98e7ad01d735f70533d3a9205485488d95a33ca48db2764",
        "038ff7c71e87c58d717df1efead442adeddcf01c00dff0b9ead13eeae3fb2d89",
    ]


def test_shapes_splits_are_balanced_and_sliced_like_tfds():
    train, test = open_source("shapes", "train"), open_source("shapes", "test")
    assert (train.num_examples, test.num_examples) == (10_000, 2_000)
    assert train.image_shape == (32, 32, 3)
    assert train.class_names == test.class_names == CLASS_NAMES
    assert len(set(CLASS_NAMES)) == 10
    (batch,) = sequential_batches(test, 2_000)
    assert (np.bincount(batch["label"]) == 200).all()
    images, _ = render_split("test", 2_000)
    np.testing.assert_array_equal(batch["image"], images)

    mixed = open_source("shapes", "test[:10]+train[590:600]")
    (batch,) = sequential_batches(mixed, 64)
    np.testing.assert_array_equal(batch["image"][:10], images[:10])
    np.testing.assert_array_equal(batch["image"][10:], render_split("train", 600)[0][590:])
    assert open_source("shapes", "train[:90%]").num_examples == 9_000


@pytest.mark.parametrize("split", ["validation", "train[:120%]", "train[", "all[:5]", "test[7:7]"])
def test_shapes_errors_name_the_existing_splits(split):
    with pytest.raises(UserError, match=r"train \(10,000\), test \(2,000\)"):
        open_source("shapes", split)


def knn_accuracy(train, labels, test, test_labels, k) -> float:
    knn = KNeighborsClassifier(k, weights=lambda d: np.exp((1 - d) / 0.1), metric="cosine")
    return knn.fit(train, labels).score(test, test_labels)


@pytest.mark.slow
def test_shapes_classes_are_not_separable_by_pixels():
    train, labels = render_split("train", 3_000)
    test, test_labels = render_split("test", 1_000)
    train, test = (x.reshape(len(x), -1).astype(np.float32) / 255 for x in (train, test))
    pca = PCA(256, svd_solver="randomized", iterated_power=2, random_state=0).fit(train)
    train, test = pca.transform(train), pca.transform(test)
    assert knn_accuracy(train, labels, test, test_labels, k=200) < 0.35
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    logistic = LogisticRegression(max_iter=50, tol=1e-2)
    logistic.fit((train - mean) / deviation, labels)
    assert logistic.score((test - mean) / deviation, test_labels) < 0.3


def radial_profiles(images: np.ndarray) -> np.ndarray:
    """Distributions of the shapes around their centers, whatever color, place, size and angle."""
    images = images.astype(np.float32) / 255
    edges = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    background = np.median(np.concatenate(edges, axis=1), axis=1)[:, None, None]
    distance = np.abs(images - background).sum(axis=-1)
    masks = distance > 0.5 * np.quantile(distance, 0.98, axis=(1, 2), keepdims=True)
    y, x = np.mgrid[:32, :32]
    profiles = []
    for mask in masks:
        dy, dx = y - y[mask].mean(), x - x[mask].mean()
        ring = np.minimum(10 * np.hypot(dy, dx) / np.sqrt(mask.sum()), 11).astype(int)
        angle = np.floor((np.arctan2(dy, dx) + np.pi) / (2 * np.pi) * 24).astype(int) % 24
        inside, count = np.zeros((12, 24)), np.zeros((12, 24))
        np.add.at(inside, (ring, angle), mask)
        np.add.at(count, (ring, angle), 1)
        polar = inside / np.maximum(count, 1)
        profiles.append(np.abs(np.fft.rfft(polar, axis=1))[:, :8].ravel())
    return np.stack(profiles)


def test_shapes_classes_are_separable_by_outline():
    train, labels = render_split("train", 1_000)
    test, test_labels = render_split("test", 300)
    train, test = radial_profiles(train), radial_profiles(test)
    assert knn_accuracy(train, labels, test, test_labels, k=20) > 0.9
