"""`--precision=auto`: what trains this encoder faster on this machine, found out by trying."""

import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from simclr_tf.config import PretrainConfig
from simclr_tf.models.build import build_encoder
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext

_WORTH = 1.05  # times as fast bfloat16 must be to be taken
_PIXELS = 2**16  # of all views together that a processor tries
_ROUNDS = 5
_SECONDS = 2.0  # after which no other round begins


def reuse_run_precision(
    config: PretrainConfig, run: RunDir, say: Callable[[str], None]
) -> PretrainConfig:
    """Returns the config of a run that goes on, with the run's own precision in place of "auto".

    Raises:
        UserError: the run's config.json is damaged.
    """
    if config.optimization.precision != "auto":
        return config
    return _with(config, run.read_config()[0].optimization.precision, f"as {run.path} began", say)


def resolve_auto_precision(
    config: PretrainConfig, distribution: DistributionContext, say: Callable[[str], None]
) -> PretrainConfig:
    """Returns the config with a precision in place of "auto", and says which and why.

    A TPU gets bfloat16, which is its own. Elsewhere the encoder's forward and backward pass is
    timed in float32 and in bfloat16 on some views, and bfloat16 is taken where it is faster by 5 %.
    Workers must have agreed on their configs before: the sums of their times decide.
    """
    if config.optimization.precision != "auto":
        return config
    if isinstance(distribution.strategy, tf.distribute.TPUStrategy):
        return _with(config, "bfloat16", "a TPU's own", say)
    share = distribution.per_replica_batch_size(config.optimization.train_batch_size)
    times = distribution.gather_across_workers(
        [int(1e9 * s) for s in time_precisions(config, share)]
    ).sum(axis=0)
    faster = times[0] / times[1]
    chosen = "bfloat16" if faster >= _WORTH else "float32"
    return _with(config, chosen, f"here bfloat16 is {faster:.2f} times as fast as float32", say)


def _with(config, chosen, why, say):
    say(f"--precision=auto: {chosen} ({why})")
    return config.override({"optimization": {"precision": chosen}})


def time_precisions(config: PretrainConfig, share: int) -> tuple[float, float]:
    """Times the resolved config's encoder, forward and backward.

    On processors, which are as fast on a few views, a few seconds in all; on accelerators, on as
    many as a step has.

    Args:
        config: of the run.
        share: a replica's part of the batch, in images.

    Returns:
        Seconds in float32 and in bfloat16: of each the shortest of a few turns in which they
        alternate.
    """
    side = config.augmentation.image_size
    count = 2 * (config.optimization.microbatch_size or share)
    if not tf.config.list_logical_devices("GPU"):
        count = min(count, max(8, _PIXELS // side**2))
    views = tf.random.stateless_uniform([count, side, side, 3], [0, 0])
    steps = [_step(config, precision) for precision in ("float32", "bfloat16")]
    for step in steps:
        step(views)  # traces
    taken: list[list[float]] = [[], []]
    began = time.perf_counter()
    while len(taken[0]) < _ROUNDS and (not taken[0] or time.perf_counter() - began < _SECONDS):
        for step, seconds in zip(steps, taken, strict=True):
            start = time.perf_counter()
            step(views).numpy()  # waits for the device
            seconds.append(time.perf_counter() - start)
    return min(taken[0]), min(taken[1])


def _step(config: PretrainConfig, precision: str) -> Any:
    encoder = build_encoder(config.encoder, precision)

    @tf.function
    def step(views):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(encoder(views, training=True))
        gradients = tape.gradient(loss, encoder.trainable_variables)
        return tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])

    return step
