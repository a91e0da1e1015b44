"""Runs whose views change their size, and runs that are evaluated at another size."""

import dataclasses

import numpy as np
import pytest
import tf_keras as keras

import simclr_tf
from simclr_tf.augment import eval_transform
from simclr_tf.config import Augmentation
from simclr_tf.data import open_source
from simclr_tf.errors import UserError
from simclr_tf.evaluation.load_encoder import encoder_from_run
from simclr_tf.models.custom_encoder import describe_encoder
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext
from simclr_tf.training.schedule import resolve_view_size_steps
from simclr_tf.training.tasks import pretrain
from tests.processes import rows
from tests.training.tiny import (
    AtStep,
    CallbackError,
    assert_equal_variables,
    changed,
    raise_error,
    reproducible_rows,
)


def encoder(padding="same", size=None):
    layers = [keras.layers.Conv2D(8, 3, strides=2, padding=padding) for _ in range(3)]
    pool = keras.layers.GlobalAveragePooling2D()
    return keras.Sequential([keras.Input((size, size, 3)), *layers, pool], name="tiny")


def described(**settings) -> dict:
    model = encoder(**settings)
    return {"encoder": "keras:tiny", "backbone": describe_encoder(model, 16)}


SIZED = changed(
    encoder=described(),
    augmentation={
        **{"view_size_schedule": "8:0.3,16", "eval_image_size": 24},
        "color_jitter_strength": 0.0,  # compiles faster
    },
    monitoring={"knn_every_epochs": 10.0, "log_every": 1},
)


@pytest.fixture(scope="module")
def sized_run(tmp_path_factory):
    """(model, directory) of an unbroken run: 8 px until step 3 of 10, then 16."""
    path = tmp_path_factory.mktemp("sized") / "run"
    return pretrain(SIZED, path), path


def test_run_stopped_in_the_second_stage_and_resumed_equals_the_unbroken_one(
    sized_run, tmp_path, log
):
    model, path = sized_run
    with pytest.raises(CallbackError):
        pretrain(SIZED, tmp_path, callbacks=[AtStep(4, raise_error)])
    log.clear()
    assert_equal_variables(pretrain(SIZED, tmp_path), model)
    assert any("resuming" in line and "at step 4 of 10" in line for line in log.messages)
    assert any("8 px until step 3, then 16 px" in line for line in log.messages)
    assert reproducible_rows(tmp_path) == reproducible_rows(path)
    assert RunDir(path).read_config()[1].view_size_steps == (3,)


@pytest.mark.slow
def test_several_steps_per_execution_change_the_size_at_the_same_step(sized_run, tmp_path):
    assert_equal_variables(pretrain(SIZED, tmp_path, steps_per_execution=4), sized_run[0])


@pytest.mark.slow
def test_replicas_change_the_size_as_one_device(sized_run, tmp_path, mirrored):
    start = {"view_size_schedule": "8:1,12:2,16"}  # rounding grows tenfold a step
    settings = changed(SIZED, augmentation=start, optimization={"train_steps": 3})
    pretrain(settings, tmp_path / "one")
    pretrain(settings, tmp_path / "two", DistributionContext(mirrored(2), "2 CPU devices"))
    for one, two in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)


def test_probes_and_evaluations_use_the_evaluation_size(sized_run):
    model, path = sized_run
    frozen = encoder_from_run(path)
    assert frozen.image_size == 24 == RunDir(path).read_config()[0].augmentation.evaluation_size
    # The probe of the last step has stored its features.
    test = open_source("shapes", "test[:64]", storage_size=36)
    images = eval_transform(test.images[test.indices], 24)
    expected = model.encoder(images, training=False).numpy()
    stored = [np.load(file) for file in sorted((path / "features").rglob("*.npy"))]
    arrays = [a for a in stored if a.shape == expected.shape]
    assert any(np.allclose(a, expected, atol=1e-5) for a in arrays)


def test_images_are_stored_for_the_largest_size():
    assert SIZED.resolve().data.storage_size == 36
    larger = changed(SIZED, augmentation={"view_size_schedule": "40:0.3,16"})
    assert larger.resolve().data.storage_size == 60
    assert changed(augmentation={"eval_image_size": 0}).resolve().data.storage_size == 24


