"""The exported SavedModel: here, under hub, and in a process that never imports this package."""

import hashlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tensorflow.core.protobuf import saved_model_pb2

from simclr_tf.errors import UserError
from simclr_tf.evaluation.protocols import AffineClassifier
from simclr_tf.exporter import export_keras, export_saved_model
from simclr_tf.exporter.export_run import prune_old_exports
from simclr_tf.exporter.saved_model import WEIGHTS
from simclr_tf.models import ResNet, build_projection_head
from tests.export.tiny_encoder import FEATURES, IMAGES, SIZE, give_statistics, tiny_encoder


def _export(encoder, output, **changes):
    settings = {"image_size": SIZE, "model_card": "# card\n"} | changes
    return export_saved_model(encoder, output, **settings)


def _reload(encoder, output, **changes):
    return tf.saved_model.load(str(_export(encoder, output, **changes)))


@pytest.fixture(scope="module")
def resnet():
    return give_statistics(ResNet(18, 1 / 16, stem="cifar"), IMAGES)


@pytest.fixture(scope="module")
def head():
    return give_statistics(
        build_projection_head("nonlinear", 2, 6, input_dim=32), np.ones((2, 32), np.float32)
    )


@pytest.fixture(scope="module")
def exported(resnet, head, tmp_path_factory):
    return _export(resnet, tmp_path_factory.mktemp("export") / "7", projection_head=head)


@pytest.fixture(scope="module")
def loaded(exported):
    """The export, for tests that do not call it in training mode."""
    return tf.saved_model.load(str(exported))


def test_export_computes_the_features_in_both_modes(resnet, exported):
    loaded = tf.saved_model.load(str(exported))
    for batch in (IMAGES, IMAGES[:1], tf.constant(IMAGES[:3])):
        expected = resnet(batch, training=False).numpy()
        for found in (loaded(batch), loaded(batch, training=False), loaded(batch, False)):
            np.testing.assert_allclose(found, expected, atol=1e-5)
    copy = keras.models.clone_model(resnet)
    copy.set_weights(resnet.get_weights())
    np.testing.assert_allclose(loaded(IMAGES, True), copy(IMAGES, training=True), atol=1e-5)
    # The same batch moved the statistics of both by the same amount.
    for mine, theirs in zip(loaded.variables, copy.variables, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5, err_msg=mine.name)


def test_batch_statistics_change_only_in_training_mode(exported):
    loaded = tf.saved_model.load(str(exported))

    def statistics():
        return {v.name: v.numpy() for v in loaded.variables if "moving" in v.name}

    before = statistics()
    assert len(before) == 2 * (1 + 16 + 4)  # stem, blocks, projection shortcuts
    loaded(IMAGES)
    loaded(IMAGES, training=False)
    for signature in loaded.signatures.values():
        signature(images=tf.constant(IMAGES))
    for name, value in statistics().items():
        np.testing.assert_array_equal(value, before[name])
    loaded(IMAGES, training=True)
    assert all((value != before[name]).any() for name, value in statistics().items())


def test_export_lists_the_variables_of_the_encoder(resnet, loaded):
    assert [v.name for v in loaded.variables] == [v.name for v in resnet.variables]
    names = [v.name for v in loaded.trainable_variables]
    assert names == [v.name for v in resnet.trainable_variables]
    assert list(loaded.regularization_losses) == []
    assert {id(v) for v in loaded.trainable_variables} < {id(v) for v in loaded.variables}


def test_signatures_compute_every_output(resnet, head, loaded):
    assert set(loaded.signatures) == {"serving_default", "all_outputs"}
    images = tf.constant(IMAGES)
    features = resnet(images, training=False)
    served = loaded.signatures["serving_default"](images=images)
    assert list(served) == ["features"]
    np.testing.assert_allclose(served["features"], features, atol=1e-5)
    outputs = loaded.signatures["all_outputs"](images=images)
    groups = [f"block_group{k}" for k in (1, 2, 3, 4)]
    assert set(outputs) == {*groups, "features", "projection"}
    np.testing.assert_allclose(outputs["features"], features, atol=1e-5)
    np.testing.assert_allclose(outputs["projection"], head(features, training=False), atol=1e-5)
    for name in groups:
        endpoint = keras.Model(resnet.input, resnet.get_layer(name).output)
        np.testing.assert_allclose(outputs[name], endpoint(images, training=False), atol=1e-5)


