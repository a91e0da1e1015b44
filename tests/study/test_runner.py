"""Checks of a study before its first run, and the results of a run that is finished."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.errors import UserError
from simclr_tf.option_groups import Augmentation, Data, Encoder, Monitoring, Optimization
from simclr_tf.runs.results_file import append_evaluations
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.study import workers
from simclr_tf.study.experiments import STUDIES
from simclr_tf.study.grid import StudyOptions
from simclr_tf.study.runner import run_study
from simclr_tf.study.trial import TrialEvaluation, make_trials
from simclr_tf.study.workers import Resources, allocate_workers

BASE = PretrainConfig(
    Data(dataset="shapes", train_split="train[:300]", eval_split="test[:40]"),
    Augmentation(image_size=16, use_blur=False),
    Encoder(resnet_depth=18, width_multiplier=0.0625),
    optimization=Optimization(train_batch_size=32, train_epochs=0.3),
    monitoring=Monitoring(pictures_every_epochs=0.0),
)
DEFAULT_SIZE = {"width_multiplier": 1.0, "resnet_depth": 50}
CELL = "plain-10"
VALUES = {"knn": 0.3, "knn/random": 0.2, "logistic": 0.4, "logistic/random": 0.25}


def run(name, output, base=BASE, **options):
    return run_study(STUDIES[name], base, StudyOptions(output=str(output), **options))


def change(section, **changes):
    new = dataclasses.replace(getattr(BASE, section), **changes)
    return dataclasses.replace(BASE, **{section: new})


@pytest.fixture
def finished(tmp_path):
    """A study whose run has the files of training and evaluation; the commands' tests train one."""
    study, output = STUDIES["temperature"], tmp_path / "temperature"
    (trial,) = make_trials(study.select_cells(names=[CELL]), BASE, [0], output / "runs")
    evaluation = TrialEvaluation(study.columns, 20, 64, output / "features")
    assert evaluation.read_results(trial) is None
    run = trial.run_dir
    run.checkpoint_dir.mkdir(parents=True)
    run.write_config(trial.config.resolve(), TrainingPlan(300, 10, 3, 0, 9.4, 0.1))
    (run.checkpoint_dir / "checkpoint").write_text('model_checkpoint_path: "step-3"')
    (run.checkpoint_dir / "step-3.index").touch()
    metrics = {"contrastive_accuracy": 0.5, "contrastive_entropy": 2.0}
    run.metrics_file.write_text(json.dumps({"step": 3, "epoch": 0.3, **metrics}) + "\n")
    data = trial.config.data
    common = {"dataset": data.dataset, "train_split": data.train_split, "step": 3}
    common |= {"test_split": data.eval_split, "num_train": 300, "num_test": 40}
    records = [
        {**common, "protocol": name, "setting": "k=20, cosine" * ("knn" in name), "top1": top1}
        for name, top1 in VALUES.items()
    ]
    # Newer, but of another number of neighbors or of another step.
    records.append({**records[0], "setting": "k=21, cosine", "top1": 0.7})
    records.append({**records[0], "step": 2, "top1": 0.1})
    assert evaluation.read_results(trial) is None
    append_evaluations(run.evaluations_file, records)
    assert evaluation.read_results(trial) == VALUES | metrics
    return output


def test_finished_trial_is_read_and_written(finished):
    # Nothing is left to run: no worker process starts.
    study_results = run("temperature", finished, cells=CELL, knn_k=20)
    (result,) = study_results.results
    assert result.values.items() > VALUES.items() and not result.failure
    settings = json.loads((finished / "study.json").read_text("utf-8"))
    assert settings["study"] == "temperature" and settings["cells"] == [CELL]
    document = json.loads((finished / "results.json").read_text("utf-8"))
    assert document["runs"][0]["figures"] == result.values
    assert (finished / "temperature.png").exists()
    # The number of replicas is no setting of a run whose batch statistics are global.
    run("temperature", finished, cells=CELL, knn_k=20, num_replicas=2)


def test_runs_with_other_settings_are_refused_by_name(finished):
    other = change("augmentation", color_jitter_strength=0.25)
    with pytest.raises(UserError) as caught:
        run("temperature", finished, other, knn_k=20)
    assert str(caught.value) == (
        f"{finished}/runs/{CELL}-0 contains a run with other settings: --color_jitter_strength "
        "(was 1.0, now 0.25). Fix: restore the settings, or choose another --output"
    )


