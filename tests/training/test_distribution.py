"""Strategies of the distribution options, and errors of contradictory ones."""

import json
import socket

import pytest
import tensorflow as tf

from simclr_tf.errors import UserError
from simclr_tf.option_groups import Distribution
from simclr_tf.training.distribution import make_distribution
from tests.processes import free_workers


def cluster(**task):
    """TF_CONFIG of a process in a cluster of one worker."""
    return json.dumps({"cluster": {"worker": ["a:1"]}} | ({"task": task} if task else {}))


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)


def test_auto_strategy_is_one_device_on_one_cpu():
    context = make_distribution(Distribution())
    assert context.num_replicas == 1 and context.is_chief
    assert context.describe(64) == "one device: global batch 64, 64 per replica"


def test_replicas_without_gpu_are_logical_cpu_devices():
    context = make_distribution(Distribution(num_replicas=4))
    assert isinstance(context.strategy, tf.distribute.MirroredStrategy)
    assert context.num_replicas == 4
    assert context.describe(64) == "4 CPU devices: global batch 64, 16 per replica"
    with pytest.raises(
        UserError, match=r"--train_batch_size=66: expected a multiple of the 4 .* 64 or 68"
    ):
        context.describe(66)
    with pytest.raises(UserError, match=r"such as 4$"):
        context.per_replica_batch_size(3)


def test_devices_cannot_be_created_after_the_first_operation():
    tf.constant(0)
    with pytest.raises(UserError, match="--num_replicas=9: TensorFlow already runs"):
        make_distribution(Distribution(num_replicas=9))


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (Distribution("one_device", workers="a:1"), "--workers contradicts --strategy=one_device"),
        (Distribution("mirrored", tpu_zone="a"), "--tpu_zone contradicts --strategy=mirrored"),
        (Distribution(use_tpu=True, num_replicas=2), "--num_replicas contradicts --use_tpu"),
        (Distribution("one_device", num_replicas=2), "--num_replicas contradicts --strategy"),
        (Distribution(worker_index=0), "--worker_index: expected --workers"),
        (Distribution("multi_worker"), "Fix: set --workers"),
        (Distribution(workers="a:1,b:2"), "--worker_index=-1: expected 0 to 1"),
        (Distribution(workers="a:1,b:2", worker_index=2), "--worker_index=2: expected 0 to 1"),
        (Distribution(workers="a:1,b", worker_index=0), "expected host:port, got 'b'"),
        (Distribution(workers="a:1,a:1", worker_index=0), "occurs twice"),
        (Distribution(tpu_name="grpc://nowhere"), "expected host:port, got 'nowhere'"),
    ],
)
def test_contradictory_options_are_refused(devices, message):
    with pytest.raises(UserError, match=message):
        make_distribution(devices)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "does not have TensorFlow's format"),
        ("[]", "does not have TensorFlow's format"),
        (cluster(), "does not have TensorFlow's format"),
        (cluster(type="worker", index=1), "task index 1: expected 0 to 0"),
        (cluster(type="ps", index=0), "task type 'ps' is not supported"),
    ],
)
def test_invalid_tf_config_is_refused(monkeypatch, value, message):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(UserError, match=message):
        make_distribution(Distribution())


def test_cluster_in_flags_and_tf_config_is_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", cluster(type="worker", index=0))
    with pytest.raises(UserError, match="both --workers and TF_CONFIG"):
        make_distribution(Distribution(workers="a:1", worker_index=0))


def test_unreachable_workers_are_named(monkeypatch, log):
    workers = free_workers(3).split(",")
    with socket.create_server(("127.0.0.1", int(workers[2].rpartition(":")[2]))):
        with pytest.raises(UserError, match=f"{workers[0]}: no response within 1 s") as caught:
            devices = Distribution(workers=",".join(workers), worker_index=1, worker_timeout=1)
            make_distribution(devices)
        assert workers[2] not in str(caught.value)
        # The same cluster by TF_CONFIG, where the chief comes first; this one's port is taken.
        cluster = {"chief": workers[:1], "worker": workers[1:]}
        document = {"cluster": cluster, "task": {"type": "worker", "index": 1}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(document))
        with pytest.raises(UserError, match=f"cannot listen at {workers[2]}"):
            make_distribution(Distribution())
    assert log.messages[0].startswith("waiting up to 1 s")


def test_unreachable_tpu_is_named():
    address = free_workers(1)
    with pytest.raises(
        UserError, match=f"{address}: no response within 1 s. Fix: check that the TPU runs"
    ):
        make_distribution(Distribution(tpu_name=f"grpc://{address}", worker_timeout=1))


def test_missing_tpu_names_the_fix():
    with pytest.raises(UserError, match=r"no TPU \(local\): .* omit --use_tpu"):
        make_distribution(Distribution(use_tpu=True))
