"""Training with labels: fine-tuning of an encoder, and the supervised baseline from nothing."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tf_keras as keras

from simclr_tf.config import FinetuneConfig, PretrainConfig, TrainingPlan
from simclr_tf.data import ImageSource
from simclr_tf.data.label_subset import sample_labeled
from simclr_tf.errors import UserError
from simclr_tf.evaluation.splits import Splits
from simclr_tf.models import Classifier
from simclr_tf.models.classifier import first_layers
from simclr_tf.runs.load import load_model
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.callbacks import Every
from simclr_tf.training.distribution import Replicas
from simclr_tf.training.loop import Prepared, Say, train
from simclr_tf.training.online_eval import accuracy
from simclr_tf.training.pretrain import copy_weights, open_train
from simclr_tf.training.schedule import epochs_in_steps
from simclr_tf.utils.files import write_csv


def finetune(
    config: FinetuneConfig,
    model_dir: str | Path,
    replicas: Replicas | None = None,
    steps_per_execution: int = 1,
    say: Callable[[str], None] = print,
    fit_batch: bool = False,
) -> Classifier:
    """Trains a classifier to its end, or from where it was left.

    The labelled images that it may use are chosen class by class from the seed, and listed in the
    run's `labelled.csv`; a larger share of the same seed holds the smaller one.

    Arguments, result and errors are those of `pretrain`; the weights that it starts from are those
    of the run that `config.checkpoints.checkpoint` names. With `fit_batch`, where there are fewer
    labelled images than `train_batch_size`, all of them are the batch.
    """
    fit_to = (replicas.count if replicas else 1) if fit_batch else 0
    prepare = functools.partial(_prepare, fit_to=fit_to)
    return train(config, model_dir, replicas, steps_per_execution, say, prepare)


def supervised_config(config: PretrainConfig, plan: TrainingPlan, splits: Splits) -> FinetuneConfig:
    """Returns the supervised baseline of a pretraining run, trained and judged on these splits.

    It learns in as many steps as the run did.
    """
    data = {
        "train_split": splits.train_split,
        "eval_split": splits.test_split,
        "data_dir": splits.data_dir,
        "validation_fraction": 0.0,  # it learns from all labels, as the protocols do
    }
    steps = {"train_steps": plan.total_steps}
    return config.override({"data": data, "optimization": steps}).to_supervised_baseline()


def train_supervised(run: RunDir, splits: Splits) -> Path:
    """Trains the supervised baseline of a run in RUN/supervised/SPLIT, or goes on with it.

    Returns:
        The baseline's run directory.

    Raises:
        UserError: the run's images have no labels, or as `finetune`.
    """
    config, plan = run.read_config()
    place = run.supervised_dir(splits.train_split)
    finetune(supervised_config(config, plan, splits), place)
    return place


def with_fitting_batch(
    config: FinetuneConfig, count: int, replicas: int, say: Say
) -> FinetuneConfig:
    """Returns the config with a batch of no more than so many images, a multiple of the replicas.

    It stays as it is where there are too few for a batch.
    """
    settings, most = config.optimization, count // replicas * replicas
    if not 2 <= most < settings.train_batch_size:
        return config
    say(
        f"note: --train_batch_size is {most}, not {settings.train_batch_size}, because there are "
        f"{count} labelled images"
    )
    return config.override({"optimization": {"train_batch_size": most}})


def _prepare(config: PretrainConfig, say: Say, fit_to: int) -> Prepared:
    """Opens the data; `fit_to` replicas share a batch that may shrink, 0: it must not."""
    assert isinstance(config, FinetuneConfig)
    everything, held_out = open_train(config)
    if not everything.class_names or everything.multi_label:
        raise UserError(
            f"--dataset={config.data.dataset}: split {config.data.train_split!r} has no labels of "
            "one class per image, and fine-tuning needs them; name a labelled dataset (for "
            "folder:PATH, one subfolder per class)"
        )
    settings, names = config.finetuning, everything.class_names
    labels = everything.labels()
    chosen = sample_labeled(
        labels,
        names,
        fraction=settings.label_fraction,
        per_class=settings.labels_per_class,
        seed=config.optimization.seed,
    )
    if len(np.unique(labels[chosen])) < 2:
        raise UserError(
            f"--train_split={config.data.train_split} has labels of one class only: any answer "
            "would be right; take a split with two classes or more"
        )
    source = everything if len(chosen) == len(labels) else everything.subset(chosen)
    if len(chosen) < len(labels):
        say(f"using {len(chosen)} of {len(labels)} labels; they are listed in labelled.csv")
    if fit_to:
        config = with_fitting_batch(config, len(chosen), fit_to, say)

    def evaluators(plan: TrainingPlan) -> list[Every]:
        if held_out is None:
            return []
        every = epochs_in_steps(config, plan, config.monitoring.eval_every_epochs)
        return [Every(every, accuracy(held_out, config.augmentation.image_size))]

    return Prepared(
        config,
        source,
        evaluators=evaluators,
        fill=lambda model: _fill(model, config),
        note=lambda run: list_labelled(run, everything, chosen),
    )


def list_labelled(run: RunDir, source: ImageSource, chosen: np.ndarray) -> None:
    """Writes which images' labels are used, those at these places of the source."""
    names = source.class_names or ()
    classes = [names[label] for label in source.labels()[chosen]]
    rows = zip(source.image_ids(chosen), classes, strict=True)
    write_csv(run.labeled_images_file, [("id", "class"), *rows])


def _fill(model: keras.Model, config: FinetuneConfig) -> None:
    checkpoint, layers = config.checkpoints.checkpoint, config.finetuning.ft_proj_selector
    other = load_model(checkpoint)
    copy_weights(checkpoint, "encoder", other.encoder, model.encoder)
    if layers:
        head = getattr(other, "projection_head", None)
        layers_of_other = None if head is None else first_layers(head, layers)
        copy_weights(checkpoint, "projection_head", layers_of_other, model.projection)
