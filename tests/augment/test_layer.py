"""The Keras layer: reproducible views, evaluation images, `fit`, tf.data, tf.function."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.augment import SimCLRAugment, SimCLRAugmentation, eval_transform, view_seed
from tests.augment.conftest import functions_run

# Crop and flip alone compile fast.
CROP = {"color_jitter_strength": 0.0, "use_blur": False, "grayscale": False}
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 20, 16, 3), np.uint8)


@pytest.mark.usefixtures("eagerly")
def test_layer_makes_the_views_of_successive_steps():
    layer, augment = SimCLRAugmentation(12, seed=5), SimCLRAugment(12)
    for step, view in ((0, 0), (0, 1), (1, 0)):
        expected = augment(IMAGES, view_seed(5, step, view))
        np.testing.assert_allclose(layer(IMAGES), expected, atol=1e-6)


@pytest.mark.usefixtures("eagerly")
def test_layer_without_training_applies_the_evaluation_transform():
    layer = SimCLRAugmentation(12)
    first = SimCLRAugmentation(12)(IMAGES)
    expected = eval_transform(IMAGES, 12)
    np.testing.assert_array_equal(layer(IMAGES, training=False), expected)
    np.testing.assert_array_equal(layer(IMAGES, training=tf.constant(False)), expected)
    # These calls did not advance the sequence of views.
    views = layer(IMAGES / np.float32(255), training=tf.constant(True))
    np.testing.assert_allclose(views, first, atol=1e-5)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_layer_returns_float32_views(policy):
    layer = SimCLRAugmentation(8, dtype=keras.mixed_precision.Policy(policy))
    assert layer(IMAGES / np.float32(255)).dtype == tf.float32


@pytest.mark.usefixtures("eagerly")
def test_layer_is_rebuilt_from_its_config():
    chances = {f"{name}_probability": 0.3 for name in ("jitter", "grayscale", "blur", "solarize")}
    assert SimCLRAugmentation(9, **chances).get_config().items() >= chances.items()
    layer = SimCLRAugmentation(
        9, 0.5, use_blur=False, brightness="v1", crop_area=(0.2, 0.9), flip="alternating", seed=3
    )
    again = SimCLRAugmentation.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(again(IMAGES), layer(IMAGES))


@pytest.mark.parametrize("in_graph", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_layer_trains_in_a_saved_and_loaded_model(tmp_path, in_graph, request):
    """With batches of unknown size, the last of which is smaller."""
    if not in_graph:
        request.getfixturevalue("eagerly")
    inputs = keras.Input((20, 16, 3), dtype="uint8")
    layer = SimCLRAugmentation(8, seed=1, **CROP)
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(layer(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    model.fit(IMAGES, np.zeros(6), batch_size=4, epochs=2, verbose=0)
    assert int(layer.variables[0]) == 4
    assert model.predict(IMAGES, batch_size=4, verbose=0).shape == (6, 1)
    assert int(layer.variables[0]) == 4
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0)
    )
    with functions_run(eagerly=True):  # the fifth call
        np.testing.assert_array_equal(loaded.layers[1](IMAGES), layer(IMAGES))


def test_layer_maps_a_dataset():
    layer = SimCLRAugmentation(8, **CROP)
    with functions_run(eagerly=True):
        expected = [layer(IMAGES).numpy() for _ in range(3)]
    mapped = SimCLRAugmentation(8, **CROP)
    dataset = tf.data.Dataset.from_tensor_slices(IMAGES).repeat(3).batch(6).map(mapped)
    np.testing.assert_allclose(list(dataset), expected, atol=1e-6)


@pytest.mark.slow
def test_layer_gives_replicas_the_views_of_one_device():
    expected = SimCLRAugmentation(8, **CROP)(IMAGES)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        layer = SimCLRAugmentation(8, **CROP)

    @tf.function
    def step(images):
        return strategy.run(layer, [images])

    halves = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(IMAGES, 2)[context.replica_id_in_sync_group])
    )
    views = tf.concat(strategy.experimental_local_results(step(halves)), 0)
    np.testing.assert_allclose(views, expected, atol=1e-6)


def test_layer_refuses_wrong_arguments():
    with pytest.raises(ValueError, match="image_size"):
        SimCLRAugmentation(0)
