"""From what a user says about devices and machines to a tf.distribute strategy.

It must come before TensorFlow's first operation: logical devices and a cluster are settled then.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from simclr_tf.config import Distribution
from simclr_tf.errors import UserError
from simclr_tf.training.cluster import (
    check_addresses,
    cluster_from_flags,
    cluster_from_tf_config,
    wait_for_addresses,
    wait_for_workers,
)


@dataclasses.dataclass(frozen=True)
class DistributionContext:
    """The replicas that train together.

    Attributes:
        strategy: of tf.distribute.
        name: what to call it to the user.
        num_workers: processes that share the global batch.
        worker_index: which of them this one is; 0, the chief, writes the run directory.
    """

    strategy: tf.distribute.Strategy
    name: str = "one device"
    num_workers: int = 1
    worker_index: int = 0

    @property
    def num_replicas(self) -> int:
        """How many replicas there are on all workers."""
        return self.strategy.num_replicas_in_sync

    @property
    def is_chief(self) -> bool:
        return self.worker_index == 0

    def per_replica_batch_size(self, global_batch: int) -> int:
        """Returns a replica's share of the global batch.

        Raises:
            UserError: if the batch does not divide.
        """
        if global_batch % self.num_replicas:
            below = global_batch - global_batch % self.num_replicas
            near = " or ".join(str(b) for b in (below, below + self.num_replicas) if b)
            raise UserError(
                f"--train_batch_size={global_batch} does not divide among {self.num_replicas} "
                f"replicas: choose a multiple, such as {near}"
            )
        return global_batch // self.num_replicas

    def describe(self, global_batch: int) -> str:
        """Returns the line that says what trains what."""
        words = f"{self.name}: global batch {global_batch}"
        if self.num_workers > 1:
            words += f", {global_batch // self.num_workers} per worker"
        return f"{words}, {self.per_replica_batch_size(global_batch)} per replica"

    def check_workers_agree(self, facts: dict[str, int]) -> None:
        """Makes sure that all workers are about to do the same.

        Args:
            facts: by what they are called in the message.

        Raises:
            UserError: naming the first fact that is not the same on all workers.
        """
        for name, values in zip(
            facts, self.gather_across_workers(list(facts.values())).T, strict=True
        ):
            if len(set(values)) > 1:
                raise UserError(f"the workers differ in {name}")

    def gather_across_workers(self, values: Sequence[int]) -> np.ndarray:
        """Returns every worker's values, int64 [rows, values]; all workers must ask together."""
        mine = tf.constant([list(values)], tf.int64)
        if self.num_workers == 1:
            return mine.numpy()

        @tf.function
        def all_of_them():
            return self.strategy.gather(self.strategy.run(lambda: mine), axis=0)

        return all_of_them().numpy()


def single_device() -> DistributionContext:
    """Returns TensorFlow's default strategy: all on the first GPU, or on the CPU."""
    return DistributionContext(tf.distribute.get_strategy())


def make_distribution(
    devices: Distribution, say: Callable[[str], None] = print
) -> DistributionContext:
    """Makes the strategy that a user asks for.

    Args:
        devices: what was asked for.
        say: takes a line where there is something to wait for.

    Raises:
        UserError: if the flags contradict one another, a device is not there, or a worker does not
            answer.
    """
    kind = _choose(devices)
    if kind == "tpu":
        return _tpu(devices, say)
    if kind == "multi_worker":
        return _multi_worker(devices, say)
    if kind == "mirrored":
        return _mirrored(devices.num_replicas)
    return single_device()


def _choose(devices: Distribution) -> str:
    asked = {
        "--use_tpu": ("tpu", devices.use_tpu),
        "--tpu_name": ("tpu", devices.tpu_name),
        "--tpu_zone": ("tpu", devices.tpu_zone),
        "--gcp_project": ("tpu", devices.gcp_project),
        "--workers": ("multi_worker", devices.workers),
        "--num_replicas": ("mirrored", devices.num_replicas),
    }
    kind = None if devices.strategy == "auto" else devices.strategy
    because = f"--strategy={devices.strategy}"
    for flag, (wanted, given) in asked.items():
        if not given:
            continue
        alone = kind == "one_device" and flag == "--num_replicas" and given == 1
        if kind not in (None, wanted) and not alone:
            raise UserError(f"{flag} does not go with {because}: leave one of them out")
        kind, because = kind or wanted, flag
    if devices.worker_index >= 0 and not devices.workers:
        raise UserError("--worker_index needs --workers: host:port of every worker process")
    if kind is not None:
        return kind
    if cluster_from_tf_config():
        return "multi_worker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one_device"


def _mirrored(count: int) -> DistributionContext:
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        if count > gpus:
            raise UserError(f"--num_replicas={count}: {gpus} GPUs are visible")
        count = count or gpus
        strategy = tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(count)])
        return DistributionContext(strategy, _counted(count, "GPU"))
    count = count or 1
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or [cpu]) < count:
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
        except RuntimeError:
            raise UserError(
                f"--num_replicas={count}: TensorFlow already runs in this process; make the "
                "replicas before its first operation"
            ) from None
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)])
    return DistributionContext(strategy, _counted(count, "CPU device"))


def _tpu(devices: Distribution, say: Callable[[str], None]) -> DistributionContext:
    name = devices.tpu_name or "local"
    if name.startswith("grpc://"):
        address = name.removeprefix("grpc://")
        check_addresses("--tpu_name", [address])
        wait_for_addresses([address], devices.worker_timeout, "see that the TPU runs", say)
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu=name, zone=devices.tpu_zone or None, project=devices.gcp_project or None
        )
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, ImportError, tf.errors.OpError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise UserError(
            f"no TPU ({name}): {reason}; run on a TPU VM with TensorFlow's TPU build, name another "
            "--tpu_name, or leave --use_tpu out"
        ) from None
    return DistributionContext(strategy, _counted(strategy.num_replicas_in_sync, "TPU core"))


def _multi_worker(devices: Distribution, say: Callable[[str], None]) -> DistributionContext:
    environment = cluster_from_tf_config()
    if devices.workers and environment:
        raise UserError("both --workers and TF_CONFIG name a cluster: leave out or unset one")
    if devices.workers:
        workers, index = cluster_from_flags(devices)
    elif environment:
        workers, index = environment
    else:
        raise UserError(
            "--strategy=multi_worker: name the processes with --workers=host:port,… and "
            "--worker_index, or with TF_CONFIG"
        )
    wait_for_workers(workers, index, devices.worker_timeout, say)
    cluster = tf.train.ClusterSpec({"worker": list(workers)})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster, task_type="worker", task_id=index, rpc_layer="grpc"
    )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except (RuntimeError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the cluster {','.join(workers)} did not start: {reason}") from None
    name = f"worker {index} of {len(workers)}, {_counted(strategy.num_replicas_in_sync, 'replica')}"
    return DistributionContext(strategy, name, len(workers), index)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"
