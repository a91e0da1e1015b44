"""k-NN against a slow transcription of Wu et al. 2018 §3.4 and against scikit-learn."""

import math
import tracemalloc

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.knn import KNN, default_k, knn_predict, nearest_neighbors
from simclr_tf.evaluation.protocols import ProtocolInputs


def _data(num_train=70, num_test=23, dims=6, num_classes=7, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_classes, dims))
    train_labels, test_labels = (rng.integers(0, num_classes, n) for n in (num_train, num_test))
    scale = rng.uniform(0.1, 10, size=(num_train, 1))  # cosine must not see it
    train = scale * (centers[train_labels] + rng.normal(size=(num_train, dims)))
    test = centers[test_labels] + rng.normal(size=(num_test, dims))
    return train.astype(np.float32), train_labels, test.astype(np.float32), num_classes


def _slow_knn(train, labels, test, num_classes, k, temperature):
    ranked = []
    for query in test.astype(np.float64):
        similarities = []
        for item in train.astype(np.float64):
            norms = math.sqrt(sum(query**2)) * math.sqrt(sum(item**2))
            similarities.append(sum(query * item) / norms)
        nearest = sorted(range(len(train)), key=lambda i: -similarities[i])[:k]
        votes = [0.0] * num_classes
        for i in nearest:
            votes[labels[i]] += math.exp(similarities[i] / temperature)
        ranked.append(sorted(range(num_classes), key=lambda c: -votes[c])[:5])
    return np.array(ranked)


@pytest.mark.parametrize("num_classes", [3, 7])
@pytest.mark.parametrize("temperature", [0.02, 1.0])
@pytest.mark.parametrize("k", [1, 5, 70])
def test_predictions_equal_a_slow_transcription(k, temperature, num_classes):
    train, labels, test, _ = _data(num_classes=num_classes)
    fast = knn_predict(train, labels, test, num_classes, k, temperature)
    np.testing.assert_array_equal(fast, _slow_knn(train, labels, test, num_classes, k, temperature))
    assert fast.dtype == np.int64


