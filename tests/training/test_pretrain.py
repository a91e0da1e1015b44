"""Pretraining in this process on the built-in shapes, with an encoder of a few thousand weights."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

import simclr_tf
from simclr_tf import config
from simclr_tf.data import open_source
from simclr_tf.data.base import ArraySource
from simclr_tf.errors import UserError
from simclr_tf.models.build import build_model
from simclr_tf.optimizers import WarmupCosine
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext
from simclr_tf.training.online_eval import probe_evaluator, validation_loss_evaluator
from simclr_tf.training.schedule import check_same_sharding, check_trainable
from simclr_tf.training.tasks import pretrain
from tests.optional import needs
from tests.processes import rows

TINY = config.PretrainConfig(
    data=config.Data(dataset="shapes", train_split="train[:256]", eval_split="test[:64]"),
    augmentation=config.Augmentation(image_size=16, use_blur=False),
    encoder=config.Encoder(resnet_depth=18, width_multiplier=1 / 16),
    projection_head=config.ProjectionHead(num_proj_layers=2, proj_out_dim=16),
    optimization=config.Optimization(
        train_batch_size=32,
        train_steps=10,
        optimizer="momentum",
        learning_rate=0.1,
        warmup_epochs=0.5,
    ),
    monitoring=config.Monitoring(log_every=4, pictures_every_epochs=0),
    checkpoints=config.Checkpoints(checkpoint_steps=5, keep_checkpoint_max=2),
)


def changed(base: config.PretrainConfig = TINY, **sections) -> config.PretrainConfig:
    """A config with some fields of some sections changed."""
    parts = {
        name: dataclasses.replace(getattr(base, name), **values)
        for name, values in sections.items()
    }
    return dataclasses.replace(base, **parts)


PLAN = config.TrainingPlan(256, 10, 10, 4, 8.0, 0.0125)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """A finished run with probes and a validation loss."""
    path = tmp_path_factory.mktemp("run")
    watched = changed(
        data={"validation_fraction": 0.25},
        optimization={"train_steps": 12},
        monitoring={"knn_every_epochs": 1.0, "eval_every_epochs": 1.0},
    )
    pretrain(watched, path)
    return path


def test_metrics_have_every_promised_key_and_step(run_dir):
    lines = rows(run_dir)
    # 192 images in batches of 32: an epoch is 6 steps; log_every is 4.
    assert [line["step"] for line in lines] == [4, 6, 8, 12]
    promised = {"step", "epoch", "loss", "contrastive_accuracy", "contrastive_entropy"}
    promised |= {"learning_rate", "views_per_second", "alignment", "uniformity", "feature_std"}
    assert all(promised <= set(line) for line in lines)
    assert lines[1]["epoch"] == pytest.approx(1.0)
    probed = [line["step"] for line in lines if "knn_top1" in line and "validation_loss" in line]
    assert probed == [6, 12]
    assert all(0 <= line["linear_accuracy"] <= 1 for line in lines)
    # The rate of the last step: 12 steps, 3 of them warm-up, peak 0.1 · 32 / 256.
    last = WarmupCosine(0.0125, 3, 12)(11)
    assert lines[-1]["learning_rate"] == pytest.approx(float(last))


def test_tensorboard_shows_scalars_and_view_pairs(run_dir):
    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"loss", "knn_top1", "validation_loss", "uniformity", "view_pairs"} <= tags
    assert [event.step for event in events.Tensors("loss")] == [4, 6, 8, 12]


@pytest.mark.parametrize("steps", [8, 13, 25])
def test_a_trace_of_ten_steps_lies_where_tensorboard_looks(tmp_path, steps):
    said = []
    settings = changed(optimization={"train_steps": steps}, monitoring={"profile": True})
    pretrain(settings, tmp_path, say=said.append)
    traces = list((tmp_path / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb"))
    assert len(traces) == (steps > 10)
    assert all(b"step_num" in trace.read_bytes() for trace in traces)
    says = "trace written to" if traces else "nothing traced, for training took 8 calls"
    assert any(says in line for line in said)
    # It is no setting of the run: without it, the run goes on.
    pretrain(changed(settings, monitoring={"profile": False}), tmp_path)


def test_load_gives_the_trained_model(run_dir):
    model = simclr_tf.load(run_dir)
    again = simclr_tf.load(run_dir)
    assert int(model.step) == 12
    images = tf.random.stateless_uniform([3, 16, 16, 3], [1, 2])
    features = model.encoder(images, training=False)
    np.testing.assert_array_equal(features, again.encoder(images, training=False))
    # A model of the same seed that was not restored answers otherwise.
    fresh = build_model(*RunDir(run_dir).read_config())
    assert not np.allclose(features, fresh.encoder(images, training=False))


def test_finished_run_is_left_alone(run_dir):
    before = (run_dir / "metrics.jsonl").read_bytes()
    said = []
    watched = changed(
        data={"validation_fraction": 0.25},
        optimization={"train_steps": 12},
        monitoring={"knn_every_epochs": 1.0, "eval_every_epochs": 1.0},
    )
    pretrain(watched, run_dir, say=said.append)
    assert "finished" in said[-1]
    assert (run_dir / "metrics.jsonl").read_bytes() == before


LAMB = {"optimizer": "lamb", "learning_rate": 0.01, "weight_decay": 0.1, "precision": "float16"}


@pytest.mark.parametrize(
    "settings",
    [{}, pytest.param(LAMB, marks=[pytest.mark.slow, needs("tensorflow_addons")])],
    ids=["momentum", "lamb"],
)
def test_resumed_run_equals_an_unbroken_one(tmp_path, settings):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    config_ = changed(optimization=settings)
    unbroken = pretrain(config_, whole)

    pretrain(config_, broken)
    # Back to the checkpoint of step 5, in the middle of a logging interval and of an epoch.
    checkpoints = broken / "checkpoints"
    for file in checkpoints.glob("step-10.*"):
        file.unlink()
    (checkpoints / "checkpoint").write_text('model_checkpoint_path: "step-5"\n')
    said = []
    resumed = pretrain(config_, broken, say=said.append)
    assert any("resuming" in line and "step 5 of 10" in line for line in said)
    for ours, theirs in zip(resumed.variables, unbroken.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    figures = ("step", "epoch", "loss", "contrastive_accuracy", "linear_loss", "learning_rate")
    for ours, theirs in zip(rows(broken), rows(whole), strict=True):
        assert [ours[name] for name in figures] == [theirs[name] for name in figures]


def test_steps_per_execution_change_when_is_logged_and_nothing_else(tmp_path):
    one, three = tmp_path / "one", tmp_path / "three"
    wanted, found = pretrain(TINY, one), pretrain(TINY, three, steps_per_execution=3)
    for ours, theirs in zip(found.encoder.variables, wanted.encoder.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # log_every is 4 and checkpoint_steps 5, of 10; the host sees the steps 3, 6, 9 and 10.
    assert [row["step"] for row in rows(one)] == [4, 8, 10]
    assert [row["step"] for row in rows(three)] == [6, 9, 10]
    saved = {path.stem for path in (three / "checkpoints").glob("*.index")}
    assert saved == {"step-6", "step-10"}


@pytest.mark.slow
def test_replicas_train_probe_and_go_on_as_one_device(tmp_path, mirrored):
    config_ = changed(
        data={"validation_fraction": 0.25}, monitoring={"log_every": 1, "knn_every_epochs": 1.0}
    )
    one, two = tmp_path / "one", tmp_path / "two"
    pretrain(config_, one)
    said = []
    replicas = DistributionContext(mirrored(2), "2 CPU devices")
    model = pretrain(config_, two, replicas, say=said.append)
    assert said[0] == "2 CPU devices: global batch 32, 16 per replica"
    for ours, theirs in zip(rows(two)[:3], rows(one)[:3], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert ours["linear_loss"] == pytest.approx(theirs["linear_loss"], rel=1e-3)
    assert [row["step"] for row in rows(two) if "knn_top1" in row] == [6, 10]
    assert RunDir(two).read_config()[1].num_replicas == 2

    # What was trained on two devices is loaded and resumed on one, and the other way round.
    loaded = simclr_tf.load(two)
    for ours, theirs in zip(loaded.encoder.variables, model.encoder.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
    _, held_out = open_source("shapes", "train[:256]").holdout(0.25, 0)
    measured = validation_loss_evaluator(held_out, 32)(loaded)["validation_loss"]
    assert measured == pytest.approx(rows(two)[-1]["validation_loss"], rel=1e-5)
    (two / "checkpoints" / "checkpoint").write_text('model_checkpoint_path: "step-5"\n')
    said.clear()
    pretrain(config_, two, say=said.append)
    assert any("step 5 of 10" in line for line in said)


def test_replicas_with_statistics_of_their_own_stay_as_many(tmp_path, mirrored):
    local = changed(encoder={"global_bn": False}, optimization={"train_steps": 1})
    pretrain(local, tmp_path)
    with pytest.raises(UserError, match=r"--global_bn \(was False, now True\);"):
        pretrain(changed(optimization={"train_steps": 1}), tmp_path)
    replicas = DistributionContext(mirrored(2))
    with pytest.raises(UserError, match=r"the number of replicas \(was 1, now 2\)"):
        pretrain(local, tmp_path, replicas)


def test_files_dealt_out_to_workers_stay_with_as_many(tmp_path):
    class Dealt(ArraySource):
        def shard_by_file(self, num_workers, worker_index):
            return self

    run = RunDir(tmp_path)
    run.write_config(TINY, dataclasses.replace(PLAN, num_workers=2))
    records, files = (kind("it", np.zeros((4, 8, 8, 3), np.uint8)) for kind in (ArraySource, Dealt))
    check_same_sharding(run, PLAN, records)
    check_same_sharding(run, dataclasses.replace(PLAN, num_workers=2), files)
    with pytest.raises(UserError, match="trained by 2 workers, this is 1, and the files of it"):
        check_same_sharding(run, PLAN, files)


def test_a_microbatch_must_divide_a_replicas_images(tmp_path):
    uneven = changed(optimization={"microbatch_size": 12})
    with pytest.raises(UserError, match="--microbatch_size=12 does not divide a replica's 32"):
        pretrain(uneven, tmp_path)
    never_again = changed(
        optimization={"microbatch_size": 16}, augmentation={"policy": "randaugment"}
    )
    with pytest.raises(UserError, match="--microbatch_size=16 makes every view twice"):
        check_trainable(never_again, 1)
    assert not list(tmp_path.iterdir())


def test_a_bucket_is_no_run_directory():
    with pytest.raises(UserError, match="--model_dir=gs://bucket/run: must be a directory"):
        pretrain(TINY, "gs://bucket/run")


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("encoder", "width_multiplier", 1 / 8),
        ("optimization", "train_batch_size", 64),
        ("contrastive_loss", "temperature", 0.5),
    ],
)
def test_resuming_as_something_else_is_refused_by_name(run_dir, section, field, value):
    same = changed(data={"validation_fraction": 0.25}, optimization={"train_steps": 12})
    with pytest.raises(UserError, match=f"--{field} "):
        pretrain(changed(same, **{section: {field: value}}), run_dir)


def test_checkpoint_starts_from_other_weights(run_dir, tmp_path):
    start = changed(
        optimization={"train_steps": 1, "learning_rate": 1e-12},
        checkpoints={"checkpoint": str(run_dir)},
    )
    model = pretrain(start, tmp_path / "new")
    assert int(model.step) == 1
    old = simclr_tf.load(run_dir)
    for part in "encoder", "projection_head":
        ours, theirs = getattr(model, part), getattr(old, part)
        for new, kept in zip(ours.trainable_variables, theirs.trainable_variables, strict=True):
            np.testing.assert_allclose(new, kept, atol=1e-7)
        # One step moves batch norm's statistics a tenth of the way to its batch's.
        fresh = getattr(build_model(*RunDir(tmp_path / "new").read_config()), part)
        moved, anew = (
            sum(np.abs(a - b).mean() for a, b in zip(w, theirs.get_weights(), strict=True))
            for w in (ours.get_weights(), fresh.get_weights())
        )
        assert moved < 0.3 * anew


def test_checkpoint_that_does_not_fit_is_refused(run_dir, tmp_path):
    wide = changed(encoder={"width_multiplier": 1 / 8}, checkpoints={"checkpoint": str(run_dir)})
    with pytest.raises(UserError, match=r"--checkpoint=.*encoder"):
        pretrain(wide, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    missing = changed(checkpoints={"checkpoint": str(tmp_path / "nothing")})
    with pytest.raises(UserError, match="holds no run"):
        pretrain(missing, tmp_path / "newer")


def test_damaged_checkpoint_is_an_error_not_random_weights(run_dir, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    for data in (copy / "checkpoints").glob("*.data-*"):
        data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(UserError, match="does not hold this model"):
        simclr_tf.load(copy)


def test_checkpoints_that_nothing_names_are_not_trained_over(run_dir, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    (copy / "checkpoints" / "checkpoint").unlink()
    same = changed(data={"validation_fraction": 0.25}, optimization={"train_steps": 12})
    with pytest.raises(UserError, match='model_checkpoint_path: "step-12"'):
        pretrain(same, copy)
    assert (copy / "metrics.jsonl").read_bytes() == (run_dir / "metrics.jsonl").read_bytes()
    (copy / "checkpoints" / "checkpoint").write_text('model_checkpoint_path: "step-10"')
    assert int(simclr_tf.load(copy).step) == 10


def test_load_names_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        simclr_tf.load(tmp_path)


def test_keeps_the_newest_checkpoints(run_dir):
    kept = sorted(p.name for p in (run_dir / "checkpoints").glob("*.index"))
    assert kept == ["step-10.index", "step-12.index"]


def test_loss_that_is_not_finite_ends_the_run_with_its_step(tmp_path):
    wild = changed(optimization={"learning_rate": 1e30, "warmup_epochs": 0})
    with pytest.raises(UserError, match=r"not finite at step [2-4]: try"):
        pretrain(wild, tmp_path)
    # Weights that are not numbers are not kept.
    assert RunDir(tmp_path).latest_checkpoint() is None


@pytest.mark.slow
@pytest.mark.parametrize(("probed", "replicas"), [(False, 1), (True, 1), (False, 2)])
def test_an_image_that_fails_to_decode_is_named_and_the_run_goes_on_without_it(
    tmp_path, mirrored, probed, replicas
):
    draw = np.random.default_rng(0)
    for i in range(40):
        folder = tmp_path / "photos" / f"kind{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    victim = tmp_path / "photos" / "kind1" / "17.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:2000])  # the header is right
    # Either training comes upon it, or the probe, after a step on the first 16 images.
    photos = f"folder:{tmp_path / 'photos'}"
    settings = changed(
        data={
            "dataset": photos,
            "train_split": "train[:16]" if probed else "train",
            "eval_split": "train[:4]",
        },
        optimization={"train_batch_size": 8, "train_steps": 5},
        monitoring={"log_every": 5},
    )
    if probed:
        settings = changed(settings, monitoring={"probe_dataset": photos, "knn_every_epochs": 1.0})
    run = tmp_path / "run"
    with pytest.raises(UserError, match=str(victim)) as raised:
        pretrain(settings, run, DistributionContext(mirrored(2)) if replicas == 2 else None)
    saved = int(simclr_tf.load(run).step)
    assert f"saved at step {saved}" in str(raised.value)
    if probed:
        assert [row["step"] for row in rows(run)] == [saved] == [2]

    victim.write_bytes(whole)
    said = []
    model = pretrain(settings, run, say=said.append)
    assert any(f"at step {saved} of 5" in line for line in said)
    assert int(model.step) == 5
    assert rows(run)[-1]["step"] == 5


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew(tmp_path):
    model_dir = tmp_path / "run"
    RunDir(model_dir).write_config(TINY.resolve(), PLAN)
    said = []
    pretrain(
        changed(optimization={"train_steps": 1, "learning_rate": 0.2}), model_dir, say=said.append
    )
    assert any("no checkpoint yet" in line for line in said)
    assert RunDir(model_dir).read_config()[0].optimization.learning_rate == 0.2


def test_a_changed_number_of_images_or_classes_is_refused(run_dir):
    config_, plan = RunDir(run_dir).read_config()
    for field, name in ("num_examples", "images"), ("num_classes", "classes"):
        with pytest.raises(UserError, match=rf"the number of {name} \(was .*, now 3\)"):
            RunDir(run_dir).check_resumable(config_, dataclasses.replace(plan, **{field: 3}))


def test_probes_leave_out_what_has_no_label():
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3)).astype(np.uint8)
    labels = np.random.default_rng(1).integers(0, 2, 40)
    model = build_model(TINY.resolve(), PLAN)
    names = ("a", "b")
    known = ArraySource("known", images[:20], labels[:20], names)
    half = ArraySource("half", images, np.where(np.arange(40) < 20, labels, -1), names)
    assert probe_evaluator(half, half, 16)(model) == probe_evaluator(known, known, 16)(model)
    none = ArraySource("none", images, np.full(40, -1), names)
    with pytest.raises(UserError, match="no image of none has a label"):
        probe_evaluator(known, none, 16)(model)


def stored(path: Path, name: str, label: str, feature: object, labels: object) -> dict:
    """The data settings of a new TFDS set of 16 images, whose labels are those of its images."""
    draw = np.random.default_rng(0)
    examples = [
        (i, {"image": draw.integers(0, 256, (16, 16, 3), np.uint8), label: labels(i)})
        for i in range(16)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(16, 16, 3)), label: feature}
        ),
        split_datasets={"train": examples, "test": examples[:8]},
        data_dir=path,
    )
    return {"dataset": name, "data_dir": str(path), "train_split": "train", "eval_split": "test"}


NAMES = tfds.features.ClassLabel(names=list("abcd"))


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> dict:
    """The data settings of a set whose images have several labels each."""
    names = tfds.features.Sequence(NAMES)
    path = tmp_path_factory.mktemp("tfds")
    return stored(path, "several", "labels", names, lambda i: [i % 3, 3])


@pytest.mark.parametrize("probed", ["", "several"])
def test_probes_of_several_labels_per_image_are_refused_at_the_start(tmp_path, several, probed):
    data = {**several, "dataset": "shapes"} if probed else several
    watching = {"knn_every_epochs": 1.0, "probe_dataset": probed}
    message = "--knn_every_epochs: several t.* several labels per image.* --probe_dataset"
    batch = {"train_batch_size": 4}
    with pytest.raises(UserError, match=message):
        pretrain(changed(data=data, optimization=batch, monitoring=watching), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_images_of_several_labels_are_trained_on_without_a_linear_head(tmp_path, several):
    settings = changed(
        data=several,
        optimization={"train_batch_size": 4, "train_steps": 2},
    )
    said = []
    model = pretrain(settings, tmp_path, say=said.append)
    assert model.linear_head is None and int(model.step) == 2
    last = rows(tmp_path)[-1]
    assert np.isfinite(last["loss"]) and "linear_accuracy" not in last
    (note,) = [line for line in said if "--lineareval_while_pretraining" in line]
    assert note.startswith("note: the images of several train have several labels each")
    assert any("several train, several labels per image; " in line for line in said)
    assert simclr_tf.load(tmp_path).linear_head is None


def test_supcon_without_one_label_for_each_image_is_refused_at_the_start(tmp_path, several):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for i in range(4):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    for data, found in (
        ({"dataset": f"folder:{tmp_path / 'photos'}", "train_split": "train"}, "no labels"),
        (several, "several labels per image"),
        (stored(tmp_path / "tfds", "unlabelled", "label", NAMES, lambda i: -1), "no image with a"),
    ):
        settings = changed(
            data=data, contrastive_loss={"loss": "supcon"}, optimization={"train_batch_size": 4}
        )
        with pytest.raises(UserError, match=f"--loss=supcon: .* has {found}.*, and the loss needs"):
            pretrain(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_loss_trains_is_validated_and_comes_back(tmp_path):
    settings = changed(
        data={"validation_fraction": 0.25},
        contrastive_loss={"loss": "supcon", "margin": 0.6},
        optimization={"train_steps": 2},
        monitoring={"log_every": 1},
    )
    pretrain(settings, tmp_path)
    first, last = rows(tmp_path)
    model = simclr_tf.load(tmp_path)
    _, held_out = open_source("shapes", "train[:256]").holdout(0.25, 0)
    found = validation_loss_evaluator(held_out, 32)(model)
    for name, value in found.items():
        assert last[name] == pytest.approx(value, rel=1e-5)
    assert RunDir(tmp_path).read_config()[0].contrastive_loss == settings.contrastive_loss
    # The same weights under NT-Xent: another loss, the same accuracy.
    plain = build_model(changed(settings, contrastive_loss={"loss": "nt_xent"}).resolve(), PLAN)
    plain.set_weights(model.get_weights())
    other = validation_loss_evaluator(held_out, 32)(plain)
    name = "validation_contrastive_accuracy"
    assert abs(found.pop("validation_loss") - other.pop("validation_loss")) > 1e-3
    assert found == other == {name: last[name]}
    assert first["contrastive_entropy"] != last["contrastive_entropy"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer", ["lars", "adam", "adamw", pytest.param("lamb", marks=needs("tensorflow_addons"))]
)
def test_every_optimizer_trains(tmp_path, optimizer):
    settings = changed(
        optimization={
            "optimizer": optimizer,
            "learning_rate": {"lars": 1.0}.get(optimizer, 1e-3),
            "learning_rate_scaling": "none",
            "weight_decay": 1e-4,
            "train_steps": 2,
        }
    )
    model = pretrain(settings, tmp_path)
    assert np.isfinite(rows(tmp_path)[-1]["loss"])
    assert int(model.step) == 2


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_close_to_float32(tmp_path, precision):
    steps = changed(optimization={"train_steps": 1})
    pretrain(steps, tmp_path / "float32")
    model = pretrain(changed(steps, optimization={"precision": precision}), tmp_path / precision)
    assert all(v.dtype == tf.float32 for v in model.trainable_variables)
    reference, mixed = rows(tmp_path / "float32")[-1], rows(tmp_path / precision)[-1]
    assert mixed["loss"] == pytest.approx(reference["loss"], rel=0.03)
    assert int(simclr_tf.load(tmp_path / precision).step) == 1


def test_warm_up_longer_than_the_run_is_noted(tmp_path):
    said = []
    pretrain(
        changed(optimization={"warmup_epochs": 100, "train_steps": 1}), tmp_path, say=said.append
    )
    assert any("--warmup_epochs" in line and "never reaches" in line for line in said)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"optimization": {"train_batch_size": 512}}, "--train_batch_size=512: more than the 256"),
        (
            {"optimization": {"train_epochs": 0.01, "train_steps": 0}},
            "--train_epochs=0.01 of 256 images is less than one step",
        ),
        ({"data": {"train_split": "trian"}}, "train"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(tmp_path, sections, message):
    with pytest.raises(UserError, match=message):
        pretrain(changed(**sections), tmp_path / "run")
    assert not (tmp_path / "run").exists()
