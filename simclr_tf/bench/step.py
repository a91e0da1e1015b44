"""The pretraining step against the bare encoder: what the method adds.

Times the step of `simclr-tf pretrain` whole, from images in memory through input, augmentation,
encoder, head, loss and optimizer to the metrics, and as its ceiling the encoder alone: forward and
backward on a batch of as many views that lies ready on the device, at the same precision. Each
width in a fresh process, in which all precisions of both alternate.

FLOP/s are those of the encoder: counted for a forward pass, times three, times the step's views/s.

The defaults take some minutes on 2 cores; --width_multipliers=0.25, --precisions=bfloat16 or a
lower --repeats less.

  simclr-tf bench step --width_multipliers=1,0.25 --precisions=float32,bfloat16
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from simclr_tf import config
from simclr_tf.bench.flops import TRAINING_PASSES, forward_flops, peak_flops
from simclr_tf.bench.measure import (
    in_fresh_process,
    memory_for,
    significant,
    spread_text,
    this_machine,
)
from simclr_tf.bench.options import choices, numbers
from simclr_tf.bench.report import Report, rounds_note
from simclr_tf.bench.setting import (
    NUM_CLASSES,
    noise_source,
    noise_views,
    plan,
    pretrain_config,
    recipe,
    stored_side,
)
from simclr_tf.config import PRECISIONS
from simclr_tf.errors import UserError
from simclr_tf.options import OptionGroup, option

_COLUMNS = (
    "width",
    "precision",
    "step, views/s",
    "bare, views/s",
    "step / bare, %",
    "step / float32's",
    "GFLOP/s",
    "of peak",
)


@dataclasses.dataclass(frozen=True)
class Options(OptionGroup):
    """What is measured"""

    width_multipliers: str = option("1,0.25", "Factors of all filter counts.")
    precisions: str = option("float32,bfloat16", f"Some of {', '.join(PRECISIONS)}.")
    train_batch_size: int = option(512, "Images of a step; each gives two views.", min=2)
    resnet_depth: int = option(18, "18, 34, 50, 101, 152 or 200.")
    image_size: int = option(
        32, "Side of the views in pixels; above 32 they are blurred and jittered as for ImageNet."
    )
    repeats: int = option(5, "Rounds; each measures every precision of both once.", min=1)
    seconds: float = option(2.0, "That one measurement takes, at least one step.", exclusive_min=0)
    peak_tflops: float = option(
        0.0,
        "The device's best at the one precision, in TFLOP/s; 0: its data sheet's, where known.",
        min=0,
    )

    def __post_init__(self):
        super().__post_init__()
        precisions = choices("precisions", self.precisions, PRECISIONS)
        widths = numbers("width_multipliers", self.width_multipliers)
        for width, precision in itertools.product(widths, precisions):
            self.pretrain_config(width, precision)
        if self.peak_tflops and len(precisions) > 1:
            raise UserError(
                f"--peak_tflops={self.peak_tflops:g} is of one precision: name one, such as "
                f"--precisions={precisions[0]}"
            )

    def pretrain_config(self, width: float, precision: str) -> config.PretrainConfig:
        """Returns the run whose step is measured."""
        views = recipe(self.image_size)
        return pretrain_config(views, self.resnet_depth, width, self.train_batch_size, precision)

    def peak(self, precision: str, gpus: Sequence[str]) -> float | None:
        """Returns what the device does at best, in FLOP/s; None where not known."""
        if self.peak_tflops:
            return 1e12 * self.peak_tflops
        return peak_flops(gpus[0], precision) if gpus else None


def run(options: Options, say: Callable[[str], None]) -> Report:
    """Measures what the options ask for; `say`, which processes are handed, takes progress.

    Raises:
        UserError: if the memory does not suffice.
    """
    machine = this_machine()
    say(str(machine))
    precisions = choices("precisions", options.precisions, PRECISIONS)
    results = []
    for width in numbers("width_multipliers", options.width_multipliers):
        with memory_for(f"width {width:g}", f"train_batch_size={options.train_batch_size}"):
            taken, flops = in_fresh_process(_measure, options, width, say)
        for precision in precisions:
            peak = options.peak(precision, machine.gpus)
            results.append(_result(width, precision, taken, flops, peak))
    notes = [
        rounds_note(options.repeats),
        f"ResNet-{options.resnet_depth} at {options.image_size} px, {options.train_batch_size} "
        "images a step. Bare: the encoder's forward and backward alone.",
        "FLOP/s: of the encoder in the step, at the median: its forward pass counted, times three.",
    ]
    return Report(machine, _COLUMNS, [_row(result) for result in results], notes, results)


def _measure(options, width, say):
    """In a process of its own: spreads of views/s, and the FLOPs of a view's forward pass."""
    from simclr_tf.bench.rates import by_turns, rate
    from simclr_tf.models.build import build_encoder, build_model

    size, batch = options.image_size, options.train_batch_size
    views = noise_views(2 * batch, size)
    works = {}
    for precision in choices("precisions", options.precisions, PRECISIONS):
        settings = options.pretrain_config(width, precision)
        model = build_model(settings, plan(batch, NUM_CLASSES))
        encoder = build_encoder(settings.encoder, precision)
        works[f"{precision} step"] = pretrain_step(model, settings)
        works[f"{precision} bare"] = bare_step(encoder, views)
    # Not before: build_model sets TensorFlow's seed, which drops what is compiled already.
    for work in works.values():
        work()
    rates = {
        name: functools.partial(rate, work, len(views), options.seconds)
        for name, work in works.items()
    }
    taken = by_turns(rates, options.repeats, say, f"width {width:g}, views/s")
    return taken, forward_flops(encoder, size)


def pretrain_step(model: Any, settings: config.PretrainConfig) -> Callable[[], Any]:
    """Returns what takes a model's next step as `fit` does, on noise in memory."""
    from simclr_tf.data import train_batches

    batch = settings.optimization.train_batch_size
    source = noise_source(4 * batch, stored_side(settings))
    batches = iter(train_batches(source, batch_size=batch, seed=0, start_step=0))
    train = model.make_train_function()
    return lambda: train(batches)


def bare_step(encoder: Any, views: Any) -> Callable[[], Any]:
    """Returns the ceiling: the encoder's features of views [V, S, S, 3] and their gradients."""
    import tensorflow as tf

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(encoder(views, training=True))
        return tape.gradient(loss, encoder.trainable_variables)

    return step


def _result(width, precision, taken, flops, peak):
    step, bare = taken[f"{precision} step"], taken[f"{precision} bare"]
    base = taken.get("float32 step")
    achieved = TRAINING_PASSES * flops * step.median
    return {
        "width_multiplier": width,
        "precision": precision,
        "step": step.to_json(),
        "bare": bare.to_json(),
        "ratio": step.over(bare).to_json(),
        "ratio_to_float32": step.over(base).to_json() if base and base is not step else None,
        "forward_flops": flops,
        "flops_per_second": achieved,
        "peak_flops_per_second": peak,
        "share_of_peak": achieved / peak if peak else None,
    }


def _row(result):
    to_float32, share = result["ratio_to_float32"], result["share_of_peak"]
    return [
        f"{result['width_multiplier']:g}",
        result["precision"],
        spread_text(result["step"]),
        spread_text(result["bare"]),
        spread_text(result["ratio"], 0.01),
        spread_text(to_float32) if to_float32 else "–",
        significant(result["flops_per_second"] / 1e9),
        f"{share:.1%}" if share else "–",
    ]
