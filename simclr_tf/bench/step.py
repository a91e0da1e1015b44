"""Pretraining step against the encoder alone: the cost of the method.

Times the whole step of `simclr-tf pretrain`: images in memory, input pipeline, augmentation,
encoder, projection head, loss, optimizer and metrics. The upper bound, "encoder only", is the
forward and backward pass of the encoder on a batch of as many views, which is on the device
already, at the same precision. Each width runs in a fresh process, in which all precisions of both
alternate.

FLOP/s are those of the encoder: counted for a forward pass, times three, times the step's views/s.

The defaults take some minutes on 2 cores; --width_multipliers=0.25, --precisions=bfloat16 or a
lower --repeats take less.

  simclr-tf bench step --width_multipliers=1,0.25 --precisions=float32,bfloat16
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from simclr_tf.bench import harness, workload
from simclr_tf.config import PretrainConfig
from simclr_tf.errors import UserError
from simclr_tf.option_groups import PRECISIONS
from simclr_tf.options import option, parse_choices
from simclr_tf.utils.hardware import HardwareInfo, detect_hardware

# Forward, and as much again for the gradients of the inputs and of the weights.
TRAINING_PASSES = 3

# TFLOP/s of NVIDIA's data sheets without sparsity, by words of the device's name: float32 (as TF32,
# which TensorFlow uses where the GPU has it), bfloat16, float16.
_PEAK_TFLOPS = {
    "H200 NVL": (417.5, 835.5, 835.5),
    "H200": (494.5, 989.5, 989.5),
    "H100 PCIe": (378.0, 756.5, 756.5),
    "H100 NVL": (417.5, 835.5, 835.5),
    "H100": (494.5, 989.5, 989.5),
    "A100": (156.0, 312.0, 312.0),
    "A10": (62.5, 125.0, 125.0),
    "L40S": (183.0, 362.0, 362.0),
    "L4": (60.0, 121.0, 121.0),
    "V100 SXM2": (15.7, None, 125.0),
    "V100 PCIE": (14.0, None, 112.0),
    "T4": (8.1, None, 65.0),
}


@dataclasses.dataclass(frozen=True)
class Options(workload.WidthOptions):
    """Measurement"""

    precisions: str = option("float32,bfloat16", f"Some of {', '.join(PRECISIONS)}.")
    train_batch_size: int = option(512, "Images in a step; each gives two views.", min=2)
    resnet_depth: int = option(18, "18, 34, 50, 101, 152 or 200.")
    image_size: int = option(
        32, "Side of the views in pixels; above 32 they are blurred and jittered as for ImageNet."
    )
    repeats: int = option(5, "Rounds; each measures every precision of both once.", min=1)
    seconds: float = option(
        2.0, "Duration of one measurement in seconds; at least one step.", exclusive_min=0
    )
    peak_tflops: float = option(
        0.0,
        "Peak of the device in TFLOP/s, for a single precision. 0: its data sheet's, if known.",
        min=0,
    )

    def __post_init__(self):
        super().__post_init__()
        precisions = self.precision_list
        for width, precision in itertools.product(self.widths, precisions):
            self.pretrain_config(width, precision)
        if self.peak_tflops and len(precisions) > 1:
            raise UserError(
                f"--peak_tflops={self.peak_tflops:g}: expected a single precision, got "
                f"--precisions={self.precisions}. Fix: --precisions={precisions[0]}"
            )

    @property
    def precision_list(self) -> list[str]:
        return parse_choices("precisions", self.precisions, PRECISIONS, required=True)

    def pretrain_config(self, width: float, precision: str) -> PretrainConfig:
        """Returns the run whose step is measured."""
        augmentation = workload.paper_augmentation(self.image_size)
        return workload.pretrain_config(
            augmentation, self.resnet_depth, width, self.train_batch_size, precision
        )

    def notes(self, hardware: HardwareInfo) -> list[str]:
        return [
            harness.rounds_footnote(self.repeats),
            f"ResNet-{self.resnet_depth} at {self.image_size} px, {self.train_batch_size} images "
            "per step. Encoder only: its forward and backward pass.",
            "FLOP/s: of the encoder in the step, at the median: its forward pass counted, times "
            "three.",
        ]


def measure(options: Options, width: float) -> list[dict[str, Any]]:
    """Measures all precisions at a width, in views per second, in the current process."""
    from simclr_tf.models.build import build_encoder, build_model

    batch = options.train_batch_size
    views = workload.random_views(2 * batch, options.image_size)
    works: dict[str, Any] = {}
    for precision in options.precision_list:
        config = options.pretrain_config(width, precision)
        model = build_model(config, workload.dummy_plan(batch, workload.NUM_CLASSES))
        encoder = build_encoder(config.encoder, precision)
        works[f"{precision} step"] = pretrain_step(model, config), 2 * batch
        works[f"{precision} encoder_only"] = encoder_only_step(encoder, views), 2 * batch
    # Not before: build_model sets TensorFlow's seed, which drops what is compiled already.
    for step, _ in works.values():
        step()
    quantities, label = harness.rates(works, options.seconds), f"width {width:g}, views/s"
    samples = harness.measure_interleaved(quantities, options.repeats, label)
    forward_flops = count_forward_flops(encoder, options.image_size)
    return summarize(options, width, samples, forward_flops, detect_hardware().gpus)


def summarize(
    options: Options,
    width: float,
    samples: dict[str, harness.Samples],
    forward_flops: int,
    gpus: Sequence[str],
) -> list[dict[str, Any]]:
    """Returns a result for each precision, from samples "PRECISION step" and "… encoder_only"."""
    results, base = [], samples.get("float32 step")
    for precision in options.precision_list:
        step, encoder_only = samples[f"{precision} step"], samples[f"{precision} encoder_only"]
        to_float32 = step.ratio_to(base).to_json() if base and base is not step else None
        data_sheet = peak_flops(gpus[0], precision) if gpus else None
        peak = 1e12 * options.peak_tflops or data_sheet
        achieved = TRAINING_PASSES * forward_flops * step.median
        results.append(
            {
                "width_multiplier": width,
                "precision": precision,
                "step": step.to_json(),
                "encoder_only": encoder_only.to_json(),
                "ratio": step.ratio_to(encoder_only).to_json(),
                "ratio_to_float32": to_float32,
                "forward_flops": forward_flops,
                "flops_per_second": achieved,
                "peak_flops_per_second": peak,
                "fraction_of_peak": achieved / peak if peak else None,
            }
        )
    return results


def pretrain_step(model: Any, config: PretrainConfig) -> Callable[[], Any]:
    """Returns a function that takes the model's next step as `fit` does, on random images."""
    from simclr_tf.data import train_batches

    batch = config.optimization.train_batch_size
    source = workload.random_source(4 * batch, config)
    batches = iter(train_batches(source, batch_size=batch, seed=0, start_step=0))
    train = model.make_train_function()
    return lambda: train(batches)


