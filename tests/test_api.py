"""The Python API: the commands as functions, on names, arrays and Keras models."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import simclr_tf as st
from simclr_tf.options import option_fields

TINY = {
    "image_size": 16,
    "use_blur": False,
    "num_proj_layers": 2,
    "proj_out_dim": 16,
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "train_batch_size": 16,
    "warmup_epochs": 0,
    "log_every": 2,
    "pictures_every_epochs": 0,
}
FUNCTIONS = [st.pretrain, st.finetune, st.distill, st.evaluate, st.embed, st.export, st.report]
FUNCTIONS += [st.import_weights]


def make_encoder() -> keras.Model:
    """A small functional encoder with a batch norm, as the ones of keras.applications."""
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)(images)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(12, 3)(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="tiny")


@pytest.fixture(scope="module")
def images():
    source = st.data.open_source("shapes", "train[:96]")
    labels = source.labels()
    batches = st.data.sequential_batches(source, 96).as_numpy_iterator()
    return next(batches)["image"], labels


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A run on an array with the user's own encoder and callback, interrupted once."""
    path = tmp_path_factory.mktemp("api") / "run"
    array, labels = images
    settings = TINY | {"train_steps": 4, "checkpoint_steps": 2}
    settings |= {"dataset": array, "labels": labels, "encoder": make_encoder()}
    seen = []

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(int(self.model.step))
            if seen == [1, 2]:
                raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        st.pretrain(path, callbacks=[Stop()], **settings)
    resumed = st.pretrain(path, callbacks=[Stop()], **settings)
    assert seen == [1, 2, 3, 4]
    return resumed


def test_run_on_array_with_own_encoder_has_its_results(run):
    assert [row["step"] for row in run.metrics] == [2, 4]
    assert run.encoder.output_shape[-1] == 12
    assert run.model.linear_head.kernel.shape[1] == 10
    assert run.config.data.dataset.startswith("array:")
    assert run.config.encoder.encoder == "keras:tiny"
    loaded = st.load(run)
    ones = tf.ones([2, 16, 16, 3])
    np.testing.assert_allclose(loaded.encoder(ones), run.encoder(ones), atol=1e-6)
    assert repr(st.Run(run)) == repr(run)


def test_other_images_do_not_resume_the_run(run, images):
    array, labels = images
    with pytest.raises(st.UserError, match="--dataset"):
        st.pretrain(
            run, dataset=array[::-1], labels=labels, encoder=make_encoder(), train_steps=4, **TINY
        )


def test_run_on_array_is_evaluated_on_slices(run):
    records = run.evaluate(
        protocols=["knn"], knn_k=[5], train_split="train[:64]", eval_split="train[64:]"
    )
    (record,) = records
    assert (record["protocol"], record["num_train"], record["num_test"]) == ("knn", 64, 32)
    assert run.evaluations[-1]["top1"] == record["top1"]
    with pytest.raises(st.UserError, match="passed from Python"):
        st.evaluate(run.path, train_split="train[:64]", eval_split="train[64:]")


def test_run_embeds_arrays_datasets_and_its_own_images(run, images):
    array, labels = images
    features, ids, found = st.embed(run, dataset=array[:8], labels=labels[:8])
    assert features.shape == (8, 12) and len(ids) == 8
    np.testing.assert_array_equal(found, labels[:8])
    dataset = tf.data.Dataset.from_tensor_slices(array[:8])
    np.testing.assert_allclose(st.embed(run, dataset=dataset).features, features, atol=1e-5)
    assert len(run.embed().ids) == 96


def test_run_exports_a_model_with_the_same_features(run, images):
    exported = tf.saved_model.load(str(run.export()))
    floats = tf.constant(images[0][:4, :16, :16] / 255, tf.float32)
    np.testing.assert_allclose(exported(floats), run.encoder(floats, training=False), atol=1e-4)


