"""Training step on one to many replicas, and the bytes that they exchange.

Times the whole compiled training step on images that are on the devices already, each number of
replicas in a fresh process, in alternating rounds. The global batch stays the same. Replicas are
the visible GPUs, or logical CPU devices if there is none. These share the same cores, so that the
benchmark then shows the cost of the exchange, not a speed-up.

  simclr-tf bench scaling --replicas=1,2,4 --train_batch_size=256
"""

import dataclasses
import functools
import time
from typing import Any

from simclr_tf.bench import harness
from simclr_tf.bench.workload import dummy_plan, pretrain_config
from simclr_tf.config import PretrainConfig
from simclr_tf.errors import UserError
from simclr_tf.option_groups import PRECISIONS, Augmentation, Distribution
from simclr_tf.options import OptionGroup, option, parse_ints
from simclr_tf.utils.files import format_bytes, pluralize
from simclr_tf.utils.hardware import HardwareInfo

COLLECTIVES = ("projections", "batch norm", "gradients", "scalars")


@dataclasses.dataclass(frozen=True)
class Options(OptionGroup):
    """Measurement"""

    replicas: str = option("1,2,4", "Numbers of replicas.")
    repeats: int = option(3, "Rounds; each measures every number of replicas once.", min=1)
    steps: int = option(5, "Steps in one measurement, after two that are not timed.", min=1)
    train_batch_size: int = option(256, "Global batch in images; each gives two views.", min=2)
    resnet_depth: int = option(18, "18, 34, 50, 101, 152 or 200.")
    width_multiplier: float = option(0.25, "Multiplier of all filter counts; fractions too.")
    image_size: int = option(32, "Side of the views in pixels.")
    precision: str = option("float32", "Precision of the network.", choices=PRECISIONS)

    def __post_init__(self):
        super().__post_init__()
        self.pretrain_config()
        for count in self.counts():
            if self.train_batch_size % count:
                raise UserError(
                    f"--train_batch_size={self.train_batch_size}: expected a multiple of the "
                    f"{count} replicas in --replicas={self.replicas}. Fix: change one of them"
                )

    def pretrain_config(self) -> PretrainConfig:
        """Returns the run whose step is measured; the options are validated as a run's."""
        return pretrain_config(
            Augmentation(image_size=self.image_size),
            self.resnet_depth,
            self.width_multiplier,
            self.train_batch_size,
            self.precision,
        )

    def counts(self) -> list[int]:
        return parse_ints("replicas", self.replicas)

    def cases(self, hardware: HardwareInfo) -> dict[str, int]:
        gpus, most = len(hardware.gpus), max(self.counts())
        if gpus and most > gpus:
            raise UserError(
                f"--replicas={self.replicas}: expected at most {gpus}, the number of visible GPUs, "
                f"got {most}"
            )
        return {pluralize(count, "replica"): count for count in self.counts()}

    def notes(self, hardware: HardwareInfo) -> list[str]:
        notes = [
            "Speed: views/s as a multiple of one replica's; efficiency: that over the replicas.",
            "The columns on the right: bytes that each replica puts into all-reduces in a step.",
            "One replica uses fused batch norm; the synchronized one of several is slower.",
        ]
        if not hardware.gpus:
            notes.append(
                "Replicas are logical CPU devices that share the same cores: this measures the "
                "cost of the exchange, not a speed-up."
            )
        return notes


