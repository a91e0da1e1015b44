"""Devices and workers: the tf.distribute strategy of the distribution options.

Logical devices and clusters must be set up before TensorFlow's first operation.
"""

import dataclasses
import json
import logging
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf.errors import UserError
from simclr_tf.option_groups import Distribution
from simclr_tf.utils.files import pluralize

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class DistributionContext:
    """Replicas that train together, on one or more workers (processes)."""

    strategy: tf.distribute.Strategy
    name: str = "one device"  # for the log
    num_workers: int = 1
    worker_index: int = 0  # 0 is the chief, which writes the run directory

    @property
    def num_replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    @property
    def is_chief(self) -> bool:
        return self.worker_index == 0

    def per_replica_batch_size(self, global_batch: int) -> int:
        """Returns the number of images per replica; UserError if it is not a whole number."""
        count = self.num_replicas
        if global_batch % count:
            below = global_batch - global_batch % count
            multiples = " or ".join(str(b) for b in (below, below + count) if b)
            raise UserError(
                f"--train_batch_size={global_batch}: expected a multiple of the {count} replicas. "
                f"Fix: use a multiple, such as {multiples}"
            )
        return global_batch // count

    def describe(self, global_batch: int) -> str:
        """Describes the devices and how they share the batch, in one line."""
        line = f"{self.name}: global batch {global_batch}"
        if self.num_workers > 1:
            line += f", {global_batch // self.num_workers} per worker"
        return f"{line}, {self.per_replica_batch_size(global_batch)} per replica"

    def check_workers_agree(self, values: dict[str, int]) -> None:
        """Raises UserError naming the first value that differs between workers; all call it."""
        rows = self.gather_across_workers(list(values.values()))
        for name, column in zip(values, rows.T, strict=True):
            if len(set(column)) > 1:
                raise UserError(f"the workers differ in {name}. Fix: start all with the same flags")

    def gather_across_workers(self, values: Sequence[int]) -> np.ndarray:
        """Returns the values of every worker, int64 [rows, values]; all must call this together."""
        local = tf.constant([list(values)], tf.int64)
        if self.num_workers == 1:
            return local.numpy()

        @tf.function
        def gather_all():
            return self.strategy.gather(self.strategy.run(lambda: local), axis=0)

        return gather_all().numpy()


def single_device() -> DistributionContext:
    """Returns TensorFlow's default strategy: the first GPU, or the CPU."""
    return DistributionContext(tf.distribute.get_strategy())


def make_distribution(options: Distribution) -> DistributionContext:
    """Creates the strategy of the distribution options; UserError if it is not possible."""
    strategy = _resolve_strategy(options)
    if strategy == "tpu":
        return _tpu(options)
    if strategy == "multi_worker":
        return _multi_worker(options)
    if strategy == "mirrored":
        return _mirrored(options.num_replicas)
    return single_device()


def _resolve_strategy(options: Distribution) -> str:
    requested = {
        "--use_tpu": ("tpu", options.use_tpu),
        "--tpu_name": ("tpu", options.tpu_name),
        "--tpu_zone": ("tpu", options.tpu_zone),
        "--gcp_project": ("tpu", options.gcp_project),
        "--workers": ("multi_worker", options.workers),
        "--num_replicas": ("mirrored", options.num_replicas),
    }
    strategy = None if options.strategy == "auto" else options.strategy
    set_by = f"--strategy={options.strategy}"
    for flag, (needed, value) in requested.items():
        if not value:
            continue
        is_compatible = strategy == "one_device" and flag == "--num_replicas" and value == 1
        if strategy not in (None, needed) and not is_compatible:
            raise UserError(f"{flag} contradicts {set_by}. Fix: omit one of them")
        strategy, set_by = strategy or needed, flag
    if options.worker_index >= 0 and not options.workers:
        raise UserError(
            "--worker_index: expected --workers with it. Fix: set --workers to host:port of "
            "every process"
        )
    if strategy is not None:
        return strategy
    if cluster_from_tf_config():
        return "multi_worker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one_device"


def _mirrored(count: int) -> DistributionContext:
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        if count > gpus:
            raise UserError(
                f"--num_replicas={count}: expected at most {gpus}, the number of visible GPUs. "
                f"Fix: use --num_replicas={gpus}"
            )
        count = count or gpus
        devices, noun = [f"GPU:{i}" for i in range(count)], "GPU"
    else:
        count = count or 1
        _make_logical_cpus(count)
        devices, noun = [f"CPU:{i}" for i in range(count)], "CPU device"
    return DistributionContext(tf.distribute.MirroredStrategy(devices), pluralize(count, noun))


def _make_logical_cpus(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or [cpu]) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError:
        raise UserError(
            f"--num_replicas={count}: TensorFlow already runs in this process. Fix: create the "
            "replicas before its first operation"
        ) from None


