"""Training steps on one to many replicas, and what these exchange.

Times the whole compiled training step on images that already lie on the devices, each number of
replicas in a fresh process, in alternating rounds. The global batch stays the same. Replicas are
the visible GPUs, or logical CPU devices where there is none; these share the same cores, and then
the bench shows what the exchange costs, not a speed-up.

  simclr-tf bench scaling --replicas=1,2,4 --train_batch_size=256
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from simclr_tf import config
from simclr_tf.bench.measure import (
    Spread,
    byte_text,
    in_fresh_process,
    memory_for,
    significant,
    spread_text,
    this_machine,
)
from simclr_tf.bench.options import integers
from simclr_tf.bench.report import Report
from simclr_tf.bench.setting import plan, pretrain_config
from simclr_tf.errors import UserError
from simclr_tf.options import OptionGroup, option

KINDS = ("projections", "batch norm", "gradients", "scalars")
_COLUMNS = ("replicas", "batch each", "step s, median (min–max)", "views/s", "speed", "efficiency")


@dataclasses.dataclass(frozen=True)
class Options(OptionGroup):
    """What is measured"""

    replicas: str = option("1,2,4", "Numbers of replicas.")
    repeats: int = option(3, "Rounds; each measures every number of replicas once.", min=1)
    steps: int = option(5, "Steps that one measurement times, after two that it does not.", min=1)
    train_batch_size: int = option(256, "Global batch, in images; each gives two views.", min=2)
    resnet_depth: int = option(18, "18, 34, 50, 101, 152 or 200.")
    width_multiplier: float = option(0.25, "Factor of all filter counts; fractions too.")
    image_size: int = option(32, "Side of the views in pixels.")
    precision: str = option("float32", "What the network computes in.", choices=config.PRECISIONS)

    def __post_init__(self):
        super().__post_init__()
        self.pretrain_config()
        for count in integers("replicas", self.replicas):
            if self.train_batch_size % count:
                raise UserError(
                    f"--train_batch_size={self.train_batch_size} does not divide among the "
                    f"{count} replicas of --replicas={self.replicas}"
                )

    def pretrain_config(self) -> config.PretrainConfig:
        """Returns the run whose step is measured; it checks the options as a run's."""
        return pretrain_config(
            config.Augmentation(image_size=self.image_size),
            self.resnet_depth,
            self.width_multiplier,
            self.train_batch_size,
            self.precision,
        )


def run(options: Options, say: Callable[[str], None]) -> Report:
    """Measures what the options ask for; `say` takes a line of progress.

    Raises:
        UserError: if there are not so many GPUs, or the memory does not suffice.
    """
    machine = this_machine()
    say(str(machine))
    counts = integers("replicas", options.replicas)
    if machine.gpus and max(counts) > len(machine.gpus):
        raise UserError(
            f"--replicas={options.replicas}: {len(machine.gpus)} of {max(counts)} GPUs are visible"
        )
    taken: dict[int, list[dict[str, Any]]] = {count: [] for count in counts}
    for turn in range(1, options.repeats + 1):
        for count in counts:
            with memory_for(_counted(count), f"train_batch_size={options.train_batch_size}"):
                outcome = in_fresh_process(_measure, options, count)
            taken[count].append(outcome)
            head = f"round {turn} of {options.repeats}, {_counted(count)}:"
            say(f"{head} {significant(outcome['seconds'])} s a step")
    results = [_result(options, count, taken[count]) for count in counts]
    one = next((result for result in results if result["replicas"] == 1), None)
    if one:
        for result in results:
            result["speed"] = result["views_per_second"] / one["views_per_second"]
            result["efficiency"] = result["speed"] / result["replicas"]
    notes = [
        "Speed: views/s as a multiple of one replica's; efficiency: that over the replicas.",
        "The right-hand columns: what each replica hands to all-reduces in a step.",
        "One replica has the fused batch norm; that of several, synchronised, is slower in itself.",
    ]
    if not machine.gpus:
        notes.append(
            "Replicas are logical CPU devices that share the same cores: this measures what the "
            "exchange costs, not a speed-up."
        )
    columns = (*_COLUMNS, *KINDS)
    return Report(machine, columns, [_row(result) for result in results], notes, results)


