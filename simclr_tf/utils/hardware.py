"""Description of the hardware."""

import dataclasses
import os
import platform
from collections.abc import Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class HardwareInfo:
    """Hardware and TensorFlow version of a measurement."""

    cpu: str
    cores: int
    tensorflow: str
    gpus: Sequence[str]

    def __str__(self):
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        gpus = ", ".join(self.gpus) or "no GPU"
        return f"{self.cpu}, {cores}, {gpus}, TensorFlow {self.tensorflow}"


def detect_hardware() -> HardwareInfo:
    """Describes the machine; starts TensorFlow to find the GPUs."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    # Cores that this process may use, where the system reports them.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return HardwareInfo(
        cpu=_cpu_model(),
        cores=cores or 1,
        tensorflow=tf.__version__,
        gpus=[detail.get("device_name", "GPU") for detail in details],
    )


def _cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
