"""Which processes train together, and whether they answer, before TensorFlow is asked."""

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from simclr_tf.config import Distribution
from simclr_tf.errors import UserError


def cluster_from_flags(devices: Distribution) -> tuple[Sequence[str], int]:
    """Returns the workers and this one's place that --workers and --worker_index name."""
    workers = [worker.strip() for worker in devices.workers.split(",")]
    check_addresses("--workers", workers)
    if not 0 <= devices.worker_index < len(workers):
        raise UserError(
            f"--worker_index={devices.worker_index}: must be 0 to {len(workers) - 1}, this "
            "process's place in --workers"
        )
    return workers, devices.worker_index


def cluster_from_tf_config() -> tuple[Sequence[str], int] | None:
    """Returns the workers and this one's place that TF_CONFIG names, or None."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        document: Any = json.loads(text)
        cluster, task = document.get("cluster", {}), document.get("task", {})
        if not cluster:
            return None
        # The chief, where there is one, is the first of the workers.
        workers = [*cluster.get("chief", []), *cluster.get("worker", [])]
        index = int(task["index"])
        if task["type"] == "worker":
            index += len(cluster.get("chief", []))
        elif task["type"] != "chief":
            raise UserError(f"TF_CONFIG: a {task['type']} has nothing to do in training")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG is not what TensorFlow documents ({type(error).__name__}: {error}): "
            '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    check_addresses("TF_CONFIG", workers)
    if not 0 <= index < len(workers):
        raise UserError(f"TF_CONFIG: index {index} is none of its {len(workers)} workers")
    return workers, index


def check_addresses(where: str, addresses: Sequence[str]) -> None:
    """Raises UserError if anything is not host:port, or named twice."""
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise UserError(f"{where}: {address!r} is not host:port")
    if len(set(addresses)) < len(addresses):
        raise UserError(f"{where}: a worker is named twice")


def wait_for_workers(
    workers: Sequence[str], index: int, timeout: float, say: Callable[[str], None]
) -> None:
    """Waits until every other worker answers, listening at this one's own port."""
    port = int(workers[index].rpartition(":")[2])
    try:
        # Held until all have answered; then TensorFlow's own server takes the port over.
        listener = socket.create_server(("", port), backlog=len(workers))
    except OSError as error:
        raise UserError(
            f"cannot listen at {workers[index]} ({error.strerror}): is another process there, or "
            "is this not the machine of that worker?"
        ) from None
    with listener:
        others = [worker for i, worker in enumerate(workers) if i != index]
        wait_for_addresses(others, timeout, "start it there with the same --workers", say)


def wait_for_addresses(
    addresses: Sequence[str], timeout: float, remedy: str, say: Callable[[str], None]
) -> None:
    """Waits until every host:port answers; TensorFlow itself would wait for ever.

    Raises:
        UserError: naming those that do not.
    """
    deadline = time.monotonic() + timeout
    silent = list(addresses)
    if not silent:
        return
    say(f"waiting up to {timeout:g} s for {', '.join(silent)} …")
    while True:
        silent = [address for address in silent if not _answers(address)]
        if not silent:
            return
        if time.monotonic() > deadline:
            raise UserError(
                f"{', '.join(silent)}: no answer within {timeout:g} s; {remedy}, see that its "
                "port can be reached, or raise --worker_timeout"
            )
        time.sleep(0.2)  # another machine's port tells nobody when it opens: ask again


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True
