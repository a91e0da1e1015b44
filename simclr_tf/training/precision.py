"""Choice of the faster precision for `--precision=auto`, by a short trial."""

import logging
import time
from typing import Any

import tensorflow as tf

from simclr_tf.config import PretrainConfig
from simclr_tf.models.build import build_encoder
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext

logger = logging.getLogger(__name__)

_MIN_SPEEDUP = 1.05  # of bfloat16 over float32
_MAX_CPU_PIXELS = 2**16  # of all views together
_MAX_ROUNDS = 5
_MAX_SECONDS = 2.0  # after which no further round starts


def reuse_run_precision(config: PretrainConfig, run: RunDir) -> PretrainConfig:
    """Returns the config with the precision of the run that it resumes in place of "auto"."""
    if config.optimization.precision != "auto":
        return config
    precision = run.read_config()[0].optimization.precision
    return _set_precision(config, precision, f"as {run.path} began")


def resolve_auto_precision(
    config: PretrainConfig, distribution: DistributionContext
) -> PretrainConfig:
    """Returns the config with a precision in place of "auto", and logs the reason.

    TPUs use bfloat16. Elsewhere the encoder's forward and backward pass is timed in float32 and in
    bfloat16 on a few views, and bfloat16 is used if it is at least 5 % faster. The configs of all
    workers must be equal: the sums of their times decide.
    """
    if config.optimization.precision != "auto":
        return config
    if isinstance(distribution.strategy, tf.distribute.TPUStrategy):
        return _set_precision(config, "bfloat16", "native on TPUs")
    batch_size = distribution.per_replica_batch_size(config.optimization.train_batch_size)
    nanoseconds = [int(1e9 * s) for s in time_precisions(config, batch_size)]
    float32, bfloat16 = distribution.gather_across_workers(nanoseconds).sum(axis=0)
    speedup = float32 / bfloat16
    precision = "bfloat16" if speedup >= _MIN_SPEEDUP else "float32"
    reason = f"here bfloat16 is {speedup:.2f} times as fast as float32"
    return _set_precision(config, precision, reason)


def _set_precision(config, precision, reason):
    logger.info(f"--precision=auto: {precision} ({reason})")
    return config.override({"optimization": {"precision": precision}})


def time_precisions(config: PretrainConfig, batch_size: int) -> tuple[float, float]:
    """Returns seconds of the encoder, forward and backward, in float32 and in bfloat16.

    They are the shortest of a few alternating rounds on the views of a step (on CPUs, a few).
    """
    side = config.augmentation.image_size
    views_per_image = config.contrastive_loss.views_per_image
    count = views_per_image * (config.optimization.microbatch_size or batch_size)
    if not tf.config.list_logical_devices("GPU"):
        count = min(count, max(8, _MAX_CPU_PIXELS // side**2))
    views = tf.random.stateless_uniform([count, side, side, 3], [0, 0])
    steps = [_make_step(config, precision) for precision in ("float32", "bfloat16")]
    for step in steps:
        step(views)  # traces
    timings: list[list[float]] = [[], []]
    trial_start = time.perf_counter()
    while len(timings[0]) < _MAX_ROUNDS and (
        not timings[0] or time.perf_counter() - trial_start < _MAX_SECONDS
    ):
        for step, seconds in zip(steps, timings, strict=True):
            start = time.perf_counter()
            step(views).numpy()  # waits for the device
            seconds.append(time.perf_counter() - start)
    return min(timings[0]), min(timings[1])


def _make_step(config: PretrainConfig, precision: str) -> Any:
    encoder = build_encoder(config.encoder, precision)

    @tf.function
    def step(views):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(encoder(views, training=True))
        gradients = tape.gradient(loss, encoder.trainable_variables)
        return tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])

    return step
