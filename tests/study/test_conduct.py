"""What is refused before any run of a study starts."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from simclr_tf.config import Augmentation, Data, Encoder, Optimization, PretrainConfig, TrainingPlan
from simclr_tf.errors import UserError
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.study import runner
from simclr_tf.study.experiments import STUDIES
from simclr_tf.study.run_study import Request, conduct
from simclr_tf.study.runner import slots_for
from simclr_tf.study.worker import Slot

BASE = PretrainConfig(
    Data(dataset="shapes", train_split="train[:300]", eval_split="test[:40]"),
    Augmentation(image_size=16, use_blur=False),
    Encoder(resnet_depth=18, width_multiplier=0.0625),
    optimization=Optimization(train_batch_size=32, train_epochs=1.0),
)


@pytest.fixture(autouse=True)
def no_run(monkeypatch):
    def run_trials(*args):
        raise AssertionError("it went to work")

    monkeypatch.setattr("simclr_tf.study.run_study.run_trials", run_trials)


def asked(name, output, *, seeds=(0,), base=BASE, **rest):
    study = STUDIES[name]
    return Request(study, study.cells, base, seeds, output, **rest)


def with_(section, **changes):
    new = dataclasses.replace(getattr(BASE, section), **changes)
    return dataclasses.replace(BASE, **{section: new})


def test_nothing_is_refused_of_what_is_right(tmp_path):
    with pytest.raises(AssertionError, match="it went to work"):
        conduct(asked("temperature", tmp_path), say=lambda line: None)
    assert json.loads((tmp_path / "study.json").read_text("utf-8"))["study"] == "temperature"


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("bn", {}, "bn compares replicas: give --num_replicas=2"),
        ("bn", {"num_replicas": 6}, "--num_replicas=6 does not divide the batch of 8 images of"),
        ("head", {"knn_k": 301}, "--knn_k=301 must lie between 1 and the 300 images"),
        (
            "batch_epochs",
            {"base": with_("optimization", train_steps=10)},
            "--train_steps=10 fixes what batch_epochs varies: give --train_epochs",
        ),
        (
            "batch_epochs",
            {"base": with_("optimization", train_batch_size=160)},
            "2B-E-linear: --train_batch_size=320: expected at most 300, the number of training",
        ),
        (
            "temperature",
            {"base": with_("data", eval_split="validation")},
            "validation",
        ),
        (
            "temperature",
            {"base": with_("optimization", precision="auto")},
            "--precision=auto: every run of a study would find out its own",
        ),
        (
            "batch_epochs",
            {"base": with_("optimization", microbatch_size=16)},
            "--microbatch_size=16 does not divide a replica's 2 images",
        ),
        (
            "losses",
            {
                "base": with_(
                    "encoder", encoder="keras_cv:nowhere", width_multiplier=1.0, resnet_depth=50
                )
            },
            "nowhere: neither a directory nor one of KerasCV's presets",
        ),
    ],
)
def test_settings_that_do_not_go_together(tmp_path, name, settings, words):
    with pytest.raises(UserError, match=words):
        conduct(asked(name, tmp_path, **settings))
    assert not list(tmp_path.iterdir())


def test_images_without_labels(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "images" / split).mkdir(parents=True)
        for n in range(40):
            image = np.full((16, 16, 3), 6 * n, np.uint8)
            Image.fromarray(image).save(tmp_path / "images" / split / f"{n}.png")
    base = with_(
        "data", dataset=f"folder:{tmp_path}/images", train_split="train", eval_split="test"
    )
    with pytest.raises(UserError, match="has no labels, and evaluation needs them"):
        conduct(asked("head", tmp_path / "out", base=base))


def test_another_study_in_the_directory(tmp_path):
    (tmp_path / "study.json").write_text('{"study": "head"}', encoding="utf-8")
    with pytest.raises(UserError, match="holds the study head: name another directory"):
        conduct(asked("temperature", tmp_path))
    (tmp_path / "study.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="is damaged"):
        conduct(asked("temperature", tmp_path))


def test_runs_with_other_settings_are_named(tmp_path):
    request = asked("temperature", tmp_path)
    trial = request.trials[2]
    plan = TrainingPlan(300, 10, 9, 0, 9.4, 0.1)
    RunDir(trial.path).write_config(trial.config.resolve(), plan)
    with pytest.raises(AssertionError, match="it went to work"):
        conduct(request, say=lambda line: None)
    other = with_("augmentation", color_jitter_strength=0.25)
    with pytest.raises(UserError) as caught:
        conduct(asked("temperature", tmp_path, base=other))
    assert str(caught.value) == (
        f"{trial.path} holds a run with other settings: --color_jitter_strength (was 1.0, now "
        "0.25); restore them, or name another --output"
    )


def test_runs_on_other_replicas_are_named_where_these_matter(tmp_path):
    request = asked("bn", tmp_path, num_replicas=2)
    plan = TrainingPlan(300, 10, 9, 0, 9.4, 0.1, num_replicas=2)
    for trial in request.trials:
        RunDir(trial.path).write_config(trial.config.resolve(), plan)
    with pytest.raises(AssertionError, match="it went to work"):
        conduct(request, say=lambda line: None)
    with pytest.raises(UserError, match=r"of_each_replica-B_4-0 .* replicas \(was 2, now 4\)"):
        conduct(asked("bn", tmp_path, num_replicas=4))


def test_optimizer_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_addons", None)
    with pytest.raises(UserError, match="--optimizer=lamb needs TensorFlow Addons"):
        conduct(asked("head", tmp_path, base=with_("optimization", optimizer="lamb")))


def test_randaugment_without_kerascv(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(UserError, match=r"pip install 'simclr_tf\[keras-cv\]'"):
        conduct(asked("color_strength", tmp_path))


def test_slots_share_cores_or_gpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 4, 5, 7})
    assert slots_for(0, 0, 0) == slots_for(1, 0, 0) == [Slot()]
    assert slots_for(2, 4, 0) == [Slot((0, 4, 7), None, 4), Slot((2, 5), None, 4)]
    with pytest.raises(UserError, match="--processes=6: there are 5 cores"):
        slots_for(6, 0, 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots_for(0, 0, 3) == [Slot(gpus="0"), Slot(gpus="1"), Slot(gpus="2")]
    assert slots_for(2, 0, 3) == [Slot(gpus="0"), Slot(gpus="1")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    assert slots_for(0, 0, 2) == [Slot(gpus="5"), Slot(gpus="3")]
    assert slots_for(0, 2, 2) == [Slot(num_replicas=2)]
    with pytest.raises(UserError, match="--processes=3: 2 GPUs"):
        slots_for(3, 0, 2)
    with pytest.raises(UserError, match="leave one of them out"):
        slots_for(2, 2, 2)
    monkeypatch.delattr(runner.os, "sched_setaffinity")
    with pytest.raises(UserError, match="does not give processes cores"):
        slots_for(2, 0, 0)
