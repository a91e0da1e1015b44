"""SimCLR's training step: alone, on replicas, with the concurrent linear head."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf import losses, optimizers
from simclr_tf.augment import SimCLRAugment, SimCLRAugmentation
from simclr_tf.models import ProjectionHead, SimCLR
from simclr_tf.models.simclr import collapse_metrics
from tests.models.tiny_simclr import (
    BATCH,
    CLASSES,
    RATE,
    assert_equal,
    batches,
    build,
    dimmed,
    first_steps,
    train,
    train_and_probe,
)
from tests.optional import needs

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("replicas", "optimizer", "linear"),
    [
        (2, "momentum", True),  # LARS would hide a gradient that is R times too large
        pytest.param(2, "lars", True, marks=SLOW),
        pytest.param(4, "lars", False, marks=SLOW),
        pytest.param(4, "momentum", True, marks=SLOW),
        pytest.param(2, "muon", True, marks=SLOW),
        pytest.param(4, "muon", True, marks=SLOW),
        pytest.param(2, "lamb", True, marks=[SLOW, needs("tensorflow_addons")]),
    ],
)
def test_replicas_train_as_one_device(mirrored, replicas, optimizer, linear):
    found = train_and_probe(optimizer, linear, mirrored(replicas))
    assert_equal(found, train_and_probe(optimizer, linear))


# Of the first gradient and of the loss of each step: rounding grows about tenfold a step. Numbers
# of bfloat16 have 8 bits, and each layer rounds to them.
TOLERANCES = {
    "float32": (1e-5, [1e-5, 1e-3, 1e-3]),
    "mixed_bfloat16": (2e-2, [1e-4, 3e-2]),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replicas", "optimizer", "policy"),
    [
        (2, "momentum", "float32"),
        (4, "lars", "float32"),
        (2, "lars", "mixed_bfloat16"),
    ],
)
def test_replicas_make_one_devices_views_and_steps(mirrored, replicas, optimizer, policy):
    rtol, each = TOLERANCES[policy]
    losses, velocities = first_steps(optimizer, policy, len(each), mirrored(replicas))
    wanted_losses, wanted = first_steps(optimizer, policy, len(each))
    for loss, wanted_loss, tolerance in zip(losses, wanted_losses, each, strict=True):
        np.testing.assert_allclose(loss, wanted_loss, rtol=tolerance)
    ours, theirs = (np.concatenate([v.ravel() for v in part]) for part in (velocities, wanted))
    assert np.linalg.norm(ours - theirs) < rtol * np.linalg.norm(theirs)


def test_custom_loss_function_is_used():
    seen = []

    def doubled(z_a, z_b, **settings):
        seen.append(settings)
        loss, *figures = losses.nt_xent(z_a, z_b, **settings)
        return 2.0 * loss, *figures

    ours, theirs = build(loss=doubled, linear=False), build(keras.optimizers.SGD(0.2), False)
    found, wanted = train(ours, 2), train(theirs, 2)
    assert seen[0] == {"temperature": 0.3, "normalize": True}
    assert found[1]["loss"] == pytest.approx(2.0 * wanted[1]["loss"], rel=1e-6)
    for one, other in zip(ours.trainable_variables, theirs.trainable_variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_loss_with_labels_gets_those_of_the_batch():
    model = build(loss=losses.supcon, linear=False)
    (batch,) = batches(1)
    z = model(model.make_views(batch, 0), training=True)
    expected, _, _ = losses.supcon(*tf.split(z, 2), batch["label"], temperature=0.3)
    assert float(model.train_step(batch)["loss"]) == pytest.approx(float(expected), rel=1e-6)
    with pytest.raises(ValueError, match="the contrastive loss needs labels"):
        model.train_step({"image": batch["image"]})


def test_the_linear_head_leaves_the_encoder_alone():
    # Plain SGD: an optimizer with a state of its own could hide a gradient, or share it.
    with_head, without = build(), build(linear=False)
    assert any((v.numpy() != 0).any() for v in with_head.linear_head.trainable_variables)
    before = [v.numpy() for v in with_head.linear_head.trainable_variables]
    train(with_head, 2)
    train(without, 2)
    for part in "encoder", "projection_head":
        for ours, theirs in zip(
            getattr(with_head, part).variables, getattr(without, part).variables, strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    for old, variable in zip(before, with_head.linear_head.trainable_variables, strict=True):
        assert (variable.numpy() != old).any()


@pytest.mark.parametrize(
    "name", ["lars", pytest.param("lamb", marks=[SLOW, needs("tensorflow_addons")])]
)
def test_the_linear_head_takes_neither_decay_nor_adaptation(name):
    plain = {
        "lars": keras.optimizers.SGD(RATE[name], momentum=0.9),
        # Its epsilon is added to the root before the bias correction, LAMB's after it.
        "lamb": keras.optimizers.Adam(RATE[name], epsilon=1e-6 * np.sqrt(1 - 0.999)),
    }
    model = build(optimizers.get(name, RATE[name], weight_decay=0.5))
    other = build(plain[name])
    train(model, 1)
    train(other, 1)
    for ours, theirs in zip(model.linear_head.variables, other.linear_head.variables, strict=True):
        # LAMB's moments are corrected in float32.
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-6 if name == "lamb" else 0)


def test_images_without_a_label_do_not_count_for_the_linear_head():
    model = build()
    (batch,) = batches(1)
    features = model.encoder(model.make_views(batch, 0), training=True)
    logits = model.linear_head(features).numpy()
    labels = np.tile(batch["label"], 2)
    known = labels >= 0
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    (found,) = train(model, 1)
    expected = -log_p[known, labels[known]].mean()
    np.testing.assert_allclose(found["linear_loss"], expected, rtol=1e-5)
    accuracy = (logits.argmax(axis=1) == labels)[known].mean()
    np.testing.assert_allclose(found["linear_accuracy"], accuracy, rtol=1e-6)

    # Nothing is learned, and nothing breaks, where no image has a label.
    before = model.linear_head.get_weights()
    figures = model.train_step({**batch, "label": tf.fill([BATCH], -1)})
    for old, new in zip(before, model.linear_head.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.isfinite(float(figures["linear_loss"]))


def test_regularization_of_the_encoder_is_part_of_the_loss():
    def encoder(factor):
        keras.utils.set_random_seed(2)
        layers = [
            keras.layers.Conv2D(
                4, 3, dtype="float64", kernel_regularizer=keras.regularizers.L2(factor)
            ),
            keras.layers.GlobalAveragePooling2D(dtype="float64"),
        ]
        return keras.Sequential([keras.Input((8, 8, 3), dtype="float64"), *layers])

    free, held = build(encoder=encoder(0.0)), build(encoder=encoder(0.25))
    start = free.encoder.get_weights()
    train(free, 1)
    train(held, 1)
    # SGD at 0.1: the gradient of 0.25·w² is 0.5·w.
    np.testing.assert_allclose(
        held.encoder.get_weights()[0],
        free.encoder.get_weights()[0] - 0.1 * 0.5 * start[0],
        rtol=1e-6,
    )


def test_views_follow_from_seed_step_and_view():
    model = build()
    (batch,) = batches(1)
    first, second = np.split(model.make_views(batch, 5), 2)
    assert (first != second).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(np.concatenate([first, second]), model.make_views(batch, 5))
    assert (first != np.split(model.make_views(batch, 6), 2)[0]).any()
    model.seed = 1
    assert (first != np.split(model.make_views(batch, 5), 2)[0]).any()


AUGMENT = SimCLRAugment(8, use_blur=False)  # one, to be compiled once


def small_model(**arguments):
    """A SimCLR as a user of Keras first writes it: nothing is built."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()]
    encoder = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    model = SimCLR(encoder, ProjectionHead(num_layers=2, out_dim=6), AUGMENT, **arguments)
    model.compile("adam")
    return model