def test_predictions_equal_scikit_learn():
    train, labels, test, num_classes = _data(num_train=400, num_test=90, seed=1)
    oracle = KNeighborsClassifier(
        30, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.1)
    ).fit(train, labels)
    votes = oracle.predict_proba(test)
    expected = np.argsort(-votes, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(knn_predict(train, labels, test, num_classes, 30, 0.1), expected)


@pytest.mark.parametrize("k", [1, 10, 70])
def test_neighbors_do_not_depend_on_blocks(k):
    train, _, test, _ = _data()
    train[40] = 2 * train[5]  # equally near, in another block: the first row wins
    similarity, nearest = nearest_neighbors(train, test, k)
    # 23 test items in blocks of 5, 70 training items in blocks of 16.
    blocked_similarity, blocked = nearest_neighbors(
        train, test, k, query_block=5, block_elements=16 * 6
    )
    np.testing.assert_array_equal(blocked, nearest)
    np.testing.assert_allclose(blocked_similarity, similarity, atol=1e-6)
    order = [list(row) for row in nearest]
    assert all(row.index(5) < row.index(40) for row in order if 5 in row and 40 in row)


def test_memory_mapped_bank_is_not_copied_whole(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "bank.npy", rng.normal(size=(20_000, 64)).astype(np.float32))
    bank = np.load(tmp_path / "bank.npy", mmap_mode="r")
    queries = np.array(bank[:50])
    tracemalloc.start()
    _, nearest = nearest_neighbors(bank, queries, 3, block_elements=2**18)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(nearest[:, 0]) == list(range(50))
    assert peak < bank.nbytes / 2


def test_protocol_predicts_for_every_pair_of_settings():
    train, labels, test, num_classes = _data()
    inputs = _inputs(train, labels, test, num_classes)
    predictions = KNN(k=(3, 20), temperature=(0.05, 1.0)).predict(inputs)
    pairs = [(3, 0.05), (3, 1), (20, 0.05), (20, 1)]
    for prediction, (k, t) in zip(predictions, pairs, strict=True):
        assert prediction.setting == f"k={k}, T={t}"
        ranked = np.argsort(-prediction.scores, axis=1, kind="stable")[:, :5]
        np.testing.assert_array_equal(ranked, _slow_knn(train, labels, test, num_classes, k, t))


def _inputs(train, labels, test, num_classes):
    return ProtocolInputs(
        Features(train, labels), Features(test, np.zeros(len(test), int)), num_classes
    )


def _unbalanced(sizes=(250, 20, 12)):
    """Classes of different sizes in different directions, and a query in each."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    directions = 1 + np.eye(len(sizes))
    train = directions[labels] + rng.normal(scale=0.05, size=(len(labels), len(sizes)))
    return train.astype(np.float32), labels, directions.astype(np.float32), len(sizes)


def test_default_k_lets_small_classes_be_predicted():
    inputs = _inputs(*_unbalanced())
    (by_200,), (by_default,) = KNN((200,)).predict(inputs), KNN().predict(inputs)
    assert list(by_200.scores.argmax(axis=1)) == [0, 0, 0]
    assert by_200.warning.startswith("--knn_k=200: the smallest class has 12 training images")
    assert list(by_default.scores.argmax(axis=1)) == [0, 1, 2]
    assert by_default.setting == "k=12, T=0.1"
    assert by_default.warning == (
        "k-NN uses k=12 instead of 200, because the smallest class has 12 training images; "
        "see --knn_k"
    )


@pytest.mark.parametrize(
    ("sizes", "k"), [((300, 400), 200), ((300, 0, 40), 40), ((300, 1), 5), ((1, 1), 2)]
)
def test_default_k_is_the_size_of_the_smallest_class_within_limits(sizes, k):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    assert default_k(labels) == k
    assert default_k(np.eye(len(sizes), dtype=int)[labels]) == k
    assert default_k(np.append(labels, [-1] * 300)) == k  # without a label
    KNN().check(num_train=len(labels))  # whatever it is


def test_several_labels_each_get_the_vote_of_a_neighbor():
    train, labels, test, num_classes = _data()
    others = np.roll(labels, 1)

    def scores(labels):
        (prediction,) = KNN(k=(10,)).predict(_inputs(train, labels, test, num_classes))
        return prediction.scores

    each = np.eye(num_classes, dtype=np.int64)
    both = scores(np.concatenate([each[labels], each[others]], axis=1))
    np.testing.assert_allclose(both, np.hstack([scores(labels), scores(others)]), rtol=1e-5)


def test_low_temperature_predicts_the_nearest_neighbor():
    # exp(1 / 0.005) overflows float32.
    train, labels, test, num_classes = _data()
    nearest = knn_predict(train, labels, test, num_classes, 1)
    voted = knn_predict(train, labels, test, num_classes, 50, 0.005)
    assert (nearest[:, 0] == voted[:, 0]).mean() > 0.9
    assert (knn_predict(train, labels, train, num_classes, 50, 1e-4)[:, 0] == labels).all()


@pytest.mark.parametrize(
    ("protocol", "flag"),
    [
        (KNN(k=(5, 11)), "--knn_k=11"),
        (KNN(k=(0,)), "--knn_k=0"),
        (KNN(k=(5,), temperature=(0.1, 0.0)), "--knn_temperature"),
        (KNN(k=(5,), temperature=(math.nan,)), "--knn_temperature"),
    ],
)
def test_check_refuses_k_and_temperature_out_of_range(protocol, flag):
    with pytest.raises(UserError, match=flag):
        protocol.check(num_train=10)
    KNN(k=(10,)).check(num_train=10)


def test_more_neighbors_than_items_are_refused():
    train, labels, test, num_classes = _data()
    with pytest.raises(ValueError, match="k=71"):
        knn_predict(train, labels, test, num_classes, 71)
