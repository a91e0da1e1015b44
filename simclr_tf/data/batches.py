"""Batches of uint8 images for training, in stored order, or at chosen positions."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from simclr_tf.data.base import ImageSource, decode_records, record_stream, records_at

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
    """Returns the batches for the steps of a run from `start_step` on.

    Example i of step s is number s * batch_size + i of the stream of epochs, wherever the run
    starts; a batch may therefore contain images of two epochs.

    Args:
        source: the images.
        batch_size: global batch size, divisible by the number of replicas of all workers.
        seed: seed of the run; the stream depends on nothing else.
        start_step: number of finished steps.
        num_steps: number of steps; None: infinite.
        num_workers: number of processes that share the global batch.
        worker_index: index of this process, which gets its slice of every global batch. Sources
            of several files of about equal size are sharded by file instead; the stream of a
            worker then also depends on `num_workers`.
        num_replicas: number of replicas of this worker; each step is one batch per replica.

    Returns:
        Dictionaries as of `ImageSource.decode`, with a leading dimension of
        batch_size / (num_workers * num_replicas).

    Raises:
        ValueError: the batch size is not divisible.

    Example:
        >>> import simclr_tf as st
        >>> source = st.data.open_source("shapes", "train[:64]")
        >>> steps = st.data.train_batches(source, batch_size=16, seed=0, start_step=0, num_steps=2)
        >>> [batch["image"].shape.as_list() for batch in steps]
        [[16, 32, 32, 3], [16, 32, 32, 3]]
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
            local = slice(worker_index * local_size, (worker_index + 1) * local_size)
            records = records.batch(batch_size).map(lambda batch: batch[local]).unbatch()
    replica_size = local_size // num_replicas
    batches = decode_records(shard or source, records, replica_size, drop_remainder=True)
    # Declared, because tf.distribute gives up static shapes of datasets of unknown size.
    if num_steps is None:
        count = tf.data.INFINITE_CARDINALITY
    else:
        count = num_steps * num_replicas
        batches = batches.take(count)
    return _set_options(batches.apply(tf.data.experimental.assert_cardinality(count)))


def sequential_batches(source: ImageSource, batch_size: int, start: int = 0) -> tf.data.Dataset:
    """Returns every image once, in stored order.

    Args:
        source: the images.
        batch_size: number of images per batch; the last batch may be smaller.
        start: position of the first image.

    Returns:
        Dictionaries as of `ImageSource.decode`, with a leading batch dimension.

    Example:
        >>> import simclr_tf as st
        >>> source = st.data.open_source("shapes", "test[:5]")
        >>> [batch["label"].numpy().tolist() for batch in st.data.sequential_batches(source, 3)]
        [[0, 1, 2], [3, 4]]
    """
    records = source.records_in_order().skip(start)
    return _set_options(decode_records(source, records, batch_size))


def batches_at(source: ImageSource, positions: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Returns the images at chosen positions of the stored order, in one pass over the records.

    Args:
        source: the images.
        positions: int [K], ascending.
        batch_size: number of images per batch; the last batch may be smaller.

    Returns:
        Dictionaries as of `ImageSource.decode`, with a leading batch dimension.

    Example:
        >>> import numpy as np
        >>> import simclr_tf as st
        >>> source = st.data.open_source("shapes", "test")
        >>> (batch,) = st.data.batches_at(source, np.array([3, 4, 11]), 8)
        >>> batch["label"].numpy().tolist()
        [3, 4, 1]
    """
    return _set_options(decode_records(source, records_at(source, positions), batch_size))


def _set_options(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # The autotuner's thread sleeps between its rounds, for longer each time, and ending an iterator
    # waits for it: half a second after one epoch, 10 to 20 s after a short run. It has nothing to
    # choose here: parallelism and prefetching are fixed.
    options.autotune.enabled = False
    # Records are sharded above.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.with_options(options).prefetch(_PREFETCHED_BATCHES)
