"""Benchmark of replicas: the exchanged bytes against the collectives of a traced step."""

import collections

import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.bench import scaling
from simclr_tf.bench.harness import BenchResult
from simclr_tf.bench.workload import dummy_plan
from simclr_tf.errors import UserError
from simclr_tf.models import SimCLR, build_projection_head
from simclr_tf.models.build import build_model
from simclr_tf.models.layers import LayerFactory, resolve_policy
from simclr_tf.utils.hardware import HardwareInfo

GLOBAL_BATCH, SIDE = 24, 8
TINY = {"width_multiplier": 0.0625, "image_size": SIDE}
CHANNELS = (5, 11)  # of the batch norms, so that their size distinguishes them


def small_model(linear=False, global_bn=True, dtype="float32"):
    make = LayerFactory(resolve_policy(dtype), global_bn=global_bn)
    images = keras.Input((SIDE, SIDE, 3))
    x = make.conv_bn_relu(images, CHANNELS[0], 3, "small", 1)
    features = keras.layers.GlobalAveragePooling2D(dtype="float32")(x)
    head = build_projection_head(
        "linear", out_dim=CHANNELS[1], input_dim=CHANNELS[0], global_bn=global_bn, dtype=dtype
    )
    linear_head = keras.layers.Dense(13, dtype="float32") if linear else None
    if linear_head:
        linear_head.build((None, CHANNELS[0]))
    model = SimCLR(
        keras.Model(images, features),
        head,
        augment=lambda images, *_: tf.cast(images, tf.float32) / 255.0,
        linear_head=linear_head,
    )
    model.build((None, SIDE, SIDE, 3))
    optimizer = keras.optimizers.SGD(0.1)
    if dtype == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    model.compile(optimizer)
    return model


def resnet():
    options = scaling.Options(replicas="2", train_batch_size=GLOBAL_BATCH, **TINY)
    return build_model(options.pretrain_config(), dummy_plan(GLOBAL_BATCH, 13))


def reduced_by_a_traced_step(strategy, model):
    """Returns what each replica puts into collectives: a list of (numbers, bytes)."""

    def batch(_):
        share = GLOBAL_BATCH // strategy.num_replicas_in_sync
        images = tf.zeros([share, SIDE, SIDE, 3], tf.uint8)
        return {"image": images, "label": tf.zeros([share], tf.int32)}

    values = strategy.experimental_distribute_values_from_function(batch)
    step = tf.function(lambda: strategy.run(model.train_step, (values,)))
    graph = step.get_concrete_function().graph
    found = collections.defaultdict(list)
    for operation in graph.get_operations():
        if operation.type.startswith("Collective"):
            assert operation.type == "CollectiveReduceV2"
            value = operation.inputs[0]
            numbers = value.shape.num_elements()
            found[operation.device].append((numbers, numbers * value.dtype.size))
    assert len(found) == strategy.num_replicas_in_sync
    first, *others = map(sorted, found.values())
    assert all(other == first for other in others)
    return first


@pytest.mark.parametrize(
    ("make", "options", "channels"),
    [
        (small_model, {"linear": True, "dtype": "mixed_float16"}, CHANNELS),
        (small_model, {"global_bn": False}, ()),
        pytest.param(resnet, {}, (4, 8, 16, 32, 128), marks=pytest.mark.slow),
    ],
)
def test_exchanged_bytes_equal_those_of_a_traced_step(mirrored, make, options, channels):
    strategy = mirrored(2)
    with strategy.scope():
        model = make(**options)
    width = model.projection_head.output_shape[-1]
    counted = collections.Counter(dict.fromkeys(scaling.COLLECTIVES, 0))
    for numbers, size in reduced_by_a_traced_step(strategy, model):
        if numbers == 2 * GLOBAL_BATCH * width:
            kind = "projections"
        elif numbers in channels:
            kind = "batch norm"
        elif numbers in (1, 3):
            kind = "scalars"
        else:
            kind = "gradients"
        counted[kind] += size
    assert scaling.all_reduce_bytes_per_replica(model, GLOBAL_BATCH, 2) == counted
    assert all(counted[kind] for kind in scaling.COLLECTIVES if kind != "batch norm" or channels)


def test_one_replica_exchanges_nothing():
    assert not any(scaling.all_reduce_bytes_per_replica(None, GLOBAL_BATCH, 1).values())


@pytest.mark.slow
def test_step_of_one_replica_is_measured():
    options = scaling.Options(replicas="1", train_batch_size=4, steps=1, **TINY)
    measured = scaling.measure(options, 1)
    assert measured["seconds"] > 0 and not any(measured["exchanged_bytes"].values())


def test_random_batches_are_on_their_devices(mirrored):
    strategy = mirrored(2)
    images = strategy.experimental_local_results(scaling.random_batch(strategy, 3, 8)["image"])
    assert [image.device[-5:] for image in images] == ["CPU:0", "CPU:1"]
    assert all(image.shape == (3, 8, 8, 3) and image.dtype == tf.uint8 for image in images)
    assert (images[0].numpy() != images[1].numpy()).any()


def test_one_replica_is_the_base_of_speed_and_efficiency():
    options = scaling.Options(replicas="4,1", train_batch_size=64)
    exchanged = dict.fromkeys(scaling.COLLECTIVES, 2**10)
    outcomes = {
        count: [{"seconds": s, "exchanged_bytes": exchanged} for s in seconds]
        for count, seconds in {4: (0.5, 2.5, 1.0), 1: (2.0, 1.0, 3.0)}.items()
    }
    results = scaling.summarize(options, outcomes)
    assert BenchResult(None, scaling.BENCHMARK.columns, results, []).rows() == [
        ["4", "16", "1 (0.5–2.5)", "128", "2.00 ×", "50%", *["1.02 kB"] * 4],
        ["1", "64", "2 (1–3)", "64", "1.00 ×", "100%", *["1.02 kB"] * 4],
    ]
    (alone,) = scaling.summarize(scaling.Options(replicas="4"), {4: outcomes[4]})
    assert "speed" not in alone


def test_more_replicas_than_gpus_are_refused():
    options = scaling.Options(replicas="1,2")
    with pytest.raises(UserError, match=r"--replicas=1,2: expected at most 1, .* got 2"):
        options.cases(HardwareInfo("CPU", 2, "2", ["GPU"]))
    hardware = HardwareInfo("CPU", 2, "2", [])
    assert options.cases(hardware) == {"1 replica": 1, "2 replicas": 2}
    assert any("share the same cores" in note for note in options.notes(hardware))


def test_options_are_validated_as_those_of_a_run():
    for wrong in ({"resnet_depth": 19}, {"image_size": 4}, {"precision": "int8"}):
        with pytest.raises(UserError, match=f"--{next(iter(wrong))}="):
            scaling.Options(**wrong)