def test_functions_expand_the_home_directory(run, images, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(run.path.parent))
    monkeypatch.chdir(tmp_path)
    home_run = Path("~", run.path.name)
    assert st.Run(home_run).path == run.path
    assert int(st.load(str(home_run)).step) == 4
    st.embed(home_run, dataset=images[0][:4], output="~/features")
    assert (run.path.parent / "features" / "features.npy").exists()
    with pytest.raises(st.UserError, match=f"{run.path.parent}/b holds no run"):
        st.report(runs="~/run,~/b", output=Path("~/report.html"))
    with pytest.raises(st.UserError, match=f"folder:{run.path.parent}/photos"):
        st.pretrain("~/new", dataset=Path("folder:~/photos"), **TINY)
    assert list(tmp_path.iterdir()) == []


def test_unknown_keyword_names_the_option_that_means_it():
    with pytest.raises(st.UserError, match=r"batch_size: .* did you mean --train_batch_size"):
        st.pretrain("run", dataset="shapes", batch_size=8)
    with pytest.raises(st.UserError, match="did you mean --linear_learning_rate"):
        st.evaluate("run", lr=8)


@pytest.mark.slow
def test_report_of_run_is_a_file(run):
    assert run.report().read_text(encoding="utf-8").startswith("<!doctype html>")


def test_config_contains_the_equivalent_command(run):
    command = json.loads((run.path / "config.json").read_text(encoding="utf-8"))["command"]
    assert command[:2] == ["simclr-tf", "pretrain"]
    assert f"--model_dir={run.path}" in command and "--train_batch_size=16" in command


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_signature_and_docstring_list_every_option(function):
    parameters = inspect.signature(function).parameters
    for option_set in function.option_sets:
        for field in option_fields(option_set.group):
            assert field.name in parameters
            assert f"    {field.name}: " in function.__doc__
    for section in ("Example:", "Returns:", "Raises:"):
        assert function.__doc__.count(f"\n{section}\n") == 1
    assert "\n    UserError: " in function.__doc__


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: st.pretrain("x", dataset="shapes", tempreature=1), "did you mean --temperature"),
        (lambda: st.pretrain("x"), "--dataset is missing"),
        (lambda: st.pretrain(dataset="shapes"), "--model_dir is missing"),
        (lambda: st.pretrain("x", dataset="shapes", train_steps=0.5), "expected an integer, got f"),
        (lambda: st.pretrain("x", dataset="shapes", labels=[1]), "labels: expected images from"),
        (lambda: st.pretrain("x", dataset=np.zeros((4, 8, 8, 3))), "images: expected uint8"),
        (lambda: st.finetune("x"), "--checkpoint is missing"),
        (lambda: st.finetune("x", checkpoint="nowhere"), "nowhere holds no run"),
        (lambda: st.distill("x"), "--teacher is missing"),
        (lambda: st.evaluate("x", protocol="knn"), "did you mean --protocols"),
        (lambda: st.evaluate(), "either --model_dir=RUN or --encoder"),
        (lambda: st.embed("x", representation="g"), "--representation=g: expected one of h"),
        (lambda: st.export(""), "--model_dir is missing"),
        (lambda: st.report("x", map="umpa"), "did you mean umap"),
        (lambda: st.import_weights("", "x"), "--checkpoint is missing"),
        (lambda: st.Run("nowhere"), "nowhere holds no run"),
    ],
)
def test_mistake_is_a_user_error_that_names_the_fix(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(st.UserError, match=message):
        call()
    assert not list(tmp_path.iterdir())


def test_lists_name_what_the_options_accept():
    assert "nt_xent" in st.list_losses() and "lars" in st.list_optimizers()
    assert st.list_encoders()[0] == "resnet"
    for name in st.list_protocols():
        st.evaluation.EvalOptions(protocols=name)


def test_flags_and_keyword_arguments_have_one_definition():
    assert inspect.signature(st.pretrain).parameters["temperature"].default == 0.1
    assert inspect.signature(st.finetune).parameters["mode"].default == "train_then_eval"
    assert inspect.signature(st.finetune).parameters["resnet_depth"].default is None
    assert "self" in inspect.signature(st.Run.evaluate).parameters
