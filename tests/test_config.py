"""Configs: to and from JSON, written by this version and by earlier ones; contradictions."""

import json
from pathlib import Path

import numpy as np
import pytest

from simclr_tf import config, option_groups
from simclr_tf.errors import UserError
from simclr_tf.options import option_fields, option_type

RUN = config.PretrainConfig(config.Data(dataset="shapes"), optimization=config.Optimization(seed=3))


def test_a_config_comes_back_as_it_was():
    assert config.from_json(config.PretrainConfig, config.to_json(RUN)) == RUN


def test_an_option_younger_than_the_file_has_its_default():
    document = config.to_json(RUN)
    del document["monitoring"]["profile"]
    assert config.from_json(config.PretrainConfig, document) == RUN


def _splits(data):
    return data.dataset, data.train_split, data.eval_split


def test_probes_have_their_own_data():
    run = RUN.override({"data": {"train_split": "unlabelled", "eval_split": "test"}})
    assert run.probe_data == run.labeled_data(True) == run.labeled_data(False) == run.data
    # Labels of another split of the same dataset.
    run = run.override({"monitoring": {"probe_train_split": "train", "probe_eval_split": "few"}})
    assert _splits(run.probe_data) == ("shapes", "train", "few")
    assert run.labeled_data(True) == run.labeled_data(False) == run.probe_data
    # Of another dataset, which evaluates a run that has no labels itself.
    run = RUN.override({"monitoring": {"probe_dataset": "cifar10", "probe_eval_split": "test"}})
    assert _splits(run.probe_data) == ("cifar10", "train", "test")
    assert run.labeled_data(False) == run.probe_data and run.labeled_data(True) == RUN.data
    assert _splits(RUN.override({"monitoring": {"probe_dataset": "cifar10"}}).probe_data)[2] == (
        RUN.data.eval_split
    )


@pytest.mark.parametrize("task", ["pretrain", "finetune", "distill"])
def test_config_written_by_version_0_1_loads(task):
    file = Path(__file__).parent / "fixtures" / "configs_0.1.0.json"
    document = json.loads(file.read_text(encoding="utf-8"))[task]
    loaded = config.from_json(config.CONFIGS[task], document["config"])
    assert config.from_json(config.TrainingPlan, document["plan"]).class_names == ("a", "b")
    assert loaded.augmentation.image_size == 16
    assert config.from_json(type(loaded), config.to_json(loaded)) == loaded
    old = {
        (name, value)
        for section in document["config"].values()
        for name, value in section.items()
        if not isinstance(value, dict)
    }
    new = {
        (name, value)
        for section in config.to_json(loaded).values()
        for name, value in section.items()
    }
    later = {
        (field.name, field.default)
        for group in vars(loaded).values()
        for field in option_fields(group)
        if field.metadata["added_in_later_version"]
    }
    assert new - later <= old <= new


@pytest.mark.parametrize("name", ["nt_xent", "temperature", "optimization"])
def test_what_is_unknown_or_cannot_be_missing_is_named(name):
    document = config.to_json(RUN)
    if name == "nt_xent":
        document["contrastive_loss"][name] = 1
    else:
        loss = document["contrastive_loss"]
        del (loss if name in loss else document)[name]
    with pytest.raises(UserError, match=f"missing or unknown: {name}"):
        config.from_json(config.PretrainConfig, document)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "vgg"}, "--encoder=vgg: expected resnet or keras_cv:PRESET_OR_DIRECTORY"),
        ({"encoder": "keras_cv:"}, "--encoder=keras_cv:: expected resnet or"),
        (
            {"encoder": "keras_cv:a", "resnet_depth": 18},
            "--resnet_depth=18: expected --encoder=resnet",
        ),
        (
            {"encoder": "keras_cv:a", "sk_ratio": 0.0625},
            "--sk_ratio=0.0625: expected --encoder=resnet",
        ),
    ],
)
def test_an_encoder_is_one_or_the_other(settings, message):
    with pytest.raises(UserError, match=message):
        config.Encoder(**settings)


def test_what_was_found_out_is_no_option():
    assert "backbone" not in [field.name for field in option_fields(config.Encoder)]
    found = config.Encoder(encoder="keras_cv:a", backbone={"class_name": "B", "config": {"n": [1]}})
    assert config.from_json(config.Encoder, config.to_json(found)) == found


def test_block_groups_are_of_resnets_alone():
    sections = {"data": RUN.data, "encoder": config.Encoder(encoder="keras_cv:a")}
    started = config.Checkpoints(checkpoint="run")
    for after in (-1, 4):
        finetuning = config.FineTuning(fine_tune_after_block=after)
        config.FinetuneConfig(**sections, checkpoints=started, finetuning=finetuning)
    with pytest.raises(UserError, match="--fine_tune_after_block=2: expected -1"):
        finetuning = config.FineTuning(fine_tune_after_block=2)
        config.FinetuneConfig(**sections, checkpoints=started, finetuning=finetuning)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "--teacher is missing"),
        (
            {"teacher": "a", "distill_alpha": 1.5},
            "=1.5: expected a number of at most 1",
        ),
        (
            {"teacher": "a", "distill_temperature": 0.0},
            "_temperature=0.0: expected a number above",
        ),
        ({"teacher": "a", "labels_per_class": 3}, "--distill_alpha=1: expected a value below 1"),
    ],
)
def test_a_distillation_has_a_teacher_and_labels_only_on_demand(settings, message):
    with pytest.raises(UserError, match=message):
        config.Distillation(**settings)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("train_batch_size", 10**20, "expected an integer of at most 16777216"),
        ("microbatch_size", 10**20, "expected an integer of at most 16777216"),
        ("train_steps", 2.5, "expected an integer, got float"),
        ("train_steps", True, "expected an integer, got bool"),
        ("learning_rate", "fast", "expected a number, got str"),
        ("optimizer", "momentun", "Fix: did you mean momentum?"),
    ],
)
def test_option_of_wrong_type_or_out_of_range_is_refused(name, value, message):
    with pytest.raises(UserError) as caught:
        config.Optimization(**{name: value})
    assert str(caught.value).startswith(f"--{name}={value}: expected ")
    assert message in str(caught.value)


def test_every_integer_option_has_an_upper_bound():
    groups = [config.Data, config.Augmentation, config.Encoder, config.ProjectionHead]
    groups += [config.ContrastiveLoss, config.Optimization, config.FineTuning, config.Monitoring]
    groups += [config.Checkpoints, option_groups.Distribution]
    required = {config.Data: {"dataset": "shapes"}}
    for group in groups:
        for field in option_fields(group):
            if option_type(field) is int:
                with pytest.raises(UserError, match=f"--{field.name}=9{{20}}: expected"):
                    group(**required.get(group, {}), **{field.name: 10**20 - 1})


def test_options_are_stored_as_plain_python_values(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = config.Data(dataset=Path("folder:photos"), storage_size=np.int64(24))
    assert (data.dataset, type(data.storage_size)) == (f"folder:{tmp_path}/photos", int)
    assert config.from_json(config.Data, json.loads(json.dumps(config.to_json(data)))) == data