def exchanged_bytes(model: Any, global_batch: int, replicas: int) -> dict[str, int]:
    """Tells what each replica hands to all-reduces in a training step.

    With N the global batch, D the projection's width and C the channels of all synchronised batch
    norms together: projections 2·N·D numbers forward and as many back; batch norm 3·C forward
    (sums, sums of squares, counts) and 2·C back, for the counts have no gradient; gradients one
    number per weight; scalars 3 of the loss, and 1 of the linear head's loss where there is one.
    Statistics and losses are float32 in mixed precision too. A ring sends and receives
    2·(R - 1)/R times these bytes at each of R replicas.

    Args:
        model: a built `SimCLR` without microbatches, none of its layers in float64.
        global_batch: N.
        replicas: R.

    Returns:
        Bytes by kind, in the order of `KINDS`.
    """
    if replicas == 1:
        return dict.fromkeys(KINDS, 0)
    layers = [*model.encoder.layers, *model.projection_head.layers]
    channels = sum(
        layer.moving_mean.shape[0] for layer in layers if getattr(layer, "synchronized", False)
    )
    width = model.projection_head.output_shape[-1]
    weights = sum(v.shape.num_elements() * v.dtype.size for v in model.trainable_variables)
    sizes = 4 * 2 * (2 * global_batch * width), 4 * 5 * channels, weights
    return dict(zip(KINDS, (*sizes, 4 * (4 if model.linear_head else 3)), strict=True))


def _measure(options, count):
    """In a process of its own: {"seconds" of a step, "exchanged_bytes" of a replica by kind}."""
    import tensorflow as tf

    from simclr_tf.models.build import build_model
    from simclr_tf.training.distribution import make_distribution, single_device

    settings = options.pretrain_config()
    devices = config.Distribution(strategy="mirrored", num_replicas=count)
    replicas = make_distribution(devices) if count > 1 else single_device()
    strategy, size = replicas.strategy, options.train_batch_size
    with strategy.scope():
        model = build_model(settings, plan(size))
    batch = _batch(strategy, replicas.per_replica_batch_size(size), settings.data.storage_size)

    @tf.function
    def step():
        return strategy.run(model.train_step, (batch,))

    def timed(steps):
        start = time.perf_counter()
        for _ in range(steps):
            statistics = step()
        for loss in strategy.experimental_local_results(statistics["loss"]):
            loss.numpy()  # waits for the device
        return time.perf_counter() - start

    timed(2)
    return {
        "seconds": timed(options.steps) / options.steps,
        "exchanged_bytes": exchanged_bytes(model, size, count),
    }


def _batch(strategy, share, side):
    """A batch of each replica's own noise, on its own device."""
    import tensorflow as tf

    def noise(replica):
        shape = [share, side, side, 3]
        numbers = tf.random.stateless_uniform(shape, [0, replica], 0, 256, tf.int32)
        return {"image": tf.cast(numbers, tf.uint8)}

    def on_its_device(context):
        replica = context.replica_id_in_sync_group
        with tf.device(strategy.extended.worker_devices[replica]):
            return noise(replica)

    if strategy.num_replicas_in_sync == 1:
        return noise(0)
    return strategy.experimental_distribute_values_from_function(on_its_device)


def _counted(count):
    return "1 replica" if count == 1 else f"{count} replicas"


def _result(options, count, taken):
    seconds = Spread(tuple(outcome["seconds"] for outcome in taken))
    return {
        "replicas": count,
        "replica_batch_size": options.train_batch_size // count,
        "step_seconds": seconds.to_json(),
        "views_per_second": 2 * options.train_batch_size / seconds.median,
        "exchanged_bytes": taken[0]["exchanged_bytes"],
    }


def _row(result):
    compared = "efficiency" in result
    return [
        str(result["replicas"]),
        str(result["replica_batch_size"]),
        spread_text(result["step_seconds"]),
        significant(result["views_per_second"]),
        f"{result['speed']:.2f} ×" if compared else "–",
        f"{result['efficiency']:.0%}" if compared else "–",
        *(byte_text(result["exchanged_bytes"][kind]) for kind in KINDS),
    ]
