"""Floating-point operations: what an encoder takes, and what a GPU could do at best."""

from typing import Any

from simclr_tf.bench.measure import silent_stderr

# Forward, and as much again for the gradients of the inputs and of the weights.
TRAINING_PASSES = 3

# TFLOP/s of NVIDIA's data sheets without sparsity, by words of the device's name: float32 (as TF32,
# which TensorFlow takes where the GPU has it), bfloat16, float16.
_PEAKS = {
    "H200 NVL": (417.5, 835.5, 835.5),
    "H200": (494.5, 989.5, 989.5),
    "H100 PCIe": (378.0, 756.5, 756.5),
    "H100 NVL": (417.5, 835.5, 835.5),
    "H100": (494.5, 989.5, 989.5),
    "A100": (156.0, 312.0, 312.0),
    "A10": (62.5, 125.0, 125.0),
    "L40S": (183.0, 362.0, 362.0),
    "L4": (60.0, 121.0, 121.0),
    "V100 SXM2": (15.7, None, 125.0),
    "V100 PCIE": (14.0, None, 112.0),
    "T4": (8.1, None, 65.0),
}


def forward_flops(encoder: Any, image_size: int) -> int:
    """Counts the operations of one image's forward pass, as TensorFlow's profiler does.

    A multiplication and an addition are two. It has no figure for batch norm, which takes few.

    Args:
        encoder: called as encoder(images [1, S, S, 3], training=False).
        image_size: S.
    """
    import tensorflow as tf

    spec = tf.TensorSpec([1, image_size, image_size, 3])
    traced = tf.function(lambda images: encoder(images, training=False), autograph=False)
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    with silent_stderr():  # it warns that parts of itself are deprecated
        graph = traced.get_concrete_function(spec).graph
        return tf.compat.v1.profiler.profile(graph, options=options).total_float_ops


def peak_flops(device: str, precision: str) -> float | None:
    """Returns what a GPU of that name does at best, in FLOP/s; None if not known."""
    words = set(device.replace("-", " ").split())
    if "MIG" in words:  # a part of a GPU
        return None
    for name, peaks in _PEAKS.items():
        if words.issuperset(name.split()):
            peak = peaks[("float32", "bfloat16", "float16").index(precision)]
            return peak and peak * 1e12
    return None
