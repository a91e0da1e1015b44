"""Feature extraction, as evaluate and embed do it, against inference with the encoder alone.

Times whole passes over images in memory, without the cache of features. The upper bound,
"encoder only", is the encoder in inference mode on the same number of batches, which are on the
device already. Each width runs in a fresh process.

  simclr-tf bench embed --width_multipliers=1,0.25 --images=4096
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from simclr_tf.bench import harness, workload
from simclr_tf.config import PretrainConfig
from simclr_tf.option_groups import PRECISIONS
from simclr_tf.options import option
from simclr_tf.utils.hardware import HardwareInfo


@dataclasses.dataclass(frozen=True)
class Options(workload.WidthOptions):
    """Measurement"""

    images: int = option(4096, "Images in the split whose features are extracted.", min=1)
    batch_size: int = option(256, "Images per call of the encoder.", min=2)
    resnet_depth: int = option(18, "18, 34, 50, 101, 152 or 200.")
    image_size: int = option(32, "Side in pixels of the encoder's input.")
    precision: str = option("float32", "Precision of the encoder.", choices=PRECISIONS)
    repeats: int = option(5, "Rounds; each measures both once.", min=1)
    seconds: float = option(
        2.0, "Duration of one measurement in seconds; at least one pass.", exclusive_min=0
    )

    def __post_init__(self):
        super().__post_init__()
        for width in self.widths:
            self.pretrain_config(width)

    def pretrain_config(self, width: float) -> PretrainConfig:
        """Returns the run whose encoder is measured."""
        augmentation = workload.paper_augmentation(self.image_size)
        return workload.pretrain_config(
            augmentation, self.resnet_depth, width, self.batch_size, self.precision
        )

    def notes(self, hardware: HardwareInfo) -> list[str]:
        return [
            harness.rounds_footnote(self.repeats),
            f"ResNet-{self.resnet_depth} at {self.image_size} px, {self.precision}; {self.images} "
            f"images in batches of {self.batch_size}.",
        ]


def measure(options: Options, width: float) -> dict[str, Any]:
    """Measures passes over the images at a width, in images per second."""
    works, label = passes(options, width), f"width {width:g}, images/s"
    samples = harness.compare(works, options, label, "extraction", "encoder_only")
    return {"width_multiplier": width, **samples}


def passes(options: Options, width: float) -> dict[str, tuple[Callable[[], Any], int]]:
    """Returns a compiled pass of each kind over the images, and the number of its images."""
    from simclr_tf.evaluation.features import FeatureExtractor
    from simclr_tf.models.build import build_encoder

    config = options.pretrain_config(width)
    encoder = build_encoder(config.encoder, options.precision)
    size, batch, count = options.image_size, options.batch_size, options.images
    extract = FeatureExtractor(encoder, size, batch)
    source = workload.random_source(count, config)
    infer = encoder_only_inference(encoder, workload.random_views(batch, size))
    calls = -(-count // batch)

    def infer_all():
        for _ in range(calls):
            infer()

    extract(source)  # compiles
    infer()
    # The extractor pads its last batch, so that it returns fewer features than the encoder makes.
    return {
        "extraction": (lambda: extract(source), count),
        "encoder_only": (infer_all, calls * batch),
    }


def encoder_only_inference(encoder: Any, images: Any) -> Callable[[], Any]:
    """Returns a compiled function: features of images [B, S, S, 3] in inference mode."""
    import tensorflow as tf

    return tf.function(lambda: encoder(images, training=False), autograph=False)


BENCHMARK = harness.Benchmark(
    Options,
    measure,
    columns={
        "width": "width_multiplier",
        "extraction, images/s": "extraction",
        "encoder only, images/s": "encoder_only",
        "extraction / encoder only, %": lambda r: harness.format_samples(r["ratio"], 0.01),
    },
    memory_flag="batch_size",
)