def test_ends_are_fractions_of_the_run_or_steps():
    def steps(schedule, total):
        sizes = {"view_size_schedule": schedule}
        return resolve_view_size_steps(changed(augmentation=sizes), total)

    assert steps("8:0.4,24:.8,16", 1000) == (400, 800)
    assert steps("8:0.29,16", 100) == (29,)
    assert steps("8:0.333,12:60,16", 100) == (33, 60)
    assert steps("8:0.4,12:0.5,16", 4) == (1, 2)
    assert steps("", 100) == steps("16", 100) == ()
    for schedule, total, found in (
        ("8:0.1,16", 4, "0"),
        ("8:0.9,12:10,16", 100, "90, 10"),
        ("8:10,16", 10, "10"),
    ):
        with pytest.raises(UserError, match=f"expected steps above 0 .*{total} steps, got {found}"):
            steps(schedule, total)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("8:0.8,12:0.4,16", "expected ends above 0 that ascend, got 0.8, 0.4"),
        ("8:400,12:300,16", "expected ends above 0 that ascend, got 400, 300"),
        ("8:300,12:0.5,16", "expected ends above 0 that ascend, got 300, 0.5"),
        ("8:0,16", "expected ends above 0 that ascend, got 0"),
        ("4:0.5,16", "expected sizes of 8 to 16384 pixels, got 4"),
        ("8:0.5,12", "expected --image_size=16 as the last size, got '12'. Fix: set --image_size"),
        ("8:0.5,12:0.9", "expected --image_size=16 as the last size, got '12:0.9'"),
        ("8:1.5,16", "expected SIZE:END,…,SIZE, .*, got '8:1.5'. Fix: write for example 16:0.4,16"),
        ("8@0.5,16", "got '8@0.5'"),
        ("8,16", "got '8'"),
        ("8:-1,16", "got '8:-1'"),
    ],
)
def test_wrong_schedule_is_named(schedule, message):
    with pytest.raises(UserError, match=f"^--view_size_schedule={schedule}: .*{message}"):
        Augmentation(image_size=16, view_size_schedule=schedule)


@pytest.mark.parametrize("size", [-1, 7, 2**15])
def test_wrong_evaluation_size_is_named(size):
    with pytest.raises(UserError, match=f"--eval_image_size={size}: expected"):
        Augmentation(eval_image_size=size)


@pytest.mark.parametrize(
    ("model", "augmentation", "message"),
    [
        (
            {"size": 16},
            {"eval_image_size": 24},
            "--eval_image_size=24: the encoder Keras model tiny cannot take images of 24 pixels",
        ),
        (
            {"size": 16},
            {"view_size_schedule": "8:0.5,16"},
            "--view_size_schedule=8:0.5,16: the encoder Keras model tiny .* 8 pixels",
        ),
        (
            {"padding": "valid"},
            {"view_size_schedule": "8:0.5,16"},
            "--view_size_schedule=8:0.5,16: the encoder Keras model tiny .* 8 pixels",
        ),
    ],
)
def test_size_that_the_encoder_cannot_take_is_named(tmp_path, model, augmentation, message):
    settings = changed(encoder=described(**model), augmentation=augmentation)
    with pytest.raises(UserError, match=message) as raised:
        pretrain(settings, tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_evaluation_size_may_change_and_the_schedule_may_not(sized_run):
    run = RunDir(sized_run[1])
    config, plan = run.read_config()
    run.check_resumable(config.override({"augmentation": {"eval_image_size": 16}}), plan)
    other = config.override({"augmentation": {"view_size_schedule": "8:0.5,16"}})
    with pytest.raises(UserError, match=r"--view_size_schedule \(was 8:0.3,16, now 8:0.5,16"):
        run.check_resumable(other, dataclasses.replace(plan, view_size_steps=(5,)))


def test_loaded_run_continues_to_train_with_its_schedule(sized_run):
    assert simclr_tf.load(sized_run[1]).stage_ends == (3,)
