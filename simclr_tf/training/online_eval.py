"""Evaluations during training: probes of the encoder, validation metrics, an image of views."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from threadpoolctl import threadpool_limits

from simclr_tf.data import ImageSource, decode_errors_name_image, sequential_batches, train_batches
from simclr_tf.errors import UserError
from simclr_tf.evaluation import (
    KNN,
    EvalContext,
    FeatureExtractor,
    Features,
    knn_predict,
    run_protocols,
)
from simclr_tf.evaluation.knn import default_k
from simclr_tf.evaluation.load_encoder import encoder_from_model
from simclr_tf.models import Classifier, SimCLR
from simclr_tf.models.multi_view import MultiViewModel, eager_functions
from simclr_tf.models.teacher import Teacher
from simclr_tf.runs.run_dir import RunDir

# Called with the model, and True at the last step; returns metrics and images uint8 [H, W, 3].
Evaluator = Callable[[Any, bool], Mapping[str, float | np.ndarray]]


def probe_evaluator(
    train: ImageSource, test: ImageSource, image_size: int, run: RunDir | None = None
) -> Evaluator:
    """Returns an evaluator of the accuracy of simple classifiers on frozen features.

    `knn_top1` is the k-NN of the evaluation protocol; `linear_probe_top1` is a ridge classifier on
    standardized features, in closed form and therefore fast. Both ignore images without a label.
    The results of the last step are cached in `run`, for the evaluation of the finished run.
    """
    num_classes = len(train.class_names or ())
    extract = None  # created at the first call: its graph serves all calls

    def evaluate(model: SimCLR, is_last: bool = False) -> dict[str, float]:
        nonlocal extract
        extract, knn_top1 = extract or FeatureExtractor(model.encoder, image_size), None
        if is_last and run is not None:
            trained, cache_dir = encoder_from_model(model, run.read_config()[0]), run.features_dir
            context = EvalContext("", "", "", image_size=image_size, cache_dir=cache_dir)
            encoders = {"": lambda: (trained.encoder, trained.fingerprint)}
            with contextlib.suppress(UserError):  # of splits that cannot be evaluated
                (result,) = run_protocols(encoders, train, test, [KNN()], context)
                knn_top1 = result.top1
            extract = FeatureExtractor(
                trained.encoder, image_size, cache_dir=cache_dir, fingerprint=trained.fingerprint
            )
        bank, queries = _labeled(extract(train), train), _labeled(extract(test), test)
        if knn_top1 is None:
            predictions = knn_predict(
                bank.features,
                bank.labels,
                queries.features,
                num_classes,
                k=default_k(bank.labels),
            )
            knn_top1 = float(np.mean(predictions[:, 0] == queries.labels))
        # Imported here: training starts without the seconds that it takes.
        from sklearn.linear_model import RidgeClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        ridge = make_pipeline(StandardScaler(), RidgeClassifier())
        # With few cores, the threads of BLAS and TensorFlow wait for each other.
        with threadpool_limits(1, "blas"):
            ridge.fit(bank.features, bank.labels)
        return {
            "knn_top1": knn_top1,
            "linear_probe_top1": float(ridge.score(queries.features, queries.labels)),
        }

    return evaluate


def _labeled(features: Features, source: ImageSource) -> Features:
    has_label = features.labels >= 0
    if not has_label.any():
        raise UserError(
            f"--knn_every_epochs: no image of {source.name} has a label. Fix: set "
            "--probe_dataset to a labeled dataset, or --knn_every_epochs=0"
        )
    return Features(features.features[has_label], features.labels[has_label])


def validation_loss_evaluator(source: ImageSource, batch_size: int) -> Evaluator:
    """Returns an evaluator of the loss and contrastive accuracy on validation images.

    The encoder runs in inference mode; the views are the same at every call.
    """
    # The loss depends on the batch size, so that all batches are full.
    batch_size = min(batch_size, source.num_examples)
    num_batches = source.num_examples // batch_size

    @tf.function
    def loss_and_accuracy(model, batch, index):
        views = model.make_views(batch, 0, offset=index * batch_size)
        _, _, logs = model.encode_and_contrast(views, False, batch.get("label"))
        return tf.stack([logs["loss"], logs["contrastive_accuracy"]])

    def evaluate(model: SimCLR, is_last: bool = False) -> dict[str, float]:
        batches = sequential_batches(source, batch_size).take(num_batches)
        with decode_errors_name_image(source):
            values = [
                loss_and_accuracy(model, batch, tf.constant(i)) for i, batch in enumerate(batches)
            ]
        loss, accuracy = np.mean(values, axis=0)
        return {"validation_loss": float(loss), "validation_contrastive_accuracy": float(accuracy)}

    return evaluate


def classifier_evaluator(
    source: ImageSource, image_size: int, teacher: Teacher | None = None
) -> Evaluator:
    """Returns an evaluator of a classifier's accuracy and agreement with its teacher, if any.

    The accuracy is that on labeled validation images, if their classes are the teacher's.
    """
    extract = teacher_labels = None

    def evaluate(model: Classifier, is_last: bool = False) -> dict[str, float]:
        nonlocal extract, teacher_labels
        extract = extract or FeatureExtractor(model, image_size)
        if teacher and teacher_labels is None:
            predict = FeatureExtractor(lambda x, training: teacher.logits(x), image_size)
            teacher_labels = predict(source).features.argmax(axis=1)
        logits = extract(source)
        predictions, metrics = logits.features.argmax(axis=1), {}
        if teacher:
            metrics["validation_agreement"] = float(np.mean(predictions == teacher_labels))
        if not teacher or source.class_names == teacher.class_names:
            is_correct = (predictions == logits.labels)[logits.labels >= 0]
            metrics["validation_accuracy"] = float(is_correct.mean())
        return metrics

    return evaluate


def make_view_grid(source: ImageSource, seed: int) -> Callable[[MultiViewModel], np.ndarray]:
    """Returns a function from a model to a float image [H, W, 3] in [0, 1] of its first views."""
    count = min(16, source.num_examples)

    def plot(model: MultiViewModel) -> np.ndarray:
        with decode_errors_name_image(source):
            (batch,) = train_batches(source, batch_size=count, seed=seed, start_step=0, num_steps=1)
        with eager_functions():
            groups = tf.nest.flatten(model.make_views(batch, 0))
        views = [view for group in groups for view in np.split(group.numpy(), len(group) // count)]
        side = max(view.shape[1] for view in views)
        views = [np.pad(v, ((0, 0), (0, side - v.shape[1]), (0, 0), (0, 0))) for v in views]
        tiles = np.concatenate(views, axis=2)  # [16, S, ΣS, 3]: an image's views side by side
        num_rows = min(max(4, 2 * model.views_per_image), count)
        rows = [np.concatenate(list(row), axis=1) for row in np.array_split(tiles, num_rows)]
        width = max(row.shape[1] for row in rows)
        return np.concatenate(
            [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
        )

    return plot
