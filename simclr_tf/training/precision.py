"""`--precision=auto`: what trains this encoder faster on this machine, found out by trying."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from simclr_tf.build import build_encoder
from simclr_tf.config import PretrainConfig
from simclr_tf.distribution import Replicas
from simclr_tf.run import Run

_WORTH = 1.05  # times as fast bfloat16 must be to be taken
_PIXELS = 2**16  # of the views that are tried on, in all
_ROUNDS = 5
_SECONDS = 2.0  # after which no other round begins


def resolve_precision(
    config: PretrainConfig, run: Run, replicas: Replicas, say: Callable[[str], None]
) -> PretrainConfig:
    """Returns the config with a precision in the place of "auto", and says which and why.

    A run that exists keeps its own. A TPU gets bfloat16, which is its own. Elsewhere the encoder's
    forward and backward pass is timed in float32 and in bfloat16 on a few views, a few seconds in
    all; of several workers the sums of their times decide.

    Raises:
        UserError: the run's config.json is damaged.
    """
    if config.optimization.precision != "auto":
        return config
    if run.config_file.exists():
        chosen, why = run.read()[0].optimization.precision, f"as {run.path} began"
    elif isinstance(replicas.strategy, tf.distribute.TPUStrategy):
        chosen, why = "bfloat16", "a TPU's own"
    else:
        times = replicas.gather([int(1e9 * s) for s in time_precisions(config)]).sum(axis=0)
        faster = times[0] / times[1]
        chosen = "bfloat16" if faster > _WORTH else "float32"
        why = f"bfloat16 is {faster:.2f} times as fast as float32 here"
    say(f"--precision=auto: {chosen} ({why})")
    return dataclasses.replace(
        config, optimization=dataclasses.replace(config.optimization, precision=chosen)
    )


def time_precisions(config: PretrainConfig) -> tuple[float, float]:
    """Times the resolved config's encoder, forward and backward.

    Returns:
        Seconds in float32 and in bfloat16: of each the shortest of a few turns in which they
        alternate.
    """
    side = config.views.image_size
    count = min(2 * config.optimization.train_batch_size, max(8, _PIXELS // side**2))
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
