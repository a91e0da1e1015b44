"""Augmentation of batches on the device against images one by one on the host.

Times both views of a batch as the training step makes them, on images that lie on the device, and
the same recipe written with tf.image for each image in tf.data's parallel map (see
simclr_tf/bench/host_pipeline.py), delivered to the device. Lockstep is ours as accelerators run it,
every operation on the whole batch; on a processor ours takes the images one by one. Up to 32 px as
for CIFAR-10: images of that size, strength 0.5, no blur; above as for ImageNet: images 8/7 as
large, strength 1, blur. Each size in a fresh process.

  simclr-tf bench augment --image_sizes=32,224 --output=augment.json
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from simclr_tf.bench.measure import in_fresh_process, memory_for, spread_text, this_machine
from simclr_tf.bench.options import integers
from simclr_tf.bench.report import Report, rounds_note
from simclr_tf.bench.setting import SMALL, noise, recipe
from simclr_tf.options import OptionGroup, option

_COLUMNS = (
    "px",
    "from px",
    "strength",
    "blur",
    "batch",
    "ours, views/s",
    "vectorized, views/s",
    "host, views/s",
    "ours / host",
)


@dataclasses.dataclass(frozen=True)
class Options(OptionGroup):
    """What is measured"""

    image_sizes: str = option("32,224", "Sides of the views in pixels.")
    batch_size: int = option(0, "Images of a batch; 0: 512 up to 32 px, 64 above.", min=0)
    repeats: int = option(5, "Rounds; each measures both once.", min=1)
    seconds: float = option(3.0, "That one measurement takes.", exclusive_min=0)

    def __post_init__(self):
        super().__post_init__()
        for size in integers("image_sizes", self.image_sizes):
            recipe(size)


def run(options: Options, say: Callable[[str], None]) -> Report:
    """Measures what the options ask for; `say`, which processes are handed, takes progress.

    Raises:
        UserError: if the memory does not suffice.
    """
    machine = this_machine()
    say(str(machine))
    results = []
    for size in integers("image_sizes", options.image_sizes):
        case = _case(options, size)
        with memory_for(f"{size} px", f"batch_size={case['batch_size']}"):
            taken = in_fresh_process(_measure, options, case, say)
        rates = {name: spread.to_json() for name, spread in taken.items()}
        results.append(case | rates | {"ratio": taken["ours"].over(taken["host"]).to_json()})
    return Report(
        machine,
        _COLUMNS,
        [_row(result) for result in results],
        [rounds_note(options.repeats)],
        results,
    )


def _case(options, size):
    views = recipe(size)
    return {
        "image_size": size,
        "stored_size": size if size <= SMALL else round(size * 8 / 7),
        "color_jitter_strength": views.color_jitter_strength,
        "use_blur": views.use_blur,
        "batch_size": options.batch_size or (512 if size <= SMALL else 64),
    }


def _measure(options, case, say):
    """In a process of its own: the spreads of "ours", "vectorized" and "host", in views/s."""
    from simclr_tf.bench.host_pipeline import host_views
    from simclr_tf.bench.rates import by_turns, delivery_rate, rate

    size, batch = case["image_size"], case["batch_size"]
    images = noise(batch, case["stored_size"])
    host = host_views(images, batch, size, case["color_jitter_strength"], case["use_blur"])
    rates = {}
    for name, vectorized in {"ours": None, "vectorized": True}.items():
        views = device_views(images, size, vectorized)
        views()  # compiles
        rates[name] = functools.partial(rate, views, 2 * batch, options.seconds)
    rates["host"] = functools.partial(delivery_rate, host, 2 * batch, options.seconds)
    return by_turns(rates, options.repeats, say, f"{size} px, views/s")


def device_views(images: Any, image_size: int, vectorized: bool | None = None) -> Callable[[], Any]:
    """Returns what makes both views of a batch as a training step does, other ones at each call.

    Args:
        images: uint8 [B, H, W, 3].
        image_size: S.
        vectorized: as `SimCLRAugment` has it.

    Returns:
        A compiled function to float32 [2B, S, S, 3].
    """
    import tensorflow as tf

    from simclr_tf.augment import SimCLRAugment
    from simclr_tf.models.multi_view import MultiViewModel

    settings = recipe(image_size)
    augment = SimCLRAugment(
        image_size, settings.color_jitter_strength, settings.use_blur, vectorized=vectorized
    )
    model = MultiViewModel(augment, seed=0, metric_names=[], views_per_image=2, name="views")
    batch = {"image": tf.constant(images)}

    @tf.function
    def views():
        model.step.assign_add(1)
        return model.make_views(batch, model.step)

    return views


def _row(result):
    return [
        str(result["image_size"]),
        str(result["stored_size"]),
        f"{result['color_jitter_strength']:g}",
        "yes" if result["use_blur"] else "no",
        str(result["batch_size"]),
        *(spread_text(result[key]) for key in ("ours", "vectorized", "host", "ratio")),
    ]
