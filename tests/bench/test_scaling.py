"""The bench of replicas: what it says they exchange against what a traced step reduces."""

import collections

import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.bench import scaling
from simclr_tf.bench.measure import HardwareInfo, ProcessDiedError
from simclr_tf.config import TrainingPlan
from simclr_tf.errors import UserError
from simclr_tf.models import SimCLR, build_projection_head
from simclr_tf.models.build import build_model
from simclr_tf.models.layers import LayerFactory, resolve_policy

GLOBAL_BATCH, SIDE = 24, 8
CHANNELS = (5, 11)  # of the batch norms, so that they are told from all else by their size


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
    plan = TrainingPlan(GLOBAL_BATCH, 13, 10, 0, 1.0, 0.1)
    sizes = {"width_multiplier": 0.0625, "image_size": SIDE, "train_batch_size": GLOBAL_BATCH}
    return build_model(scaling.Options(replicas="2", **sizes).pretrain_config(), plan)


def reduced_by_a_traced_step(strategy, model):
    """What each replica puts into collectives: a list of (numbers, bytes)."""

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
        (small_model, {"linear": True}, CHANNELS),
        (small_model, {"global_bn": False}, ()),
        (small_model, {"dtype": "mixed_float16"}, CHANNELS),
        pytest.param(resnet, {}, (4, 8, 16, 32, 128), marks=pytest.mark.slow),
    ],
)
def test_bytes_are_those_that_a_traced_step_reduces(mirrored, make, options, channels):
    strategy = mirrored(2)
    with strategy.scope():
        model = make(**options)
    width = model.projection_head.output_shape[-1]
    counted = collections.Counter(dict.fromkeys(scaling.KINDS, 0))
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
    assert scaling.exchanged_bytes(model, GLOBAL_BATCH, 2) == counted
    assert all(counted[kind] for kind in scaling.KINDS if kind != "batch norm" or channels)


def test_one_replica_exchanges_nothing():
    assert not any(scaling.exchanged_bytes(small_model(), GLOBAL_BATCH, 1).values())


def test_one_replica_is_measured_under_the_default_strategy(monkeypatch):
    opened = []
    monkeypatch.setattr("simclr_tf.training.distribution.make_distribution", opened.append)
    monkeypatch.setattr("simclr_tf.models.build.build_model", lambda settings, plan: small_model())
    options = scaling.Options(replicas="1", train_batch_size=4, image_size=SIDE, steps=3)
    # The small encoder's own side: what is stored is half as large again.
    monkeypatch.setattr(scaling, "_batch", lambda strategy, share, side: noise(share))
    measured = scaling._measure(options, 1)
    assert measured["seconds"] > 0 and not opened


def noise(share):
    return {"image": tf.ones([share, SIDE, SIDE, 3], tf.uint8)}


def test_batches_lie_on_their_devices(mirrored):
    strategy = mirrored(2)
    images = strategy.experimental_local_results(scaling._batch(strategy, 3, 8)["image"])
    assert [image.device[-5:] for image in images] == ["CPU:0", "CPU:1"]
    assert all(image.shape == (3, 8, 8, 3) and image.dtype == tf.uint8 for image in images)
    assert (images[0].numpy() != images[1].numpy()).any()


@pytest.fixture
def measured(monkeypatch):
    """Step times instead of processes: what is asked for, and by replicas the times in turn."""
    asked, times = [], {}

    def in_fresh_process(function, options, count):
        asked.append(count)
        if isinstance(times[count], Exception):
            raise times[count]
        exchanged = dict.fromkeys(scaling.KINDS, 2**10 * (count > 1))
        return {"seconds": times[count].pop(0), "exchanged_bytes": exchanged}

    monkeypatch.setattr(scaling, "in_fresh_process", in_fresh_process)
    monkeypatch.setattr(scaling, "this_machine", lambda: HardwareInfo("CPU", 2, "2", []))
    return asked, times


def test_rounds_alternate_and_one_replica_is_the_measure(measured):
    asked, times = measured
    times |= {4: [0.5, 2.5, 1.0], 1: [2.0, 1.0, 3.0]}
    options = scaling.Options(replicas="4,1", train_batch_size=64)
    report = scaling.run(options, lambda line: None)
    assert asked == [4, 1] * 3
    assert report.rows == [
        ["4", "16", "1 (0.5–2.5)", "128", "2.00 ×", "50%", *["1 KiB"] * 4],
        ["1", "64", "2 (1–3)", "64", "1.00 ×", "100%", *["0 B"] * 4],
    ]
    assert any("share the same cores" in note for note in report.notes)


def test_without_one_replica_nothing_is_compared(measured):
    measured[1][2] = [1.0]
    report = scaling.run(scaling.Options(replicas="2", repeats=1), lambda line: None)
    assert report.rows[0][4:6] == ["–", "–"]


@pytest.mark.parametrize("error", [MemoryError("OOM"), ProcessDiedError()])
def test_want_of_memory_is_told(measured, error):
    measured[1][2] = error
    with pytest.raises(UserError, match="2 replicas did not find the memory for --train_batch"):
        scaling.run(scaling.Options(replicas="2"), lambda line: None)


def test_more_replicas_than_gpus_are_refused(measured, monkeypatch):
    monkeypatch.setattr(scaling, "this_machine", lambda: HardwareInfo("CPU", 2, "2", ["GPU"]))
    with pytest.raises(UserError, match="--replicas=1,2: 1 of 2 GPUs are visible"):
        scaling.run(scaling.Options(replicas="1,2"), lambda line: None)
    assert not measured[0]


def test_options_are_checked_before_any_work():
    for wrong in ({"resnet_depth": 19}, {"image_size": 4}, {"precision": "int8"}):
        with pytest.raises(UserError, match=f"--{next(iter(wrong))}="):
            scaling.Options(**wrong)
