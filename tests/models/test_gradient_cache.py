"""Training in pieces: the same step as with all views at once, and never all views at once."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf import losses
from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.models import build_projection_head
from simclr_tf.models.build import build_model
from simclr_tf.models.gradient_cache import cached_gradients
from simclr_tf.option_groups import Augmentation, Data, Encoder, Optimization
from tests.models import tiny_simclr
from tests.models.tiny_simclr import (
    BATCH,
    MULTI_CROP,
    batches,
    dimmed,
    optimizer_named,
    share_out,
    two_blocks,
    weights_of,
)


def free_parts(penalty=0.0, dtype="float64", side=8):
    """An encoder and a head without batch norm: the features of an image are its own."""
    images = keras.Input((side, side, 3), dtype=keras.mixed_precision.Policy(dtype).variable_dtype)
    x = keras.layers.Conv2D(
        6, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(penalty), dtype=dtype
    )(images)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", dtype=dtype)(x)
    x = keras.layers.GlobalAveragePooling2D(dtype=dtype)(x)
    if penalty:
        # A mean over the images of what they are, which no weight tells.
        x = keras.layers.ActivityRegularization(l2=penalty, dtype=dtype)(x)
    x = keras.layers.Activation("linear", dtype=images.dtype)(x)
    features = keras.Input((8,), dtype=images.dtype)
    z = keras.layers.Dense(5, dtype=dtype)(features)
    z = keras.layers.Activation("linear", dtype=images.dtype)(z)
    return keras.Model(images, x), keras.Model(features, z)


def normed_parts(global_bn=False):
    settings = {"input_dim": 8, "global_bn": global_bn, "dtype": "float64"}
    head = build_projection_head("linear", out_dim=6, **settings)
    return two_blocks(global_bn=global_bn), head


def build(parts, size=0, optimizer=None, linear=True, **settings):
    keras.utils.set_random_seed(1)
    encoder, head = parts()
    return tiny_simclr.build(
        optimizer, linear, encoder, head=head, microbatch_size=size, **settings
    )


def traceable(model, strategy, **options):
    return tf.function(lambda batch: strategy.run(model.train_step, (batch,)), **options)


def train(model, steps=3, strategy=None, **options):
    """The logs of every step, of the first replica; eager without microbatches."""
    step = model.train_step
    if strategy or model.microbatch_size:
        step = traceable(model, strategy or tf.distribute.get_strategy(), **options)
    strategy = strategy or tf.distribute.get_strategy()
    found = []
    for batch in batches(steps):
        figures = step(share_out(batch, strategy))
        found.append(
            {k: float(strategy.experimental_local_results(v)[0]) for k, v in figures.items()}
        )
    return found


def assert_same(found, wanted, rtol=1e-9, atol=1e-9):
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


@pytest.mark.parametrize(("name", "linear", "size"), [("lars", True, 4), ("momentum", False, 1)])
def test_microbatches_train_as_the_whole_batch(name, linear, size):
    def made(size):
        parts = lambda: free_parts(penalty=0.05)  # noqa: E731
        return build(parts, size, optimizer_named(name), linear)

    whole = made(0)
    start = weights_of(whole)
    figures = train(whole)
    assert all(
        abs(a - b).max() > 1e-5 for a, b in zip(weights_of(whole), start, strict=True) if a.ndim > 1
    )
    model = made(size)
    found = train(model)
    assert_same(weights_of(model), weights_of(whole))
    for ours, theirs in zip(found, figures, strict=True):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            np.testing.assert_allclose(ours[key], theirs[key], 1e-5, 1e-6, err_msg=key)


@pytest.mark.parametrize("settings", [{"num_views": 3}, MULTI_CROP], ids=["views", "multi_crop"])
def test_microbatches_of_more_views_train_as_the_whole_batch(settings):
    def made(size):
        parts = lambda: free_parts(0.05, side=None)  # noqa: E731
        return build(parts, size, optimizer_named("momentum"), **settings)

    whole, model = made(0), made(4)
    figures, found = train(whole), train(model)
    assert_same(weights_of(model), weights_of(whole))
    np.testing.assert_allclose([f["loss"] for f in found], [f["loss"] for f in figures], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [losses.supcon, losses.vicreg, losses.tcr])
def test_microbatches_on_replicas_train_as_the_whole_batch_with_another_loss(mirrored, loss):
    whole = build(free_parts, loss=loss)
    figures = train(whole)
    strategy = mirrored(2)
    with strategy.scope():
        model = build(free_parts, 2, loss=loss)
    found = train(model, strategy=strategy)
    assert_same(weights_of(model), weights_of(whole))
    np.testing.assert_allclose([f["loss"] for f in found], [f["loss"] for f in figures], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("replicas, pieces", [(1, 3), (2, 2)])
def test_microbatches_equal_replicas_that_do_not_share_batch_statistics(mirrored, replicas, pieces):
    strategy = mirrored(replicas * pieces)
    with strategy.scope():
        wanted = build(normed_parts, optimizer=optimizer_named("lars"))
    figures = train(wanted, strategy=strategy)
    strategy = mirrored(replicas)
    with strategy.scope():
        model = build(normed_parts, BATCH // replicas // pieces, optimizer_named("lars"))
    found = train(model, strategy=strategy)
    np.testing.assert_allclose(
        [step["loss"] for step in found], [step["loss"] for step in figures], rtol=1e-9
    )
    # The moving statistics are among them: of the replicas' own ones, the mean.
    assert_same(weights_of(model), weights_of(wanted))


def transcribed(model, groups, rate, steps):
    """The same step with one tape around all groups, which hold rows of the global batch."""
    parts = model.encoder, model.projection_head
    moving = [v for part in parts for v in part.non_trainable_variables]
    losses = []
    for step, batch in enumerate(batches(steps)):
        views = model.make_views(batch, step)
        before, after = [v.numpy() for v in moving], []
        with tf.GradientTape() as tape:
            rows, z = [], []
            for group in groups:
                for variable, value in zip(moving, before, strict=True):
                    variable.assign(value)
                both = np.concatenate([group, BATCH + np.array(group)])
                z.append(model(tf.gather(views, both), training=True))
                rows.append(both)
                after.append([v.numpy() for v in moving])
            z = tf.math.l2_normalize(tf.concat(z, axis=0), axis=1)
            z = tf.gather(z, np.argsort(np.concatenate(rows)))
            logits = tf.matmul(z, z, transpose_b=True) / model.temperature
            logits -= 1e9 * np.eye(2 * BATCH)
            positive = np.roll(np.arange(2 * BATCH), BATCH)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(positive, logits))
        variables = model.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(rate * gradient)
        for variable, values in zip(moving, zip(*after, strict=True), strict=True):
            variable.assign(np.mean(values, axis=0))
        losses.append(float(loss))
    return losses


@pytest.mark.slow
def test_microbatches_on_replicas_share_the_statistics_of_a_microbatch(mirrored):
    strategy = mirrored(2)
    with strategy.scope():
        model = build(lambda: normed_parts(global_bn=True), 2, linear=False)
    found = train(model, strategy=strategy)
    plain = build(normed_parts, linear=False)
    # Images 0 to 5 are the first replica's.
    losses = transcribed(plain, [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]], rate=0.1, steps=3)
    # Synchronized, a variance is E[x²] − E[x]², which loses digits, with one piece as with many.
    np.testing.assert_allclose([step["loss"] for step in found], losses, rtol=1e-6)
    assert_same(weights_of(model), weights_of(plain), rtol=1e-6, atol=1e-6)


def test_moving_statistics_become_the_mean_over_microbatches():
    def parts():
        images = keras.Input((8, 8, 3), dtype="float64")
        x = keras.layers.BatchNormalization(momentum=0.8, dtype="float64", name="bn")(images)
        x = keras.layers.Conv2D(5, 3, dtype="float64", trainable=False, name="frozen")(x)
        x = keras.layers.GlobalAveragePooling2D(dtype="float64")(x)
        features = keras.Input((5,), dtype="float64")
        head = keras.Model(features, keras.layers.Dense(4, dtype="float64")(features))
        return keras.Model(images, x), head

    model = build(parts, 4)
    bn, frozen = model.encoder.get_layer("bn"), model.encoder.get_layer("frozen")
    kernel = frozen.get_weights()[0]
    mean, variance = np.zeros(3), np.ones(3)
    for step, batch in enumerate(batches(2)):
        views = model.make_views(batch, step).numpy().reshape(2, 3, 4, 8, 8, 3)
        mean = 0.8 * mean + 0.2 * np.mean(views.mean(axis=(0, 2, 3, 4)), axis=0)
        variance = 0.8 * variance + 0.2 * np.mean(views.var(axis=(0, 2, 3, 4)), axis=0)
    train(model, 2)
    np.testing.assert_allclose(bn.moving_mean, mean, rtol=1e-6)
    np.testing.assert_allclose(bn.moving_variance, variance, rtol=1e-6)
    np.testing.assert_array_equal(frozen.get_weights()[0], kernel)


@pytest.mark.slow
def test_microbatches_compile_under_xla():
    plain, compiled = build(normed_parts, 3), build(normed_parts, 3)
    train(plain)
    train(compiled, jit_compile=True)
    assert_same(weights_of(compiled), weights_of(plain))


def test_microbatches_of_float16_use_the_loss_scale():
    def trained(size):
        # As large as no overflow allows: a scale applied once too often, or never, shows.
        optimizer = keras.mixed_precision.LossScaleOptimizer(
            keras.optimizers.SGD(0.1), dynamic=False, initial_scale=1024.0
        )

        def parts():
            return free_parts(dtype="mixed_float16")

        def augment(*args):
            return tf.cast(dimmed(*args), tf.float32)

        model = build(parts, size, optimizer, augment=augment)
        start = weights_of(model)
        figures = train(model)
        return [new - old for new, old in zip(weights_of(model), start, strict=True)], figures

    (whole, figures), (pieces, found) = trained(0), trained(3)
    np.testing.assert_allclose([f["loss"] for f in found], [f["loss"] for f in figures], rtol=1e-3)
    for ours, theirs in zip(pieces, whole, strict=True):
        assert abs(theirs).max() > 1e-3
        np.testing.assert_allclose(ours, theirs, atol=0.02 * abs(theirs).max())


def test_views_of_a_slice_equal_those_of_the_whole_batch():
    def stretched(images, seed, offset, aspect):
        return aspect[:, tf.newaxis, tf.newaxis, tf.newaxis] * dimmed(images, seed, offset, None)

    model = build(free_parts, augment=stretched)
    (batch,) = batches(1)
    batch["aspect"] = tf.constant(np.geomspace(0.5, 2.0, BATCH))
    whole = model.make_views(batch, 7)
    slices = tf.function(lambda k: model.make_views(batch, 7, 3 * k, 3))
    assert slices.get_concrete_function(tf.TensorSpec([], tf.int32)).output_shapes == [6, 8, 8, 3]
    for k in range(4):
        of_both = np.r_[3 * k : 3 * k + 3, BATCH + 3 * k : BATCH + 3 * k + 3]
        np.testing.assert_allclose(slices(tf.constant(k)), whole.numpy()[of_both], rtol=1e-12)


def test_cached_gradients_include_direct_dependencies_of_the_loss():
    rows = np.random.default_rng(0).normal(size=(3, 2, 4))
    both, inside, outside, unused = (
        tf.Variable(np.random.default_rng(i).normal(size=(4, 4))) for i in range(4)
    )
    pick = tf.Variable(rows[0])

    def encode(k):
        x = tf.gather(tf.constant(rows), k)
        first = tf.matmul(tf.tanh(tf.matmul(x, both)), inside)
        return first, tf.reduce_sum(tf.gather(pick, [0, 1]) * x), tf.matmul(x, unused)

    def loss_of(outputs):
        first, picked, _ = outputs
        z = tf.reshape(first, [6, 4])
        return tf.reduce_logsumexp(tf.matmul(z @ outside @ both, z, transpose_b=True)) + (
            tf.reduce_prod(picked)
        ), picked

    variables = [both, inside, outside, unused, pick]
    with tf.GradientTape() as tape:
        stacked = [tf.stack(x) for x in zip(*[encode(k) for k in range(3)], strict=True)]
        loss, wanted = loss_of(stacked)
    expected = tape.gradient(loss, variables)
    assert expected[3] is None
    for run in (lambda f: f(), lambda f: tf.function(f)()):
        # A function of a graph returns no None.
        gradients, extra = run(
            lambda: tf.nest.map_structure(
                lambda x: "none" if x is None else x,
                cached_gradients(3, encode, loss_of, variables),
            )
        )
        np.testing.assert_allclose(extra, wanted)
        assert gradients[3] == "none"
        for found, gradient in zip(gradients, expected, strict=True):
            if gradient is not None:
                np.testing.assert_allclose(found, tf.convert_to_tensor(gradient), rtol=1e-9)


def test_indivisible_batch_is_refused():
    with pytest.raises(ValueError, match="at least 0, got -1"):
        build(free_parts, -1)
    (batch,) = batches(1)
    for size in (5, 24):
        with pytest.raises(ValueError, match=f"microbatch_size={size} must divide the per-replica"):
            build(free_parts, size).train_step(batch)
    with pytest.raises(ValueError, match="drop_remainder=True"):
        tf.function(build(free_parts, 3).train_step).get_concrete_function(
            {"image": tf.TensorSpec([None, 8, 8, 3], tf.uint8)}
        )


def leading_sizes(graph):
    """The first dimension of every tensor of rank 4, those in loops and functions included."""
    definition = graph.as_graph_def(add_shapes=True)
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    shapes = [shape for node in nodes for shape in node.attr["_output_shapes"].list.shape]
    return {shape.dim[0].size for shape in shapes if len(shape.dim) == 4}


def ancestors(op):
    found, todo = set(), [op]
    while todo:
        here = todo.pop()
        for other in [tensor.op for tensor in here.inputs] + here.control_inputs:
            if other not in found:
                found.add(other)
                todo.append(other)
    return found


def loops_of(graph):
    loops = [op for op in graph.get_operations() if op.type in ("While", "StatelessWhile")]
    assert len(loops) == 2
    return loops


@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_all_views_never_exist_at_once(mirrored, replicas):
    strategy = mirrored(replicas) if replicas > 1 else tf.distribute.get_strategy()

    def graph(size):
        with strategy.scope():
            model = build(lambda: normed_parts(global_bn=replicas > 1), size)
        (batch,) = batches(1)
        return traceable(model, strategy).get_concrete_function(share_out(batch, strategy)).graph

    share = BATCH // replicas
    assert {2 * share} <= leading_sizes(graph(0))
    graph_of_two = graph(2)
    assert {2 * 2} <= leading_sizes(graph_of_two)
    assert not {2 * share, 2 * BATCH} & leading_sizes(graph_of_two)
    for loop in loops_of(graph_of_two):
        assert loop.get_attr("parallel_iterations") == 1
    # More pieces make no larger graph.
    assert len(graph(1).get_operations()) == len(graph_of_two.get_operations())


def test_the_second_pass_waits_for_the_first():
    # Without batch norm, whose variables would keep them in order.
    (batch,) = batches(1)
    train_step = tf.function(build(free_parts, 2).train_step)
    first, second = loops_of(train_step.get_concrete_function(batch).graph)
    # Not even its first turn may begin: the number of the piece that it begins with must wait.
    (number,) = [x for x in second.inputs[2:] if x.dtype == tf.int32 and x.op.type == "Const"]
    assert first in ancestors(number.op)


def test_microbatch_option_reaches_the_model():
    config = PretrainConfig(
        Data("shapes"),
        Augmentation(image_size=8),
        Encoder(resnet_depth=18, width_multiplier=1 / 32),
        optimization=Optimization(microbatch_size=4),
    ).resolve()
    plan = TrainingPlan(8, None, 1, 0, 1.0, 0.1)
    assert build_model(config, plan).microbatch_size == 4