IMAGES = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
LABELS = np.arange(9) % CLASSES


def dataset_of(*parts):
    rows = parts[0] if len(parts) == 1 else parts
    return tf.data.Dataset.from_tensor_slices(rows).batch(4, drop_remainder=True)


@pytest.mark.slow
def test_fit_takes_arrays_pairs_and_dicts_alike():
    """Same images in the same order: same weights, to the bit, whatever they are wrapped in."""
    settings = {"shuffle": False, "verbose": 0}

    def trained(linear, *args, **kwargs):
        head = keras.layers.Dense(CLASSES) if linear else None
        model = small_model(linear_head=head)
        model.run_eagerly = True
        history = model.fit(*args, **settings, **kwargs)
        return [*history.history["loss"], *model.get_weights()]

    unlabeled = trained(False, dataset_of({"image": IMAGES}))
    forms = [(IMAGES, None, 4), (tf.constant(IMAGES), None, 4), (dataset_of(IMAGES),)]
    for form in [*forms, (IMAGES, LABELS, 4)]:
        for found, expected in zip(trained(False, *form), unlabeled, strict=True):
            np.testing.assert_array_equal(found, expected)
    in_0_to_1 = trained(False, IMAGES / np.float32(255), None, 4)
    assert in_0_to_1[0] == pytest.approx(unlabeled[0], rel=1e-4)
    labeled = trained(True, dataset_of({"image": IMAGES, "label": LABELS}))
    column = LABELS[:, np.newaxis]  # as keras.datasets returns labels
    forms = [(IMAGES, LABELS, 4), (IMAGES, column, 4), (dataset_of(IMAGES, LABELS),)]
    for form in [*forms, (dataset_of({"image": IMAGES}, LABELS),)]:
        for found, expected in zip(trained(True, *form), labeled, strict=True):
            np.testing.assert_array_equal(found, expected)
    model = small_model()
    layer = SimCLRAugmentation(8, use_blur=False, seed=3)
    same = SimCLR(model.encoder, model.projection_head, layer)
    batch = {"image": tf.constant(IMAGES)}
    np.testing.assert_array_equal(same.make_views(batch, 1), model.make_views(batch, 1))
    shuffled = small_model()
    shuffled.run_eagerly = True
    shuffled.fit(IMAGES, batch_size=4, verbose=0)
    assert int(shuffled.step) == 2
    assert any((a != b).any() for a, b in zip(shuffled.get_weights(), unlabeled[1:], strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGES[0],), r"expected images \[N, H, W, 3\], got shape \(8, 8, 3\)"),
        ((IMAGES.astype(np.int32),), "expected uint8 or float images, got int32"),
        ((IMAGES.astype(np.float32),), r"in \[0, 1\], got values from 0 to 255. Fix: pass uint8"),
        ((IMAGES, None, 16), "got 9 images and batch_size=16. Fix: lower batch_size"),
        ((IMAGES, LABELS[:4], 4), r"expected one label per image \(9\), got 4"),
        ((IMAGES, None, 4), r"expected labels, got images only. Fix: fit\(images, labels\)"),
        ((IMAGES, np.eye(9)[:, :3], 4), r"expected class indices int \[B\] as labels, got float64"),
        ((tf.data.Dataset.from_tensor_slices(IMAGES).batch(4),), "drop_remainder=True"),
        ((dataset_of({"picture": IMAGES}),), "got the keys picture"),
    ],
)
def test_fit_explains_what_it_cannot_use(arguments, message):
    model = small_model(linear_head=keras.layers.Dense(CLASSES))
    with pytest.raises(ValueError, match=message):
        model.fit(*arguments, verbose=0)