def encoder_only_step(encoder: Any, views: Any) -> Callable[[], Any]:
    """Returns a compiled function: features of views [V, S, S, 3] and their gradients."""
    import tensorflow as tf

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(encoder(views, training=True))
        return tape.gradient(loss, encoder.trainable_variables)

    return step


def count_forward_flops(encoder: Any, image_size: int) -> int:
    """Counts one image's forward pass; a multiplication and an addition are two operations."""
    import tensorflow as tf

    spec = tf.TensorSpec([1, image_size, image_size, 3])
    traced = tf.function(lambda images: encoder(images, training=False), autograph=False)
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    # The profiler does not count batch norm, which takes few. It warns of its own deprecated parts.
    with harness.suppress_stderr():
        graph = traced.get_concrete_function(spec).graph
        return tf.compat.v1.profiler.profile(graph, options=options).total_float_ops


def peak_flops(device: str, precision: str) -> float | None:
    """Returns the peak of a GPU of a name in FLOP/s; None if unknown."""
    words = set(device.replace("-", " ").split())
    if "MIG" in words:  # a fraction of a GPU
        return None
    for name, peaks in _PEAK_TFLOPS.items():
        if words.issuperset(name.split()):
            peak = peaks[("float32", "bfloat16", "float16").index(precision)]
            return peak and peak * 1e12
    return None


BENCHMARK = harness.Benchmark(
    Options,
    measure,
    columns={
        "width": "width_multiplier",
        "precision": "precision",
        "step, views/s": "step",
        "encoder only, views/s": "encoder_only",
        "step / encoder only, %": lambda r: harness.format_samples(r["ratio"], 0.01),
        "step / float32's": "ratio_to_float32",
        "GFLOP/s": lambda r: harness.format_3_digits(r["flops_per_second"] / 1e9),
        "of peak": lambda r: r["fraction_of_peak"] and f"{r['fraction_of_peak']:.1%}",
    },
    memory_flag="train_batch_size",
)
