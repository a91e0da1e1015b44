"""Contents of reports against slow transcriptions and planted cases."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simclr_tf.augment import eval_transform, view_seed
from simclr_tf.config import TrainingPlan
from simclr_tf.data import open_source
from simclr_tf.data.base import ArraySource
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset
from simclr_tf.evaluation.load_encoder import FrozenEncoder
from simclr_tf.models.build import build_model
from simclr_tf.reporting.comparison import result_tables
from simclr_tf.reporting.duplicates import find_duplicates
from simclr_tf.reporting.embedded_split import EmbeddedSplit, embed_split, sprite_uri
from simclr_tf.reporting.image_sections import (
    find_nearest_neighbors,
    score_positive_pairs,
)
from simclr_tf.reporting.plots import make_embedding_map, plot_run_curves
from simclr_tf.reporting.result_sections import class_report_from_knn, headline
from simclr_tf.reporting.run_info import RunInfo
from simclr_tf.runs.run_dir import RunDir
from tests.embedded_datasets import random_dataset as random_rows
from tests.embedded_datasets import random_images
from tests.reporting.tiny_runs import tiny

INFO = RunInfo(
    RunDir(Path("run")), tiny("shapes"), TrainingPlan(120, 10, 3, 0, 15.0, 0.1), (), (), 3, ()
)


def embedded_split(split="train", **settings) -> EmbeddedSplit:
    rows = random_rows(**settings)
    return EmbeddedSplit(rows, split, len(rows))


def _cosines(a, b):
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return a.astype(np.float64) @ b.T


@pytest.mark.parametrize("apart", [True, False])
def test_neighbors_equal_a_search_one_by_one(apart):
    names = [f"{i}.png" for i in range(40)]
    bank = embedded_split(names=names, size=24)
    query_split = embedded_split("test", names=names, size=24, count=20) if apart else None
    asked = query_split or bank
    queries = asked.evenly_spaced_sample(8)
    pixels = [
        np.stack([eval_transform(side.rows.source.images[[i]], 16)[0] for i in range(len(side))])
        for side in (bank, asked)
    ]
    distances = np.sqrt(((pixels[1][queries, None] - pixels[0][None]) ** 2).sum(axis=(2, 3, 4)))
    cosines = _cosines(asked.rows.features[queries], bank.rows.features)
    if not apart:  # no image is its own neighbor
        distances[np.arange(8), queries] = np.inf
        cosines[np.arange(8), queries] = -np.inf
    found = find_nearest_neighbors(bank, query_split, 16)
    assert [near["query"]["name"] for near in found] == [f"{i}.png" for i in queries]
    for near, by_pixels, by_cosine in zip(found, distances, cosines, strict=True):
        expected = np.argsort(by_pixels)[:6]
        assert [p["name"] for p in near["by_pixels"]] == [f"{i}.png" for i in expected]
        assert near["by_pixels"][0]["value"] == f"distance {by_pixels[expected[0]]:.2f}"
        expected = np.argsort(-by_cosine)[:6]
        assert [p["name"] for p in near["by_features"]] == [f"{i}.png" for i in expected]
        assert near["by_features"][0]["value"] == f"cosine {by_cosine[expected[0]]:.3f}"
        for picture in near["by_features"]:
            known = near["query"]["group"] and picture["group"]
            assert picture["same_class"] == (
                picture["group"] == near["query"]["group"] if known else None
            )


def test_planted_duplicates_are_found_within_and_across_splits():
    train, test = embedded_split(count=30), embedded_split("test", count=20)
    images = train.rows.source.images
    half = np.tile([[1], [0]], (16, 1)).astype(np.uint8)[..., np.newaxis]  # of the rows
    images[9] = images[4] ^ half  # nearly the same pixels: not a copy
    train.rows.features[9] = 2 * train.rows.features[4]  # the same direction
    test.rows.source.images[3] = images[7] ^ half
    test.rows.features[3] = train.rows.features[7]
    # The two sets were drawn alike: the rest of one is made anew.
    draw, others = np.random.default_rng(1), [i for i in range(20) if i != 3]
    test.rows.features[others] = draw.normal(size=(19, 6))
    test.rows.source.images[others] = draw.integers(0, 256, (19, 32, 32, 3), np.uint8)
    found = find_duplicates([train, test], 32)
    notes = {pair["names"]: pair["note"] for pair in found["pairs"][:2]}
    assert notes == {("4", "9"): "", ("7", "3"): "in both splits"}
    assert found["same"] == 2
    assert found["pairs"][0]["value"] == "cosine 1.0000, pixels differ by 0.5 of 255"
    assert found["images"] == "30 images of train and 20 images of test"
    assert found["copies"] == [] and found["num_copies"] == 0


def test_exact_copies_are_grouped_before_near_duplicates(tmp_path):
    """Copies fill all twelve places of the near-duplicates unless they are left out."""
    images = random_images(60, 24)
    names = [f"{i}.png" for i in range(60)]
    for first in range(0, 39, 3):  # 13 groups of three
        images[first + 1 : first + 3] = images[first]
    images[50] = images[49] ^ 2
    source = ArraySource("a", images, image_ids=lambda chosen: [names[i] for i in chosen])
    pixels = images.reshape(60, -1).astype(np.float32) - 128
    pixels[50] = pixels[49] + np.random.default_rng(0).normal(size=pixels[49].shape)
    rows = EmbeddedDataset(source, pixels, np.full(60, -1))
    split = EmbeddedSplit(rows, "train", 60)
    found = find_duplicates([split, _one_image(images[3])], 24, tmp_path / "d.csv")
    assert (found["num_copies"], found["num_groups"]) == (27, 13)
    group = found["copies"][0]  # the largest
    assert group["names"] == ["3.png", "4.png", "5.png", "0"] and group["value"] == "4 copies"
    assert group["note"] == "in both splits" and found["copies"][1]["note"] == ""
    assert len(found["copies"]) == 12
    assert found["pairs"][0]["names"] == ("49.png", "50.png")
    text = (tmp_path / "d.csv").read_text(encoding="utf-8").splitlines()
    assert text[0] == "kind,cosine,pixel_difference,split_a,image_a,split_b,image_b"
    assert text[1:4] == [
        f"copy,1.0000,0.00,train,3.png,{name}" for name in ("train,4.png", "train,5.png", "test,0")
    ]
    assert sum(line.startswith("copy,") for line in text) == 27
    assert text[28].startswith("similar,0.99") and text[28].endswith("train,49.png,train,50.png")


def _one_image(image) -> EmbeddedSplit:
    pixels = image.reshape(1, -1).astype(np.float32) - 128
    source = ArraySource("b", image[np.newaxis])
    return EmbeddedSplit(EmbeddedDataset(source, pixels, np.array([-1])), "test", 1)


def test_pictures_are_reduced_originals_in_their_proportions(tmp_path):
    for i, (width, height) in enumerate([(400, 200), (100, 300), (300, 300)]):
        pixels = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    source = open_source(f"folder:{tmp_path}", "train", storage_size=16)
    rows = EmbeddedDataset(source, np.eye(3, dtype=np.float32), np.full(3, -1))
    pictures = EmbeddedSplit(rows, "train", 3).pictures(np.arange(3))
    shapes = dict(
        zip(source.image_ids(np.arange(3)), (p.shape for p in pictures.values()), strict=True)
    )
    assert shapes == {"0.png": (80, 160, 3), "1.png": (160, 53, 3), "2.png": (160, 160, 3)}


@pytest.mark.slow
def test_the_worst_positive_pairs_use_the_models_views():
    model = build_model(INFO.config, INFO.plan)
    rows = random_rows(count=40, size=24)
    found = score_positive_pairs(model, EmbeddedSplit(rows, "train", 40), 30, batch_size=15)
    positions = EmbeddedSplit(rows, "train", 40).evenly_spaced_sample(30)
    images = tf.constant(rows.source.images[positions])
    z = [
        model(policy(images, view_seed(model.seed, 0, view), 0, None), training=False).numpy()
        for view, policy in enumerate(model.policies)
    ]
    cosines = np.diag(_cosines(*z))
    order = np.argsort(cosines)[:12]
    assert [pair["names"] for pair in found["worst"]] == [(str(positions[i]),) for i in order]
    shown = [float(pair["value"].removeprefix("cosine ")) for pair in found["worst"]]
    np.testing.assert_allclose(shown, cosines[order], atol=1e-3)
    assert found["images"] == "30 of 40 images of train"
    positive, negative = found["plot"].table.rows
    assert positive[1] == negative[1] == 30
    assert float(positive[3]) == pytest.approx(np.median(cosines), abs=1e-3)


@pytest.mark.parametrize("apart", [True, False])
def test_classes_by_knn_equal_a_vote_one_by_one(apart):
    bank = embedded_split()
    query_split = embedded_split("test", count=20) if apart else None
    found = class_report_from_knn(bank, query_split)
    known = bank.rows.labels >= 0
    features, labels = bank.rows.features[known], bank.rows.labels[known]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)

    asked = query_split.rows if apart else bank.rows
    there = asked.labels >= 0
    truth, answers = asked.labels[there], []
    for i, query in enumerate(asked.features[there]):
        votes = np.zeros(3)
        cosines = unit @ (query / np.linalg.norm(query))
        if not apart:  # no image votes for itself
            cosines[i] = -np.inf
        for j in np.argsort(-cosines)[: np.bincount(labels).min()]:
            votes[labels[j]] += np.exp(cosines[j] / 0.1)
        answers.append(votes.argmax())
    right = np.mean(np.array(answers) == truth)
    assert found["source"].endswith(f"top-1 {right:.1%}")
    assert f"{len(truth)} images of " in found["source"]
    shares = [np.mean(np.array(answers)[truth == c] == c) for c in range(3)]
    assert [row[2] for row in found["per_class"].rows] == [f"{share:.1%}" for share in shares]
    assert class_report_from_knn(embedded_split(labeled=False), None) is None


def test_the_map_is_colored_by_class_or_by_cluster():
    by_class = make_embedding_map(embedded_split(), "tsne", 30)
    assert by_class["grouping"] == "class" and by_class["images"] == "30 of 40 images of train"
    assert [plot.name for plot in by_class["plots"]] == ["map-pca", "map-tsne"]
    for plot in by_class["plots"]:
        points = [i for trace in plot.drawing["data"] for i in trace["customdata"]]
        assert sorted(points) == list(range(30))
    assert {"ant", 'b,"ee"', r"cat\n"} <= set(by_class["points"]["groups"])
    # Three heaps far apart are three clusters, whatever else is asked for.
    draw = np.random.default_rng(0)
    heaps = np.repeat(np.eye(6, dtype=np.float32)[:3], 20, axis=0)
    heaps += draw.normal(scale=1e-3, size=heaps.shape).astype(np.float32)
    by_cluster = make_embedding_map(
        embedded_split(count=60, labeled=False, features=heaps), "pca", 60
    )
    groups = np.array(by_cluster["points"]["groups"])
    assert "clusters" in by_cluster["grouping"]
    assert not any(set(groups[20 * i : 20 * i + 20]) & set(groups[20 * i + 20 :]) for i in range(2))
    assert make_embedding_map(embedded_split(count=4, labeled=False), "pca", 10) is None


def test_the_map_of_collapsed_features_has_a_note():
    same = np.ones((30, 6), np.float32)
    (plot,) = make_embedding_map(embedded_split(count=30, features=same), "tsne", 30)["plots"]
    assert plot.title == "PCA (all features are the same: the representation has collapsed)"


@pytest.mark.slow
def test_umap_maps_if_it_is_installed():
    pytest.importorskip("umap")
    found = make_embedding_map(embedded_split(), "umap", 30)
    assert [plot.title for plot in found["plots"]][1] == "UMAP (15 neighbors)"


def test_a_sprite_stays_small():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (2000, 64, 64, 3), np.uint8)  # noise: as large as JPEG gets
    rows = EmbeddedDataset(
        ArraySource("noise", images), np.zeros((2000, 2), np.float32), np.full(2000, -1)
    )
    uri, columns = sprite_uri(rows, np.arange(2000))
    assert columns == 45 and len(uri) < 4_000_000


def test_a_large_split_is_sampled(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), np.uint8)
    source = ArraySource("noise", images)
    taken = []

    def encoder(batch, training):
        taken.append(batch.shape[0])
        return tf.reduce_mean(batch, axis=[1, 2])

    trained = FrozenEncoder(encoder, "mean", 16)
    part = embed_split(trained, source, "train", 20, tmp_path)
    assert str(part) == "20 of 50 images of train"
    names = [int(name) for name in part.rows.image_ids(np.arange(20))]
    assert names == sorted(set(names))
    expected = images[names].mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(part.rows.features, expected, atol=1e-5)
    # Once all features are there, those are taken.
    whole = embed_split(trained, source, "train", 50, tmp_path)
    assert str(whole) == "50 images of train"
    taken.clear()
    again = embed_split(trained, source, "train", 20, tmp_path)
    assert not taken
    np.testing.assert_array_equal(again.rows.features, whole.rows.features[names])


def test_a_long_curve_shows_means():
    values = np.random.default_rng(0).normal(size=6000)
    rows = [{"step": 50 * i, "epoch": i / 6, "loss": x} for i, x in enumerate(values, 1)]
    (plot,) = plot_run_curves(rows)
    (line,) = plot.drawing["data"]
    np.testing.assert_allclose(line["y"], values.reshape(500, 12).mean(axis=1), rtol=1e-4)
    assert line["customdata"] == list(range(600, 300_001, 600)) and line["x"][-1] == 1000
    (row,) = plot.table.rows
    assert row == ("loss", 6000, *(f"{values[i]:.4g}" for i in (0, -1)), *row[4:])
    assert row[4:] == (f"{values.min():.4g}", f"{values.max():.4g}")


def test_a_matrix_of_many_classes_stays_small():
    names = tuple(f"{i} {'a long name ' * 7}" for i in range(200))
    rows = random_rows(count=400, labeled=False)
    source = ArraySource("many", rows.source.images, np.arange(400) % 200, names)
    found = class_report_from_knn(
        EmbeddedSplit(EmbeddedDataset(source, rows.features, np.arange(400) % 200), "train", 400),
        None,
    )
    assert len(json.dumps(found["plot"].drawing)) < 1_000_000


def record(protocol, value, **about):
    defaults = {"protocol": protocol, "dataset": "shapes", "train_split": "train", "step": 3}
    defaults |= {"test_split": "test", "num_train": 64, "num_test": 32, "seconds": 1.0}
    return {**defaults, "top1": value, **about}


def cards(records, rows=()):
    found = headline(dataclasses.replace(INFO, records=records, rows=rows))
    return found["cards"], found


def test_the_headline_shows_the_encoders_best_result_on_its_dataset():
    records = [record("knn", 0.8), record("knn/pca", 0.9), record("logistic", 0.7)]
    records += [record("probe:rotation", 0.99), record("logistic", 0.95, dataset="cifar10")]
    (card,), found = cards(records)
    assert card == ("80.0 %", "knn, top-1", "pca 90.0; shapes, step 3")
    # The picture has no probes, and so a table has all.
    assert [title.split(",")[0] for title, _ in found["tables"]] == ["shapes", "cifar10"]
    # A newer evaluation of the same data and step counts, whatever came between.
    records += [record("logistic", 0.2, step=2), record("logistic", 0.85)]
    (card,), _ = cards(records)
    assert card[:2] == ("85.0 %", "logistic, top-1")
    (card,), _ = cards([records[4]])
    assert card == ("95.0 %", "logistic, top-1", "cifar10, step 3")
    # Baselines and probes alone have no card, but are shown.
    for alone in ("knn/pca", "probe:rotation"):
        none, found = cards([record(alone, 0.4)])
        assert none == [] and (found["plot"] or found["tables"])


def test_a_probe_that_was_not_due_in_the_last_row_is_shown_with_its_step():
    rows = [{"step": 1, "epoch": 0.1, "loss": 2.0, "knn_top1": 0.3}]
    rows += [{"step": 2, "epoch": 0.2, "loss": 1.5, "knn_top1": float("nan")}]
    found, _ = cards([], rows)
    assert found == [
        ("30.0 %", "k-NN during training", "shapes test[:60], step 1"),
        ("1.500", "loss", "step 2"),
    ]


def test_results_with_fewer_labels_have_their_own_row():
    many = dataclasses.replace(INFO, records=[record("logistic", 0.9), record("knn", 0.5)])
    probe = record("probe:rotation", 0.9)
    few = dataclasses.replace(INFO, records=[record("logistic", 0.3, num_train=10), probe])
    ((_, table),), (plot,) = result_tables({"many": many, "few": few})
    assert plot.drawing["data"][0]["y"] == [row[0] for row in table.rows[:-1]]  # not the probe
    assert table.rows == [
        ("logistic (L-BFGS)", "90.0", "–"),
        ("k-NN", "50.0", "–"),
        ("logistic (L-BFGS), 10 labels", "–", "30.0"),
        ("probe:rotation", "–", "90.0"),
    ]


def test_related_metrics_share_a_plot():
    row = {"step": 1, "epoch": 0.5, "loss": 2.0, "knn_top1": 0.5, "linear_probe_top1": 0.4}
    titles = [plot.title for plot in plot_run_curves([row], "shapes test")]
    assert titles == ["Loss", "Probes of the encoder: shapes test"]
