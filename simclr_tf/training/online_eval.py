"""What is measured now and then during a run: probes of the encoder and the validation loss."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from simclr_tf.data import ImageSource, decode_errors_name_image, sequential_batches, train_batches
from simclr_tf.errors import UserError
from simclr_tf.evaluation import FeatureExtractor, Features, knn_predict
from simclr_tf.models import Classifier, SimCLR
from simclr_tf.models.multi_view import MultiViewModel

# Called with the model; gives figures, and pictures uint8 [H, W, 3].
Evaluator = Callable[[Any], Mapping[str, float | np.ndarray]]


def probe_evaluator(train: ImageSource, test: ImageSource, image_size: int) -> Evaluator:
    """Returns an evaluator: how well frozen features tell the classes apart.

    `knn_top1` is the k-NN of the evaluation protocol; `linear_probe_top1` a ridge classifier on
    standardised features, closed-form and so quick enough to run again and again. Images without
    a label are left out of both; the evaluator raises UserError where a split has no others.
    """
    classes = len(train.class_names or ())
    # Made at the first call: the extractor's graph serves all of them.
    extract = None

    def evaluate(model: SimCLR) -> dict[str, float]:
        nonlocal extract
        extract = extract or FeatureExtractor(model.encoder, image_size)
        learn, judge = _labelled(extract(train), train), _labelled(extract(test), test)
        k = min(200, learn.num_examples)
        near = knn_predict(learn.features, learn.labels, judge.features, classes, k=k)
        ridge = make_pipeline(StandardScaler(), RidgeClassifier())
        # On few cores BLAS's threads and TensorFlow's wait for one another.
        with threadpool_limits(1, "blas"):
            ridge.fit(learn.features, learn.labels)
        return {
            "knn_top1": float(np.mean(near[:, 0] == judge.labels)),
            "linear_probe_top1": float(ridge.score(judge.features, judge.labels)),
        }

    return evaluate


def _labelled(features: Features, source: ImageSource) -> Features:
    known = features.labels >= 0
    if not known.any():
        raise UserError(
            f"--knn_every_epochs: no image of {source.name} has a label to probe with; name a "
            "labelled --probe_dataset or set --knn_every_epochs=0"
        )
    return Features(features.features[known], features.labels[known])


def validation_loss_evaluator(source: ImageSource, batch_size: int) -> Evaluator:
    """Returns an evaluator: the loss and contrastive accuracy on images held out of training.

    The encoder runs in inference mode; the views are the same at every call. The loss depends on
    the batch, so batches are full ones, of the training batch or of all the held-out images.
    """
    batch_size = min(batch_size, source.num_examples)
    steps = source.num_examples // batch_size

    @tf.function
    def contrast(model, batch, step):
        offset = step * batch_size
        views = model.make_views(batch, 0, offset=offset)
        _, _, statistics = model.encode_and_contrast(views, False, batch.get("label"))
        return tf.stack([statistics["loss"], statistics["contrastive_accuracy"]])

    def evaluate(model: SimCLR) -> dict[str, float]:
        batches = sequential_batches(source, batch_size).take(steps)
        with decode_errors_name_image(source):
            figures = [contrast(model, batch, tf.constant(i)) for i, batch in enumerate(batches)]
        loss, accuracy = np.mean(figures, axis=0)
        return {"validation_loss": float(loss), "validation_contrastive_accuracy": float(accuracy)}

    return evaluate


def accuracy_evaluator(source: ImageSource, image_size: int) -> Evaluator:
    """Returns an evaluator: a classifier's accuracy on labelled images held out of training."""
    extract = None

    def evaluate(model: Classifier) -> dict[str, float]:
        nonlocal extract
        extract = extract or FeatureExtractor(model, image_size)
        logits = extract(source)
        known = logits.labels >= 0
        found = logits.features.argmax(axis=1) == logits.labels
        return {"validation_accuracy": float(found[known].mean())}

    return evaluate


def agreement_evaluator(
    source: ImageSource, image_size: int, teacher: Callable[[Any], Any]
) -> Evaluator:
    """Returns an evaluator: how often a classifier answers as the teacher does on such images."""

    def answer(images, training):
        del training
        return teacher(images)

    extract = taught = None

    def evaluate(model: Classifier) -> dict[str, float]:
        nonlocal extract, taught
        if extract is None:
            extract = FeatureExtractor(model, image_size)
            taught = FeatureExtractor(answer, image_size)(source).features.argmax(axis=1)
        found = extract(source).features.argmax(axis=1)
        return {"validation_agreement": float(np.mean(found == taught))}

    return evaluate


def make_view_grid(source: ImageSource, seed: int) -> Callable[[MultiViewModel], np.ndarray]:
    """Returns a picture maker: the views of the run's first images, those of one side by side."""
    count = min(16, source.num_examples)

    def picture(model: MultiViewModel) -> np.ndarray:
        with decode_errors_name_image(source):
            (batch,) = train_batches(source, batch_size=count, seed=seed, start_step=0, num_steps=1)
        views = np.split(model.make_views(batch, 0).numpy(), model.views_per_image)
        tiles = np.concatenate(views, axis=2)  # [16, S, V·S, 3]
        rows = [np.concatenate(list(row), axis=1) for row in np.array_split(tiles, min(4, count))]
        width = max(row.shape[1] for row in rows)
        return np.concatenate(
            [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
        )

    return picture