def test_parts_that_cannot_be_built_are_explained():
    maps = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    with pytest.raises(ValueError, match=r"expected output of shape \[N, D\].* Fix: add GlobalAv"):
        SimCLR(maps, ProjectionHead(), dimmed)
    unknown = keras.Sequential([keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match=r"projection_head is not built, .* Fix: projection_head."):
        SimCLR(unknown, ProjectionHead(), dimmed)


def test_collapse_metrics_show_collapse():
    collapsed = collapse_metrics(*[np.ones((n, 3)) for n in (8, 4, 4)])
    for value in collapsed.values():
        np.testing.assert_allclose(value, 0.0, atol=1e-3)

    axes = np.eye(4)
    spread = collapse_metrics(np.concatenate([axes, -axes]), axes, -axes)
    np.testing.assert_allclose(spread["alignment"], 4.0, rtol=1e-6)
    np.testing.assert_allclose(spread["uniformity"], -4.0, rtol=1e-5)  # exp(-2·√2²)
    np.testing.assert_allclose(spread["feature_std"], 1.0, rtol=1e-6)

    alone = collapse_metrics(np.ones((2, 3)), np.ones((1, 3)), np.ones((1, 3)))
    assert float(alone["uniformity"]) == 0.0  # no pairs


def test_collapse_metrics_equal_a_slow_transcription():
    random = np.random.default_rng(0)
    features, z_a, z_b = (random.normal(size=(n, d)) for n, d in ((12, 5), (6, 4), (6, 4)))
    found = collapse_metrics(features, z_a, z_b)
    features, z_a, z_b = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, z_a, z_b)
    )
    apart = [
        np.exp(-2 * ((z_a[i] - z_a[j]) ** 2).sum()) for i in range(6) for j in range(6) if i != j
    ]
    np.testing.assert_allclose(found["uniformity"], np.log(np.mean(apart)), rtol=1e-5)
    distances = [((z_a[i] - z_b[i]) ** 2).sum() for i in range(6)]
    np.testing.assert_allclose(found["alignment"], np.mean(distances), rtol=1e-5)
    deviation = np.sqrt(np.mean(features.var(axis=0)) * 5)
    np.testing.assert_allclose(found["feature_std"], deviation, rtol=1e-5)