def _operations(path):
    """Return the kinds of operation in all functions of a SavedModel."""
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    nodes = [*graph.node, *(n for function in graph.library.function for n in function.node_def)]
    return {node.op for node in nodes}


def test_export_contains_only_the_model_and_no_random_operation(resnet, head, exported):
    ops = _operations(exported)
    assert {"Conv2D", "FusedBatchNormV3", "AssignVariableOp"} <= ops  # every function was seen
    # In particular no host callback, collective or random operation.
    odd = re.compile("Random|Multinomial|Rng|Gamma|Poisson|Shuffle|PyFunc|Collective|Nccl")
    assert not [op for op in ops if odd.search(op)]
    stored = dict(tf.train.list_variables(str(exported / "variables" / "variables")))
    del stored["_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert len(stored) == len(resnet.variables) + len(head.variables)


CONSUMER = """
import sys
import numpy as np, tensorflow as tf, tensorflow_hub as hub, tf_keras as keras
resnet, tiny, keras_file, data = sys.argv[1:]
data = np.load(data)
images = data["images"]
np.testing.assert_allclose(tf.saved_model.load(resnet)(images), data["resnet"], atol=1e-5)
loaded = keras.models.load_model(keras_file)
np.testing.assert_allclose(loaded(images, training=False), data["resnet"], atol=1e-5)

layer = hub.KerasLayer(tiny, trainable=True)
model = keras.Sequential([keras.Input(images.shape[1:]), layer, keras.layers.Dense(2)])
np.testing.assert_allclose(layer(images), data["tiny"], atol=1e-5)
assert len(layer.trainable_variables) == 4 and len(layer.variables) == 6 and len(layer.losses) == 1
before = [v.numpy() for v in layer.variables]
model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(True))
model.fit(images, np.arange(len(images)) % 2, verbose=0)
moved = [(v.numpy() != old).any() for v, old in zip(layer.variables, before)]
assert all(moved), moved

assert not [m for m in sys.modules if m.split(".")[0] == "simclr_tf"]
print("consumed")
"""


@pytest.mark.slow
def test_exports_are_loaded_and_fine_tuned_without_this_package(resnet, exported, tmp_path):
    tiny = tiny_encoder()
    outputs = {"resnet": resnet(IMAGES, training=False), "tiny": tiny(IMAGES, training=False)}
    np.savez(tmp_path / "data.npz", images=IMAGES, **outputs)
    keras_file = export_keras(resnet, tmp_path / "encoder.keras", model_card="")
    paths = [exported, _export(tiny, tmp_path / "tiny"), keras_file, tmp_path / "data.npz"]
    done = subprocess.run(
        [sys.executable, "-c", CONSUMER, *map(str, paths)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("consumed\n"), done.stderr[-3000:]


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_export_of_any_precision_is_float32(dtype, tmp_path):
    encoder = tiny_encoder(dtype)
    plain = tiny_encoder()
    plain.set_weights(encoder.get_weights())
    loaded = _reload(encoder, tmp_path / "out")
    assert {v.dtype for v in loaded.variables} == {tf.float32}
    # bfloat16 anywhere would be off by 1e-3.
    np.testing.assert_allclose(loaded(IMAGES), plain(IMAGES, training=False), atol=1e-6)
    text = (tmp_path / "out" / "saved_model.pb").read_bytes()
    assert b"bfloat16" not in text


def test_frozen_encoder_is_exported_trainable_with_its_regularizers(tmp_path):
    encoder = tiny_encoder()
    encoder.trainable = False
    loaded = _reload(encoder, tmp_path / "out")
    (loss,) = loaded.regularization_losses
    np.testing.assert_allclose(loss(), 0.5 * (encoder.variables[0].numpy() ** 2).sum(), rtol=1e-5)
    np.testing.assert_allclose(loaded(IMAGES), encoder(IMAGES), atol=1e-6)
    assert len(loaded.trainable_variables) == 4
    before = loaded.variables[4].numpy()
    loaded(IMAGES, training=True)
    assert (loaded.variables[4].numpy() != before).any()


def test_encoder_with_synchronized_batch_norm_runs_on_one_device(tmp_path, mirrored):
    strategy = mirrored(2)
    with strategy.scope():
        encoder = tiny_encoder(synchronized=True)
        # As a callback does it: within the scope.
        path = _export(encoder, tmp_path / "out")
        expected = encoder(IMAGES, training=False)
    loaded = tf.saved_model.load(str(path))
    np.testing.assert_allclose(loaded(IMAGES), expected, atol=1e-6)
    plain = tiny_encoder()
    plain.set_weights(encoder.get_weights())
    np.testing.assert_allclose(loaded(IMAGES, True), plain(IMAGES, training=True), atol=1e-6)
    for mine, theirs in zip(loaded.variables, plain.variables, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6, err_msg=mine.name)
    ops = _operations(path)
    assert "FusedBatchNormV3" in ops  # synchronized batch norm has no fused kernel
    assert not [op for op in ops if "Collective" in op]
    assert b"CPU:1" not in (path / "saved_model.pb").read_bytes()


class _ExportEachEpoch(keras.callbacks.Callback):
    def __init__(self, directory):
        super().__init__()
        self.directory = directory

    def on_epoch_end(self, epoch, logs=None):
        step = int(self.model.optimizer.iterations.numpy())
        _export(self.model.get_layer("encoder"), self.directory / str(step))
        prune_old_exports(self.directory, step, max_to_keep=2)


def test_exporting_during_training_does_not_change_training(tmp_path):
    def train(callbacks):
        keras.utils.set_random_seed(0)
        encoder = tiny_encoder()
        encoder._name = "encoder"
        model = keras.Sequential([encoder, keras.layers.Dense(2)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
        model.fit(IMAGES, np.array([0, 1, 0, 1, 0]), epochs=4, verbose=0, callbacks=callbacks)
        return model

    alone = train([])
    exporting = train([_ExportEachEpoch(tmp_path / "export")])
    for mine, theirs in zip(exporting.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert sorted(p.name for p in (tmp_path / "export").iterdir()) == ["3", "4"]
    loaded = tf.saved_model.load(str(tmp_path / "export" / "4"))
    encoder = exporting.get_layer("encoder")
    np.testing.assert_allclose(loaded(IMAGES), encoder(IMAGES, training=False), atol=1e-5)
    # And what was exported does not follow the live one.
    earlier = tf.saved_model.load(str(tmp_path / "export" / "3"))
    assert np.abs(earlier(IMAGES) - loaded(IMAGES)).max() > 1e-4


def test_existing_directory_is_replaced_only_with_overwrite(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"--output=.*out: expected a path that does not exist"):
        _export(tiny_encoder(), target)
    assert [p.name for p in target.iterdir()] == ["mine.txt"]
    _export(tiny_encoder(), target, overwrite=True)
    card = (target / "README.md").read_text()
    digest = hashlib.sha256((target / WEIGHTS).read_bytes()).hexdigest()
    assert card.startswith("# card\n") and digest in card
    assert not (target / "mine.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_failed_export_does_not_change_the_old_one(tmp_path):
    path = _export(tiny_encoder(), tmp_path / "out")
    before = (path / "saved_model.pb").read_bytes()
    misfit = build_projection_head("linear", out_dim=2, input_dim=77)
    with pytest.raises(ValueError, match="77"):
        _export(tiny_encoder(), tmp_path / "out", overwrite=True, projection_head=misfit)
    assert (path / "saved_model.pb").read_bytes() == before
    # What it left behind is in nobody's way.
    _export(tiny_encoder(), tmp_path / "out", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_oldest_exports_are_pruned(tmp_path):
    def there():
        return {p.name for p in tmp_path.iterdir()}

    for name in ("5", "20", "100", "notes", "100-float16"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    for name in ("5.tflite", "5.tflite.md", "20-int8.tflite", "100x"):
        (tmp_path / name).touch()
    everything = there()
    prune_old_exports(tmp_path, 100, max_to_keep=0)
    assert there() == everything
    prune_old_exports(tmp_path, 100, max_to_keep=2)
    assert there() == everything - {"5", "5.tflite", "5.tflite.md"}
    # The step asked for stays, even where others are newer.
    prune_old_exports(tmp_path, 20, max_to_keep=1)
    assert there() == {"20", "20-int8.tflite", "notes", "100x"}


def test_subclassed_model_is_refused(tmp_path):
    class Encoder(keras.Model):
        def call(self, images):
            return tf.reduce_mean(images, [1, 2])

    with pytest.raises(UserError, match="functional"):
        _export(Encoder(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


NAMES = ("Käse", "b", "c")
KERNEL = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
BIAS = np.array([0.1, -0.2, 0.3], np.float32)


@pytest.mark.parametrize("through_head", [False, True])
def test_classify_returns_logits_probabilities_and_names(tmp_path, through_head):
    encoder = tiny_encoder()
    head = build_projection_head("nonlinear", 2, 6, input_dim=FEATURES) if through_head else None
    width = 6 if through_head else FEATURES
    settings = {"classifier": AffineClassifier(KERNEL[:width], BIAS), "classifier_input": head}
    loaded = _reload(encoder, tmp_path / "out", class_names=NAMES, **settings)
    assert set(loaded.signatures) == {"serving_default", "all_outputs", "classify"}
    images = tf.constant(IMAGES)
    features = loaded(images)
    hidden = head(features, training=False) if through_head else features
    logits = hidden.numpy() @ KERNEL[:width] + BIAS
    answer = loaded.signatures["classify"](images=images)
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-5)
    exponents = np.exp(logits)
    wanted = exponents / exponents.sum(1, keepdims=True)
    np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-5)
    np.testing.assert_array_equal(answer["label"], logits.argmax(1))
    names = [name.decode() for name in answer["class_name"].numpy()]
    assert names == [NAMES[i] for i in logits.argmax(1)]
    everything = loaded.signatures["all_outputs"](images=images)
    np.testing.assert_allclose(everything["logits"], logits, atol=1e-5)
    served = loaded.signatures["serving_default"](images=images)
    np.testing.assert_array_equal(served["features"], features)
    # The encoder's own variables stay those of the encoder.
    assert [v.name for v in loaded.variables] == [v.name for v in encoder.variables]
    shapes = [tuple(v.shape) for v in loaded.classifier_variables]
    assert shapes[-2:] == [(width, 3), (3,)]


def test_float16_export_halves_the_kernels_and_computes_in_float32(
    resnet, head, exported, tmp_path
):
    output = _export(resnet, tmp_path / "half", float16=True, projection_head=head)
    loaded = tf.saved_model.load(str(output))
    features = loaded(IMAGES)
    assert features.dtype == tf.float32
    expected = resnet(IMAGES, training=False).numpy()
    error = np.abs(features - expected).max() / np.abs(expected).max()
    assert 0 < error < 1e-2
    for variable in loaded.variables:
        half = "kernel" in variable.name
        assert variable.dtype == (tf.float16 if half else tf.float32), variable.name
    assert (output / WEIGHTS).stat().st_size < 0.6 * (exported / WEIGHTS).stat().st_size


def test_weight_above_the_maximum_of_float16_is_refused(tmp_path):
    encoder = tiny_encoder()
    encoder.layers[1].kernel.assign(encoder.layers[1].kernel + 1e5)
    with pytest.raises(UserError, match="65,504"):
        _export(encoder, tmp_path / "out", float16=True)
    assert list(tmp_path.iterdir()) == []


def test_two_encoders_in_a_process_have_separate_exports(tmp_path):
    """Layers of the same names, built, exported and used next to each other."""
    encoders = [tiny_encoder(), tiny_encoder()]
    first, second = (_reload(e, tmp_path / str(i)) for i, e in enumerate(encoders))
    for loaded, encoder in zip((first, second, first), (*encoders, encoders[0]), strict=True):
        np.testing.assert_allclose(loaded(IMAGES), encoder(IMAGES, training=False), atol=1e-5)
    assert np.abs(first(IMAGES) - second(IMAGES)).max() > 1e-3
    assert [v.name for v in first.variables] == [v.name for v in second.variables]


@pytest.mark.parametrize("file", ["saved_model.pb", "variables/variables.index", WEIGHTS])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999, None])
def test_truncated_export_computes_no_features(exported, tmp_path, file, share):
    shutil.copytree(exported, tmp_path / "cut")
    path = tmp_path / "cut" / file
    if share is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises((OSError, ValueError, RuntimeError, IndexError, tf.errors.OpError)):
        tf.saved_model.load(str(tmp_path / "cut"))(IMAGES)


def test_classifier_requires_a_name_for_every_logit(tmp_path):
    settings = {"classifier": AffineClassifier(KERNEL[:FEATURES], BIAS), "class_names": ("a", "b")}
    with pytest.raises(ValueError, match="3 logits, but 2 class names"):
        _export(tiny_encoder(), tmp_path / "out", **settings)