def _tpu(options: Distribution) -> DistributionContext:
    name = options.tpu_name or "local"
    if name.startswith("grpc://"):
        address = name.removeprefix("grpc://")
        check_addresses("--tpu_name", [address])
        wait_for_addresses([address], options.worker_timeout, "check that the TPU runs")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu=name, zone=options.tpu_zone or None, project=options.gcp_project or None
        )
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, ImportError, tf.errors.OpError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise UserError(
            f"no TPU ({name}): {reason}. Fix: run on a TPU VM with TensorFlow's TPU build, set "
            "another --tpu_name, or omit --use_tpu"
        ) from None
    return DistributionContext(strategy, pluralize(strategy.num_replicas_in_sync, "TPU core"))


def _multi_worker(options: Distribution) -> DistributionContext:
    tf_config = cluster_from_tf_config()
    if options.workers and tf_config:
        raise UserError("both --workers and TF_CONFIG define a cluster. Fix: omit or unset one")
    if options.workers:
        workers, index = cluster_from_flags(options)
    elif tf_config:
        workers, index = tf_config
    else:
        raise UserError(
            "--strategy=multi_worker: no workers. Fix: set --workers=host:port,… and "
            "--worker_index, or TF_CONFIG"
        )
    wait_for_workers(workers, index, options.worker_timeout)
    cluster = tf.train.ClusterSpec({"worker": list(workers)})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster, task_type="worker", task_id=index, rpc_layer="grpc"
    )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except (RuntimeError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the cluster {','.join(workers)} did not start: {reason}. Fix: start all workers "
            "again with the same flags"
        ) from None
    name = (
        f"worker {index} of {len(workers)}, {pluralize(strategy.num_replicas_in_sync, 'replica')}"
    )
    return DistributionContext(strategy, name, len(workers), index)


def cluster_from_flags(options: Distribution) -> tuple[Sequence[str], int]:
    """Returns the addresses of the workers and this process's index from the options."""
    workers = [worker.strip() for worker in options.workers.split(",")]
    check_addresses("--workers", workers)
    if not 0 <= options.worker_index < len(workers):
        raise UserError(
            f"--worker_index={options.worker_index}: expected 0 to {len(workers) - 1}, the index "
            "of this process in --workers. Fix: give each process its own index"
        )
    return workers, options.worker_index


def cluster_from_tf_config() -> tuple[Sequence[str], int] | None:
    """Returns the addresses of the workers and this process's index from TF_CONFIG, or None."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        document: Any = json.loads(text)
        cluster, task = document.get("cluster", {}), document.get("task", {})
        if not cluster:
            return None
        # The chief, if there is one, is the first worker.
        workers = [*cluster.get("chief", []), *cluster.get("worker", [])]
        index = int(task["index"])
        if task["type"] == "worker":
            index += len(cluster.get("chief", []))
        elif task["type"] != "chief":
            raise UserError(
                f"TF_CONFIG: task type {task['type']!r} is not supported. Fix: use chief or worker"
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG does not have TensorFlow's format ({type(error).__name__}: {error}). Fix: "
            'use {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    check_addresses("TF_CONFIG", workers)
    if not 0 <= index < len(workers):
        raise UserError(
            f"TF_CONFIG: task index {index}: expected 0 to {len(workers) - 1}. Fix: give each "
            "process its own index"
        )
    return workers, index


def check_addresses(source: str, addresses: Sequence[str]) -> None:
    """Raises UserError if an address is not host:port, or occurs twice."""
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            hint = ". Fix: list every worker process, or omit --workers: one uses all cores"
            hint = hint if source == "--workers" else ""
            raise UserError(f"{source}: expected host:port, got {address!r}{hint}")
    if len(set(addresses)) < len(addresses):
        raise UserError(f"{source}: an address occurs twice. Fix: use one address per worker")


def wait_for_workers(workers: Sequence[str], index: int, timeout: float) -> None:
    """Waits until every other worker accepts connections, while listening at this one's port."""
    port = int(workers[index].rpartition(":")[2])
    try:
        # Open until all workers respond; then TensorFlow's own server takes the port over.
        listener = socket.create_server(("", port), backlog=len(workers))
    except OSError as error:
        raise UserError(
            f"cannot listen at {workers[index]} ({error.strerror}). Fix: check that no other "
            "process uses the port, and that this is the machine of that worker"
        ) from None
    with listener:
        others = [worker for i, worker in enumerate(workers) if i != index]
        wait_for_addresses(others, timeout, "start it there with the same --workers")


def wait_for_addresses(addresses: Sequence[str], timeout: float, hint: str) -> None:
    """Waits until every host:port accepts connections; TensorFlow itself would wait forever.

    After `timeout` seconds it raises UserError with the addresses that do not respond and the hint.
    """
    deadline = time.monotonic() + timeout
    unreachable = list(addresses)
    if not unreachable:
        return
    logger.info(f"waiting up to {timeout:g} s for {', '.join(unreachable)} …")
    while True:
        unreachable = [address for address in unreachable if not _accepts_connections(address)]
        if not unreachable:
            return
        if time.monotonic() > deadline:
            raise UserError(
                f"{', '.join(unreachable)}: no response within {timeout:g} s. Fix: {hint}, check "
                "that its port is reachable, or increase --worker_timeout"
            )
        time.sleep(_POLL_SECONDS)  # nothing signals that another machine's port opens


def _accepts_connections(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True