def summarize(options: Options, outcomes: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Returns a result for each number of replicas, with speed-ups over one replica."""
    results: list[dict[str, Any]] = []
    for count, taken in zip(options.counts(), outcomes.values(), strict=True):
        seconds = harness.Samples(tuple(outcome["seconds"] for outcome in taken))
        results.append(
            {
                "replicas": count,
                "replica_batch_size": options.train_batch_size // count,
                "step_seconds": seconds.to_json(),
                "views_per_second": 2 * options.train_batch_size / seconds.median,
                "exchanged_bytes": taken[0]["exchanged_bytes"],
            }
        )
    for base in [result for result in results if result["replicas"] == 1]:
        for result in results:
            result["speed"] = result["views_per_second"] / base["views_per_second"]
            result["efficiency"] = result["speed"] / result["replicas"]
    return results


def all_reduce_bytes_per_replica(model: Any, global_batch: int, replicas: int) -> dict[str, int]:
    """Returns the bytes that each replica puts into all-reduces in a step without microbatches.

    A ring sends and receives 2·(R - 1)/R times these bytes at each of R replicas.
    """
    if replicas == 1:
        return dict.fromkeys(COLLECTIVES, 0)
    layers = [*model.encoder.layers, *model.projection_head.layers]
    channels = sum(
        layer.moving_mean.shape[0] for layer in layers if getattr(layer, "synchronized", False)
    )
    width = model.projection_head.output_shape[-1]
    # Statistics and losses are float32 in mixed precision too.
    return {
        "projections": 4 * 2 * (2 * global_batch * width),  # forward and as many backward
        # Forward sums, sums of squares and counts; backward two, as counts have no gradient.
        "batch norm": 4 * 5 * channels,
        "gradients": sum(v.shape.num_elements() * v.dtype.size for v in model.trainable_variables),
        "scalars": 4 * (4 if model.linear_head else 3),  # of the losses
    }


def measure(options: Options, count: int) -> dict[str, Any]:
    """Returns the "seconds" of a step on `count` replicas, and the "exchanged_bytes" of each."""
    import tensorflow as tf

    from simclr_tf.models.build import build_model
    from simclr_tf.training.distribution import make_distribution, single_device

    config = options.pretrain_config()
    distribution = (
        make_distribution(Distribution(strategy="mirrored", num_replicas=count))
        if count > 1
        else single_device()
    )
    strategy, size = distribution.strategy, options.train_batch_size
    with strategy.scope():
        model = build_model(config, dummy_plan(size))
    batch = random_batch(strategy, size // count, config.data.storage_size)

    @tf.function
    def step():
        return strategy.run(model.train_step, (batch,))

    def timed(steps):
        start = time.perf_counter()
        for _ in range(steps):
            logs = step()
        for loss in strategy.experimental_local_results(logs["loss"]):
            loss.numpy()  # waits for the device
        return time.perf_counter() - start

    timed(2)
    return {
        "seconds": timed(options.steps) / options.steps,
        "exchanged_bytes": all_reduce_bytes_per_replica(model, size, count),
    }


def random_batch(strategy: Any, per_replica: int, side: int) -> Any:
    """Returns a batch of random images for each replica, different ones, on its device."""
    import tensorflow as tf

    def random_images(replica):
        shape = [per_replica, side, side, 3]
        pixels = tf.random.stateless_uniform(shape, [0, replica], 0, 256, tf.int32)
        return {"image": tf.cast(pixels, tf.uint8)}

    def make_on_device(context):
        replica = context.replica_id_in_sync_group
        with tf.device(strategy.extended.worker_devices[replica]):
            return random_images(replica)

    if strategy.num_replicas_in_sync == 1:
        return random_images(0)
    return strategy.experimental_distribute_values_from_function(make_on_device)


def _format_exchanged(name, result):
    return format_bytes(result["exchanged_bytes"][name])


BENCHMARK = harness.Benchmark(
    Options,
    measure,
    columns={
        "replicas": "replicas",
        "batch each": "replica_batch_size",
        "step s, median (min–max)": "step_seconds",
        "views/s": lambda result: harness.format_3_digits(result["views_per_second"]),
        "speed": lambda r: f"{r['speed']:.2f} ×" if "speed" in r else None,
        "efficiency": lambda r: f"{r['efficiency']:.0%}" if "speed" in r else None,
        **{name: functools.partial(_format_exchanged, name) for name in COLLECTIVES},
    },
    memory_flag="train_batch_size",
    summarize=summarize,
)