def test_number_of_replicas_must_stay_with_local_batch_statistics(tmp_path):
    plan = TrainingPlan(300, 10, 9, 0, 9.4, 0.1, num_replicas=2)
    for trial in make_trials(STUDIES["bn"].cells, BASE, [0], tmp_path / "runs"):
        RunDir(trial.path).write_config(trial.config.resolve(), plan)
    with pytest.raises(UserError, match=r"of_each_replica-B_4-0 .* replicas \(was 2, now 4\)"):
        run("bn", tmp_path, num_replicas=4)


@pytest.mark.parametrize(
    ("name", "base", "options", "message"),
    [
        ("bn", BASE, {}, "--num_replicas=0: expected at least 2"),
        ("bn", BASE, {"num_replicas": 6}, "expected a divisor of the batch size of global-B_4, 8"),
        ("head", BASE, {"knn_k": 301}, "knn_k=301"),
        (
            "batch_epochs",
            change("optimization", train_steps=10),
            {},
            "--train_steps=10: fixes a setting that batch_epochs varies. Fix: use --train_epochs",
        ),
        (
            "batch_epochs",
            change("optimization", train_batch_size=160, train_epochs=1.0),
            {},
            "2B-E-linear: --train_batch_size=320",
        ),
        ("temperature", change("data", eval_split="validation"), {}, "validation"),
        ("temperature", change("optimization", precision="auto"), {}, "--precision=auto: not supp"),
        ("batch_epochs", change("optimization", microbatch_size=16), {}, "--microbatch_size=16"),
        ("losses", change("encoder", encoder="keras_cv:nowhere", **DEFAULT_SIZE), {}, "nowhere"),
        ("head", BASE, {"cells": "none"}, "--cells: expected any of none-that_of_h"),
    ],
)
def test_impossible_studies_are_refused(tmp_path, name, base, options, message):
    with pytest.raises(UserError, match=message):
        run(name, tmp_path, base, **options)
    assert not list(tmp_path.iterdir())


def test_images_without_labels_are_refused(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "images" / split).mkdir(parents=True)
        for n in range(40):
            image = np.full((16, 16, 3), 6 * n, np.uint8)
            Image.fromarray(image).save(tmp_path / "images" / split / f"{n}.png")
    dataset = f"folder:{tmp_path}/images"
    base = change("data", dataset=dataset, train_split="train", eval_split="test")
    with pytest.raises(UserError, match="has no labels"):
        run("head", tmp_path / "out", base)


def test_directory_of_another_study_is_refused(tmp_path):
    (tmp_path / "study.json").write_text('{"study": "head"}', encoding="utf-8")
    with pytest.raises(UserError, match=r"contains the study head. Fix: choose another directory"):
        run("temperature", tmp_path)
    (tmp_path / "study.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="is damaged"):
        run("temperature", tmp_path)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_addons", None)
    with pytest.raises(UserError, match="--optimizer=lamb: expected TensorFlow Addons"):
        run("head", tmp_path, change("optimization", optimizer="lamb"))
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(UserError, match=r"pip install 'simclr_tf\[keras-cv\]'"):
        run("color_strength", tmp_path)


def test_workers_share_cores_or_gpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 4, 5, 7})
    assert allocate_workers(0, 0, 0) == allocate_workers(1, 0, 0) == [Resources()]
    expected = [Resources((0, 4, 7), None, 4), Resources((2, 5), None, 4)]
    assert allocate_workers(2, 4, 0) == expected
    with pytest.raises(
        UserError, match="--processes=6: expected at most 5, the number of available cores"
    ):
        allocate_workers(6, 0, 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert allocate_workers(0, 0, 3) == [Resources(gpus=gpu) for gpu in "012"]
    assert allocate_workers(2, 0, 3) == [Resources(gpus="0"), Resources(gpus="1")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    assert allocate_workers(0, 0, 2) == [Resources(gpus="5"), Resources(gpus="3")]
    assert allocate_workers(0, 2, 2) == [Resources(num_replicas=2)]
    with pytest.raises(
        UserError, match="--processes=3: expected at most 2, the number of visible GPUs"
    ):
        allocate_workers(3, 0, 2)
    with pytest.raises(UserError, match="omit one of the two"):
        allocate_workers(2, 2, 2)
    monkeypatch.delattr(workers.os, "sched_setaffinity")
    with pytest.raises(UserError, match="cannot assign cores to processes"):
        allocate_workers(2, 0, 0)
