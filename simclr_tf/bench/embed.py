"""Feature extraction, as evaluate and embed do it, against the bare encoder.

Times whole passes over images in memory, without the cache of features, and as their ceiling the
encoder in inference mode on as many batches that lie ready on the device. Each width in a fresh
process.

  simclr-tf bench embed --width_multipliers=1,0.25 --images=4096
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from simclr_tf import config
from simclr_tf.bench.measure import in_fresh_process, memory_for, spread_text, this_machine
from simclr_tf.bench.options import numbers
from simclr_tf.bench.report import Report, rounds_note
from simclr_tf.bench.setting import (
    noise_source,
    noise_views,
    pretrain_config,
    recipe,
    stored_side,
)
from simclr_tf.config import PRECISIONS
from simclr_tf.options import OptionGroup, option

_COLUMNS = ("width", "extraction, images/s", "bare, images/s", "extraction / bare, %")


@dataclasses.dataclass(frozen=True)
class Options(OptionGroup):
    """What is measured"""

    width_multipliers: str = option("1,0.25", "Factors of all filter counts.")
    images: int = option(4096, "Of the split from which features are taken.", min=1)
    batch_size: int = option(256, "Images per call of the encoder.", min=2)
    resnet_depth: int = option(18, "18, 34, 50, 101, 152 or 200.")
    image_size: int = option(32, "Side in pixels at which the encoder sees the images.")
    precision: str = option("float32", "Of the encoder.", choices=PRECISIONS)
    repeats: int = option(5, "Rounds; each measures both once.", min=1)
    seconds: float = option(2.0, "That one measurement takes, at least one pass.", exclusive_min=0)

    def __post_init__(self):
        super().__post_init__()
        for width in numbers("width_multipliers", self.width_multipliers):
            self.pretrain_config(width)

    def pretrain_config(self, width: float) -> config.PretrainConfig:
        """Returns the run whose encoder is measured."""
        views = recipe(self.image_size)
        return pretrain_config(views, self.resnet_depth, width, self.batch_size, self.precision)


def run(options: Options, say: Callable[[str], None]) -> Report:
    """Measures what the options ask for; `say`, which processes are handed, takes progress.

    Raises:
        UserError: if the memory does not suffice.
    """
    machine = this_machine()
    say(str(machine))
    results = []
    for width in numbers("width_multipliers", options.width_multipliers):
        with memory_for(f"width {width:g}", f"batch_size={options.batch_size}"):
            taken = in_fresh_process(_measure, options, width, say)
        results.append(_result(width, **taken))
    notes = [
        rounds_note(options.repeats),
        f"ResNet-{options.resnet_depth} at {options.image_size} px, {options.precision}; "
        f"{options.images} images in batches of {options.batch_size}.",
    ]
    return Report(machine, _COLUMNS, [_row(result) for result in results], notes, results)


def _measure(options, width, say):
    """In a process of its own: the spreads of "extraction" and "bare", in images/s."""
    from simclr_tf.bench.rates import by_turns, rate
    from simclr_tf.evaluation.features import FeatureExtractor
    from simclr_tf.models.build import build_encoder

    settings = options.pretrain_config(width)
    encoder = build_encoder(settings.encoder, options.precision)
    size, batch, count = options.image_size, options.batch_size, options.images
    extract = FeatureExtractor(encoder, size, batch, say=lambda line: None)
    source = noise_source(count, stored_side(settings))
    infer = bare_inference(encoder, noise_views(batch, size))
    calls = -(-count // batch)

    def infer_all():
        for _ in range(calls):
            infer()

    extract(source)  # compiles
    infer()
    rates = {
        "extraction": functools.partial(rate, lambda: extract(source), count, options.seconds),
        "bare": functools.partial(rate, infer_all, calls * batch, options.seconds),
    }
    return by_turns(rates, options.repeats, say, f"width {width:g}, images/s")


def bare_inference(encoder: Any, images: Any) -> Callable[[], Any]:
    """Returns the ceiling: the encoder's features of images [B, S, S, 3] in inference mode."""
    import tensorflow as tf

    return tf.function(lambda: encoder(images, training=False), autograph=False)


def _result(width, extraction, bare):
    return {
        "width_multiplier": width,
        "extraction": extraction.to_json(),
        "bare": bare.to_json(),
        "ratio": extraction.over(bare).to_json(),
    }


def _row(result):
    return [
        f"{result['width_multiplier']:g}",
        spread_text(result["extraction"]),
        spread_text(result["bare"]),
        spread_text(result["ratio"], 0.01),
    ]
