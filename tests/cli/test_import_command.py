"""`import`, on files as the reference writes them: the same function comes out of the run."""

import json
import resource
import signal

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import simclr_tf
from simclr_tf.models.resnet import ENDPOINTS
from simclr_tf.runs.run_dir import RunDir
from tests import reference_files
from tests.commands import error_of, output_of
from tests.processes import finish, python


@pytest.fixture(scope="module")
def named(reference_npz):
    return reference_files.variables_of(reference_npz)


@pytest.fixture(scope="module")
def saved_model(named, tmp_path_factory):
    return reference_files.write_saved_model(tmp_path_factory.mktemp("saved") / "31", named)


@pytest.fixture(scope="module")
def imported(saved_model, tmp_path_factory):
    """A run made of the SavedModel, and what was printed."""
    path = tmp_path_factory.mktemp("runs") / "imported"
    return path, output_of("import", f"--checkpoint={saved_model}", f"--model_dir={path}")


def outputs_of(model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Every endpoint of a run's model by the reference's name for it."""
    encoder, head = model.encoder, model.projection_head
    ends = {name: encoder.get_layer(name).output for name in ENDPOINTS}
    found = keras.Model(encoder.input, ends)(images, training=False)
    features = found["final_avg_pool"]
    found["proj_head_output"] = head(features, training=False)
    if model.linear_head is not None:
        found["logits_sup"] = model.linear_head(features)
    return {name: value.numpy() for name, value in found.items()}


def check_function(model, npz) -> None:
    found = outputs_of(model, npz["input"])
    expected = {n.removeprefix("output/"): v for n, v in npz.items() if n.startswith("output/")}
    assert len(expected) == 8
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4, rtol=0, err_msg=name)


def test_imported_saved_model_computes_the_same_features(imported, reference_npz):
    path, said = imported
    model = simclr_tf.load(path)
    assert int(model.step) == 0
    check_function(model, reference_npz)
    architecture = "ResNet-18 × 0.25, cifar stem, projection head of 3 layers to 128, "
    assert f"a SavedModel of a {architecture}" in said
    assert "linear head of 10 classes" in said and "121 variables" in said
    assert "a run at step 0 for images of 32 pixels" in said
    assert f"next: simclr-tf export --model_dir={path}" in said
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["imported"]


def test_imported_checkpoint_computes_the_same_features(named, reference_npz, tmp_path):
    prefix = reference_files.write_checkpoint(tmp_path, reference_files.by_key(named))
    flags = [f"--model_dir={tmp_path / 'run'}", "--image_size=48"]
    said = output_of("import", f"--checkpoint={prefix}", *flags)
    check_function(simclr_tf.load(tmp_path / "run"), reference_npz)
    assert "skipped by name: 7 values of optimizer state" in said
    assert "skipped by name: 2 values of counters" in said
    config, plan = RunDir(tmp_path / "run").read_config()
    assert (config.augmentation.image_size, config.encoder.stem) == (48, "cifar")
    assert (config.data.dataset, config.data.eval_split) == ("imagenet2012", "validation")
    assert (plan.num_classes, plan.is_imported) == (10, True)


@pytest.mark.slow
def test_encoder_without_heads_is_imported(named, reference_npz, tmp_path):
    encoder = {name: value for name, value in named.items() if name.startswith("resnet/")}
    path = reference_files.write_saved_model(tmp_path / "saved", encoder)
    said = output_of("import", f"--checkpoint={path}", f"--model_dir={tmp_path / 'run'}")
    model = simclr_tf.load(tmp_path / "run")
    assert model.linear_head is None and not model.projection_head.variables
    features = reference_npz["output/final_avg_pool"]
    found = outputs_of(model, reference_npz["input"])["proj_head_output"]
    np.testing.assert_allclose(found, features, atol=1e-4, rtol=0)
    assert "no projection head" in said and "linear head" not in said


@pytest.mark.slow
def test_export_of_an_import_computes_the_same_features(imported, reference_npz, tmp_path):
    path, _ = imported
    output_of("export", f"--model_dir={path}", f"--output={tmp_path / 'out'}")
    ends = tf.saved_model.load(str(tmp_path / "out")).signatures["all_outputs"](
        images=tf.constant(reference_npz["input"])
    )
    for ours, theirs in {"features": "final_avg_pool", "projection": "proj_head_output"}.items():
        expected = reference_npz[f"output/{theirs}"]
        np.testing.assert_allclose(ends[ours], expected, atol=1e-4, rtol=0)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "pretrained on | the dataset that the authors of the imported weights state" in card


SHAPES = [
    *("--dataset=shapes", "--train_split=train[:64]", "--eval_split=test[:64]"),
    *("--train_batch_size=16", "--train_steps=1", "--warmup_epochs=0"),
]
ARCHITECTURE = ["--resnet_depth=18", "--width_multiplier=0.25", "--image_size=32"]


def test_training_of_an_import_is_not_resumed(imported):
    path, _ = imported
    before = (path / "config.json").read_bytes()
    error = error_of("pretrain", *ARCHITECTURE, *SHAPES, f"--model_dir={path}")
    assert "holds imported weights" in error and f"--checkpoint={path}" in error
    assert (path / "config.json").read_bytes() == before


@pytest.mark.slow
def test_import_is_evaluated_without_epochs_in_the_table(imported):
    path, _ = imported
    flags = ["--protocols=knn", "--knn_k=5", "--table", *SHAPES[:3]]
    said = output_of("evaluate", f"--model_dir={path}", *flags)
    (record,) = json.loads((path / "evaluations.json").read_text(encoding="utf-8"))
    assert (record["dataset"], record["step"]) == ("shapes", 0)
    (row,) = [line for line in said.splitlines() if "R18 × 0.25" in line]
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[cells.index("R18 × 0.25") :][:4] == ["R18 × 0.25", "128", "128", "–"]


@pytest.mark.slow
def test_training_starts_from_imported_weights(imported, tmp_path):
    path, _ = imported
    new = tmp_path / "new"
    start = [f"--checkpoint={path}", f"--model_dir={new}"]
    said = output_of("pretrain", *ARCHITECTURE, *SHAPES, *start)
    assert f"starting from the weights of {path}" in said
    start = [f"--checkpoint={path}", f"--model_dir={tmp_path / 'tuned'}", "--mode=train"]
    output_of("finetune", *start, *SHAPES)


def refused(tmp_path, checkpoint, *flags: str) -> str:
    """The one line with which an import is refused that leaves nothing behind."""
    places = tmp_path / "places"
    places.mkdir(exist_ok=True)
    arguments = [f"--checkpoint={checkpoint}", f"--model_dir={places / 'run'}", *flags]
    error = error_of("import", *arguments)
    assert list(places.iterdir()) == []
    return error


NAME = "resnet/block_group2/residual_block_3/batch_norm_relu_9/sync_batch_normalization_9/beta:0"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.ones(33, np.float32), "has shape [33], not [32]"),
        (np.full(32, np.inf, np.float32), "contains numbers that are not finite"),
    ],
    ids=["shape", "value"],
)
def test_variable_that_does_not_fit_is_named_and_no_run_is_written(named, tmp_path, value, reason):
    path = reference_files.write_saved_model(tmp_path / "saved", {**named, NAME: value})
    assert f"--checkpoint={path}: {NAME} {reason}" in refused(tmp_path, path)


def test_missing_key_is_named(named, tmp_path):
    keyed = reference_files.by_key(named)
    key = f"model/_projection_head/linear_layers/1/bn_relu/bn/gamma{reference_files.SUFFIX}"
    del keyed[key]
    prefix = reference_files.write_checkpoint(tmp_path, keyed)
    assert f"--checkpoint={prefix}: {key} is missing" in refused(tmp_path, prefix)


def test_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"HDF")
    assert f"--checkpoint={path}: expected a SavedModel" in refused(tmp_path, path)


def test_flags_are_validated_before_the_file_is_opened(saved_model, imported, tmp_path):
    assert "=4: expected an integer of at least 8" in refused(tmp_path, "nowhere", "--image_size=4")
    path, _ = imported
    for place, what in ((path, "holds a run already"), (path.parent, "is not empty")):
        error = error_of("import", "--checkpoint=nowhere", f"--model_dir={place}")
        assert f"--model_dir={place} {what}" in error
    for flag in (f"--checkpoint={saved_model}", f"--model_dir={tmp_path / 'run'}"):
        assert " is missing: " in error_of("import", flag)


def test_import_writes_into_an_empty_directory(saved_model, tmp_path):
    place = tmp_path / "mounted"
    place.mkdir()
    link = tmp_path / "link"
    link.symlink_to(place)
    output_of("import", f"--checkpoint={saved_model}", f"--model_dir={link}")
    assert (place / "config.json").exists() and link.is_symlink()


# Above this limit on the size of files a write fails; by default it ends the process.
MAX_BYTES = 100_000
KILLED = f"""
import resource, signal, sys
from simclr_tf.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, ({MAX_BYTES}, {MAX_BYTES}))
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_import_that_is_killed_or_cannot_be_written_leaves_no_run(saved_model, tmp_path):
    place = tmp_path / "runs" / "run"
    command = ["import", f"--checkpoint={saved_model}", f"--model_dir={place}"]
    status, _, errors = finish(python("-c", KILLED, *command))
    assert status == -signal.SIGXFSZ, errors
    assert not place.exists()
    assert [entry.name for entry in place.parent.iterdir()] == [".incomplete.run"]

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_BYTES, limits[1]))
    try:  # Python ignores the signal
        error = error_of(*command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"simclr-tf: error: {place} cannot be written: " in error
    assert list(place.parent.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet50", "resnet50_sk"])
def test_weights_of_the_published_size_are_imported(reference_variables, tmp_path, model):
    draw = np.random.default_rng(0)
    named = {
        name: draw.uniform(0.5, 1.5, shape).astype(np.float32)
        for name, shape in reference_variables[model]["variables"]
    }
    path = reference_files.write_saved_model(tmp_path / "saved", named)
    said = output_of("import", f"--checkpoint={path}", f"--model_dir={tmp_path / 'run'}")
    assert f"{len(named)} variables" in said and "images of 224 pixels" in said
    loaded = simclr_tf.load(tmp_path / "run")
    sizes = [v.shape.num_elements() for v in loaded.encoder.trainable_variables]
    assert sum(sizes) == {"resnet50": 23_508_032, "resnet50_sk": 35_215_584}[model]
    values = [v for part in (loaded.encoder, loaded.projection_head) for v in part.variables]
    values += loaded.linear_head.variables
    assert sorted(float(tf.reduce_sum(v)) for v in values) == pytest.approx(
        sorted(float(value.sum()) for value in named.values()), rel=1e-5
    )
