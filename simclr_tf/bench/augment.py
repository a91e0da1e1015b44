"""Augmentation of batches on the device against augmentation of single images on the host.

Times both views of a batch as the training step makes them, from images on the device, and the same
recipe written with tf.image for each image in tf.data's parallel map (see
simclr_tf/bench/tf_image_baseline.py), delivered to the device. "vectorized" is the form for
accelerators, every operation on the whole batch; "simclr_tf" chooses the form, which on a CPU
transforms one image at a time. Sizes up to 32 px use the recipe of CIFAR-10: images of that size,
strength 0.5, no blur. Larger sizes use that of ImageNet: images 8/7 as large, strength 1, blur.
Each size runs in a fresh process.

  simclr-tf bench augment --image_sizes=32,224 --output=augment.json
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from simclr_tf.bench import harness
from simclr_tf.bench.workload import SMALL_IMAGE_MAX, paper_augmentation, random_images
from simclr_tf.options import OptionGroup, option, parse_ints
from simclr_tf.utils.hardware import HardwareInfo


@dataclasses.dataclass(frozen=True)
class Options(OptionGroup):
    """Measurement"""

    image_sizes: str = option("32,224", "Sides of the views in pixels.")
    batch_size: int = option(0, "Images in a batch. 0: 512 up to 32 px, 64 above.", min=0)
    repeats: int = option(5, "Rounds; each measures every form once.", min=1)
    seconds: float = option(3.0, "Duration of one measurement in seconds.", exclusive_min=0)

    def __post_init__(self):
        super().__post_init__()
        for size in parse_ints("image_sizes", self.image_sizes):
            paper_augmentation(size)

    def cases(self, hardware: HardwareInfo) -> dict[str, int]:
        return {f"{size} px": size for size in parse_ints("image_sizes", self.image_sizes)}

    def notes(self, hardware: HardwareInfo) -> list[str]:
        return [harness.rounds_footnote(self.repeats)]


def measure(options: Options, size: int) -> dict[str, Any]:
    """Measures both views of batches at a size, in views per second, in the current process."""
    from simclr_tf.bench.tf_image_baseline import tf_image_dataset

    augmentation, small = paper_augmentation(size), size <= SMALL_IMAGE_MAX
    strength, use_blur = augmentation.color_jitter_strength, augmentation.use_blur
    stored_size = size if small else round(size * 8 / 7)
    batch = options.batch_size or (512 if small else 64)
    images = random_images(batch, stored_size)
    works: dict[str, Any] = {}
    for name, vectorized in {"simclr_tf": None, "vectorized": True}.items():
        works[name] = device_views(images, size, vectorized), 2 * batch
        works[name][0]()  # compiles
    works["tf_image"] = tf_image_dataset(images, batch, size, strength, use_blur), 2 * batch
    return {
        "image_size": size,
        "stored_size": stored_size,
        "color_jitter_strength": strength,
        "use_blur": use_blur,
        "batch_size": batch,
        **harness.compare(works, options, f"{size} px, views/s", "simclr_tf", "tf_image"),
    }


def device_views(images: Any, image_size: int, vectorized: bool | None = None) -> Callable[[], Any]:
    """Returns a compiled function: views of uint8 images [B, H, W, 3] in the next training step."""
    import tensorflow as tf

    from simclr_tf.augment import SimCLRAugment
    from simclr_tf.models.multi_view import MultiViewModel

    settings = paper_augmentation(image_size)
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


BENCHMARK = harness.Benchmark(
    Options,
    measure,
    columns={
        "px": "image_size",
        "from px": "stored_size",
        "strength": "color_jitter_strength",
        "blur": "use_blur",
        "batch": "batch_size",
        "simclr_tf, views/s": "simclr_tf",
        "vectorized, views/s": "vectorized",
        "tf.image, views/s": "tf_image",
        "simclr_tf / tf.image": "ratio",
    },
    memory_flag="batch_size",
)
