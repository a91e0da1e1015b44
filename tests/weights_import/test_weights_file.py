"""Reading SavedModels and checkpoints: what is in them, and what is refused before it is read."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from simclr_tf.errors import UserError
from simclr_tf.weights_import.weights_file import open_weights_file
from tests import reference_files

NAMED = {
    "resnet/conv2d/kernel:0": np.arange(12, dtype=np.float32).reshape(3, 4),
    "resnet/batch_normalization/moving_mean:0": np.ones(4, np.float32),
}
KEYED = {f"model/{name[:-2]}{reference_files.SUFFIX}": value for name, value in NAMED.items()}
KEYED["model/more/bias" + reference_files.SUFFIX] = np.zeros(2, np.float32)


def test_saved_model_has_the_variables_that_its_call_uses(tmp_path):
    path = reference_files.write_saved_model(tmp_path / "saved", NAMED)
    stored = open_weights_file(path)
    assert (stored.name_kind, dict(stored.skipped)) == ("name", {})
    # As the functions themselves tell, which are not loaded: without what they do not use.
    loaded = tf.saved_model.load(str(path))
    variables = loaded.__call__.concrete_functions[0].graph.variables
    assert list(stored.shapes) == [variable.name for variable in variables]
    assert set(stored.shapes) == set(NAMED)
    for name, value in NAMED.items():
        assert stored.shapes[name] == value.shape
        np.testing.assert_array_equal(stored.read(name), value)


def test_saved_model_is_read_without_its_functions(tmp_path):
    path = reference_files.write_saved_model(tmp_path / "saved", NAMED)
    file = path / "saved_model.pb"
    document = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    document.meta_graphs[0].graph_def.Clear()  # nor, then, could one be executed
    file.write_bytes(document.SerializeToString())
    with pytest.raises(Exception, match=r".+"):
        tf.saved_model.load(str(path))
    stored = open_weights_file(path)
    assert {name: stored.read(name).tolist() for name in stored.shapes} == {
        name: value.tolist() for name, value in NAMED.items()
    }


@pytest.mark.parametrize("named", ["prefix", "directory"])
def test_checkpoint_has_the_model_and_counts_skipped_values(tmp_path, named):
    prefix = reference_files.write_checkpoint(tmp_path, KEYED)
    stored = open_weights_file(prefix if named == "prefix" else tmp_path)
    assert stored.name_kind == "key"
    assert set(stored.shapes) == set(KEYED)
    for key, value in KEYED.items():
        np.testing.assert_array_equal(stored.read(key), value)
    # iter, decay, learning rate and momentum, three slots; global_step and save_counter
    assert dict(stored.skipped) == {"optimizer state": 7, "counters": 2}


def test_path_without_weights_is_refused(tmp_path):
    (tmp_path / "file.txt").write_text("no weights")
    (tmp_path / "empty").mkdir()
    for name in ("nothing", "file.txt", "empty"):
        with pytest.raises(
            UserError, match=r"expected a SavedModel .* or a TensorFlow checkpoint .* got neither"
        ):
            open_weights_file(tmp_path / name)


def test_run_of_this_project_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="a run of this project already"):
        open_weights_file(tmp_path)


def test_saved_model_that_cannot_be_called_is_refused(tmp_path):
    module = tf.Module()
    module.variable = tf.Variable(1.0)
    tf.saved_model.save(module, str(tmp_path))
    with pytest.raises(UserError, match="cannot be called"):
        open_weights_file(tmp_path)


@pytest.mark.parametrize("size", [0, 100])
def test_damaged_saved_model_is_refused(tmp_path, size):
    path = reference_files.write_saved_model(tmp_path / "saved", NAMED)
    file = path / "saved_model.pb"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError, match=r"cannot be read: .*the file is damaged"):
        open_weights_file(path)


def test_index_larger_than_the_data_is_refused_before_reading(tmp_path):
    prefix = reference_files.write_checkpoint(tmp_path, KEYED)
    (data,) = tmp_path.glob("*.data-*")
    data.write_bytes(data.read_bytes()[:40])
    with pytest.raises(UserError, match=r"expected \d+ bytes of variables, got 40"):
        open_weights_file(prefix)


def test_damaged_index_is_refused(tmp_path):
    prefix = reference_files.write_checkpoint(tmp_path, KEYED)
    (index,) = tmp_path.glob("*.index")
    index.write_bytes(index.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"cannot be read: .*the file is damaged"):
        open_weights_file(prefix)


def test_value_that_is_not_finite_is_refused(tmp_path):
    name = "resnet/conv2d/kernel:0"
    bad = {**NAMED, name: np.full(3, np.nan, np.float32)}
    stored = open_weights_file(reference_files.write_saved_model(tmp_path / "saved", bad))
    with pytest.raises(UserError, match=f"{name} contains numbers that are not finite"):
        stored.read(name)


def test_variable_of_another_type_is_refused(tmp_path):
    key = next(iter(KEYED))
    prefix = reference_files.write_checkpoint(tmp_path, {**KEYED, key: np.ones(3, np.float64)})
    with pytest.raises(UserError, match=f"{key} is of type float64, expected float32"):
        open_weights_file(prefix)
