"""From a source to batches of uint8 images on the way to the device."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from simclr_tf.data.base import ImageSource, decode_records, records_at

_PREFETCHED_BATCHES = 4  # enough to hide the jitter of decoding; each is uint8 and small


def train_batches(
    source: ImageSource,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    num_steps: int | None = None,
    num_workers: int = 1,
    worker_index: int = 0,
    num_replicas: int = 1,
) -> tf.data.Dataset:
    """Batches for the steps of a run from `start_step` on.

    The epochs follow one another without a gap: example i of step s is number s * batch_size + i
    of the stream, and a batch may straddle two epochs. A run that starts at a step gets exactly
    what a run from step 0 gets there.

    Args:
      source: where the images are.
      batch_size: the global batch, divisible by the replicas of all workers.
      seed: the run's; the stream depends on it and on nothing else.
      start_step: steps already done.
      num_steps: how many steps; None: without end, and known to be so, without which
        tf.distribute lets go of the static shapes where there are several workers.
      num_workers: processes that share the global batch.
      worker_index: which of them this is; it gets its own slice of every global batch. Sources
        of several files, which workers can share evenly, are dealt out by file instead: each
        worker then has a stream of its own, which depends on `num_workers`.
      num_replicas: of this worker; each step is a batch for each of them, in their order.

    Returns:
      Dictionaries as in `ImageSource.decode`, with a leading dimension of
      batch_size / (num_workers * num_replicas).

    Raises:
      ValueError: the batch does not divide so.
    """
    if batch_size % (num_workers * num_replicas):
        raise ValueError(
            f"a batch of {batch_size} does not divide among {num_workers} workers of "
            f"{num_replicas} replicas"
        )
    local_size = batch_size // num_workers
    shard = source.shard_by_file(num_workers, worker_index) if num_workers > 1 else None
    if shard is not None:
        records = record_stream(shard, seed, start_step * local_size)
    else:
        records = record_stream(source, seed, start_step * batch_size)
        if num_workers > 1:
            mine = slice(worker_index * local_size, (worker_index + 1) * local_size)
            records = records.batch(batch_size).map(lambda batch: batch[mine]).unbatch()
    batches = decode_records(
        shard or source, records, local_size // num_replicas, drop_remainder=True
    )
    if num_steps is None:
        count = tf.data.INFINITE_CARDINALITY
    else:
        count = num_steps * num_replicas
        batches = batches.take(count)
    return _finish(batches.apply(tf.data.experimental.assert_cardinality(count)))


def sequential_batches(source: ImageSource, batch_size: int, start: int = 0) -> tf.data.Dataset:
    """Every image from a place on, in the order of the source; the last batch may be smaller."""
    return _read_through(source, source.records_in_order().skip(start), batch_size)


def batches_at(source: ImageSource, positions: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """The images at these places, ascending, in the order of the source; read through once."""
    return _read_through(source, records_at(source, positions), batch_size)


def record_stream(source: ImageSource, seed: int, start: int) -> tf.data.Dataset:
    """The undecoded records of all epochs, from a position on."""
    first_epoch, position = divmod(start, source.num_examples)
    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
    return epochs.flat_map(lambda epoch: source.records(seed, epoch)).skip(position)


def _read_through(
    source: ImageSource, records: tf.data.Dataset, batch_size: int
) -> tf.data.Dataset:
    return _finish(decode_records(source, records, batch_size))


def _finish(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # The autotuner's thread sleeps between its rounds, for longer each time, and whoever ends an
    # iterator waits for it: half a second after one epoch, 10 to 20 s after a short run. Nothing
    # is left for it to choose: parallelism and read-ahead are fixed.
    options.autotune.enabled = False
    # Workers are dealt their part above.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.with_options(options).prefetch(_PREFETCHED_BATCHES)
