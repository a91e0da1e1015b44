"""Base class of the training tasks."""

import logging
from typing import Any

import numpy as np
import tf_keras as keras

from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.data import ArraySource, ImageSource, load_into_memory, open_source
from simclr_tf.data.folder import FolderSource
from simclr_tf.data.image_list import match_images
from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import hash_weights
from simclr_tf.models.build import build_model, resolve_encoder
from simclr_tf.models.custom_encoder import copy_encoder_weights
from simclr_tf.models.keras_cv_backbones import load_preset_weights
from simclr_tf.models.multi_view import MultiViewModel
from simclr_tf.runs.load import load_model
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.callbacks import ScheduledEvaluator
from simclr_tf.training.online_eval import Evaluator
from simclr_tf.training.schedule import steps_between
from simclr_tf.utils.files import write_csv

logger = logging.getLogger(__name__)


class TrainingTask:
    """Base class of what differs between training tasks.

    `loop.fit` calls the methods in the order of their definition. `config` is resolved; `fit` and
    `open_data` complete it.
    """

    folder: FolderSource | None  # all images of the training split, set by open_data
    train: ImageSource  # set by open_data
    held_out: ImageSource | None  # for validation

    def __init__(self, config: PretrainConfig, encoder: keras.Model | None = None):
        if encoder is not None:  # before the options of the ResNet are resolved
            name = getattr(encoder, "name", type(encoder).__name__)
            config = config.override({"encoder": {"encoder": f"keras:{name}"}})
        self.config: Any = config.resolve()
        self._encoder = encoder

    def resolve_encoder(self, run: RunDir | None) -> None:
        """Completes the config with the description of a pretrained or given encoder."""
        resumed = run.read_config()[0].encoder if run else None
        self.config = resolve_encoder(self.config, resumed, self._encoder)

    def open_data(self, run: RunDir | None = None) -> None:
        """Opens the training and validation images, those of a run if it is resumed.

        Raises:
            UserError: the task cannot use them.
        """
        self.folder, self.train, self.held_out = open_training_data(self.config, run)

    def complete_plan(self, plan: TrainingPlan) -> TrainingPlan:
        """Returns the plan with what the training images alone do not determine."""
        return plan

    def evaluators(self, plan: TrainingPlan, run: RunDir) -> list[ScheduledEvaluator]:
        """Returns the evaluations during training, which may cache results in the run."""
        if self.held_out is None:
            return []
        steps = steps_between(self.config, plan, self.config.monitoring.eval_every_epochs)
        return [ScheduledEvaluator(steps, self._validation_evaluator(self.held_out))]

    def _validation_evaluator(self, held_out: ImageSource) -> Evaluator:
        raise NotImplementedError

    def build_model(self, plan: TrainingPlan, steps_per_execution: int) -> MultiViewModel:
        """Builds the compiled model in the current scope of a strategy."""
        return build_model(self.config, plan, steps_per_execution)

    def load_initial_weights(self, model: MultiViewModel) -> None:
        """Loads the weights that a new run starts from, if they are not random."""
        checkpoint, encoder = self.config.checkpoints.checkpoint, self.config.encoder
        if checkpoint:
            self._copy_weights(load_model(checkpoint), model)
            logger.info(f"starting from the weights of {checkpoint}")
        elif self._encoder is not None:
            copy_encoder_weights(self._encoder, model.encoder)
            logger.info(f"starting from the weights of the {encoder.describe()}")
        elif encoder.preset and encoder.preset_weights:
            loaded = load_preset_weights(model.encoder, encoder.preset)
            source = "its weights" if loaded else "random weights, because it has none"
            logger.info(f"starting {encoder.encoder} from {source}")

    def _copy_weights(self, source: Any, model: Any) -> None:
        """Copies the weights that a new run takes from the model of `--checkpoint`."""
        self._copy_part("encoder", source.encoder, model.encoder)

    def _copy_part(self, name: str, source: keras.Model | None, target: keras.Model) -> None:
        shapes = [[tuple(v.shape) for v in m.variables] if m else None for m in (source, target)]
        if source is None or shapes[0] != shapes[1]:
            raise UserError(
                f"--checkpoint={self.config.checkpoints.checkpoint}: its {name.replace('_', ' ')} "
                "has other shapes. Fix: use the architecture flags in its config.json"
            )
        target.set_weights(source.get_weights())

    def encoder_checksum(self) -> int:
        """Returns a checksum of the weights of the encoder from Python; 0 without one."""
        return int(hash_weights(self._encoder.variables)[:12], 16) if self._encoder else 0

    def write_extra_files(self, run: RunDir) -> None:
        """Writes files besides config.json to the run directory."""


def open_training_data(
    config: PretrainConfig, run: RunDir | None = None
) -> tuple[FolderSource | None, ImageSource, ImageSource | None]:
    """Opens the images of a resolved config, in the order of a run that is resumed.

    Returns:
        All of them, if they are a folder's; those for training, and those for validation, if any.
    """
    data = config.data
    source = open_source(data.dataset, data.train_split, **data.reading)
    folder = source if isinstance(source, FolderSource) else None
    if folder is not None and run is not None and run.image_list_file.exists():
        before = run.read_config()[0].data
        # Other selections are differences of settings, which `check_resumable` names.
        if (before.train_split, before.duplicates) == (data.train_split, data.duplicates):
            source = match_images(run.image_list_file, folder, may_lack=data.skip_unreadable)
            if before.dataset != data.dataset:
                logger.warning(
                    f"note: --dataset was {before.dataset}, now its images are in {data.dataset}"
                )
    if data.cache_dataset and not isinstance(source, ArraySource):
        source = load_into_memory(source)
    if not data.validation_fraction:
        return folder, source, None
    return folder, *source.holdout(data.validation_fraction, config.optimization.seed)


def write_labeled_list(run: RunDir, source: ImageSource, labeled: np.ndarray) -> None:
    """Writes ID and class of the images at these indices."""
    names = source.class_names or ()
    classes = [names[label] for label in source.labels()[labeled]]
    rows = zip(source.image_ids(labeled), classes, strict=True)
    write_csv(run.labeled_images_file, [("id", "class"), *rows])
