"""One run of a study: training, evaluation and results.

TensorFlow is imported where it is used: a worker process must have its cores and GPU before.
"""

import dataclasses
import gc
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simclr_tf.config import FinetuneConfig, PretrainConfig, TrainingPlan
from simclr_tf.runs.metrics_log import read_metrics
from simclr_tf.runs.results_file import append_evaluations, read_evaluations, with_defaults
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.study.grid import Cell, cell_config
from simclr_tf.utils.files import directory_lock

if TYPE_CHECKING:
    from simclr_tf.evaluation.protocol_runner import EncoderFactory
    from simclr_tf.training.distribution import DistributionContext

logger = logging.getLogger(__name__)

SUPERVISED_HEAD = "finetune/supervised"
_TRAINING_METRICS = ("contrastive_accuracy", "contrastive_entropy")  # in metrics.jsonl


@dataclasses.dataclass(frozen=True)
class Trial:
    """A run of a cell with one seed.

    >>> from pathlib import Path
    >>> from simclr_tf.config import PretrainConfig
    >>> from simclr_tf.option_groups import Data
    >>> from simclr_tf.study.grid import Cell
    >>> from simclr_tf.study.trial import Trial
    >>> cell, config = Cell(("adam",), {"optimizer": "adam"}), PretrainConfig(Data("shapes"))
    >>> Trial(cell, seed=0, config=config, path=Path("runs/study/adam-0")).name
    'adam-0'

    Attributes:
        cell: of the study's grid.
        seed: of the run.
        config: of the training.
        path: run directory.
    """

    cell: Cell
    seed: int
    config: PretrainConfig
    path: Path

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.path.name

    @property
    def run_dir(self) -> RunDir:
        return RunDir(self.path)

    @property
    def log_file(self) -> Path:
        """Output of the run."""
        return self.path / "log.txt"

    @property
    def cost(self) -> float:
        """Number of training images, up to a factor that all trials of a study share."""
        settings = self.config.optimization
        return settings.train_steps * settings.train_batch_size or settings.train_epochs


def make_trials(
    cells: Sequence[Cell], base: PretrainConfig, seeds: Sequence[int], runs_dir: Path
) -> list[Trial]:
    """Returns the trials, seed by seed, so that an interrupted study has complete grids."""
    return [
        Trial(cell, seed, cell_config(cell, base, seed), runs_dir / f"{cell.name}-{seed}")
        for seed in seeds
        for cell in cells
    ]


@dataclasses.dataclass(frozen=True)
class TrialEvaluation:
    """Evaluation that all trials of a study have in common."""

    columns: tuple[str, ...]  # in addition to knn and knn/random, named as in evaluations.json
    knn_k: int | None  # None until the data are known
    batch_size: int
    features_dir: Path  # cache for the features of untrained encoders, which many trials share

    @property
    def protocols(self) -> list[Any]:
        """k-NN, and logistic regression if a column needs it."""
        from simclr_tf.evaluation import KNN, Logistic

        has_logistic = any(column.partition("/")[0] == "logistic" for column in self.columns)
        knn = KNN((self.knn_k,)) if self.knn_k else KNN()
        return [knn, *([Logistic()] if has_logistic else [])]

    def expected_results(self, config: PretrainConfig) -> list[str]:
        """Returns the names of the results of a finished trial."""
        columns = ["knn", *self.columns, *(f"{p.name}/random" for p in self.protocols)]
        if not isinstance(config, FinetuneConfig):
            return columns
        of_classifier = (
            c for c in columns if c not in _TRAINING_METRICS and not c.endswith("/projection")
        )
        return [*of_classifier, SUPERVISED_HEAD]

    def evaluate(self, run: RunDir, trained: Any) -> None:
        """Evaluates the `FrozenEncoder` of a run and writes its evaluations.json."""
        from simclr_tf.evaluation import run_protocols
        from simclr_tf.evaluation.evaluate import evaluate_classifier
        from simclr_tf.evaluation.load_encoder import untrained_encoder
        from simclr_tf.evaluation.splits import Splits

        config, _ = run.read_config()
        splits = Splits.from_config(config.data)
        train, test = splits.open()
        encoders: dict[str, EncoderFactory] = {"": lambda: (trained.encoder, trained.fingerprint)}
        evaluates_head = any(column.endswith("/projection") for column in self.columns)
        if evaluates_head and trained.outputs_fn is not None:
            outputs_fn = trained.outputs_fn
            fingerprint = trained.fingerprint + trained.head_fingerprint
            head = lambda images, training: outputs_fn(images)["projection"]  # noqa: E731
            encoders["projection"] = lambda: (head, fingerprint)
        untrained: dict[str, EncoderFactory] = {"random": lambda: untrained_encoder(config)}
        for factories, cache_dir in ((encoders, None), (untrained, self.features_dir)):
            context = splits.context(
                image_size=trained.image_size,
                step=trained.step,
                batch_size=self.batch_size,
                cache_dir=cache_dir,
            )
            for result in run_protocols(factories, train, test, self.protocols, context):
                append_evaluations(run.evaluations_file, [result.record()])
                logger.info(f"{result.protocol}: {result.value:.4f} ({result.seconds:.1f} s)")
        if isinstance(config, FinetuneConfig):
            evaluate_classifier(run.path, batch_size=self.batch_size)

    def read_results(self, trial: Trial) -> dict[str, float] | None:
        """Returns accuracies in [0, 1] and others by name; None if the trial is not finished."""
        run = trial.run_dir
        if not run.config_file.exists():
            return None
        _, plan = run.read_config()
        if run.latest_step() < plan.total_steps:
            return None
        results = _read_evaluations(run, trial.config, plan, f"k={self.knn_k}, ")
        for row in read_metrics(run.metrics_file)[-1:]:
            results |= {name: row[name] for name in _TRAINING_METRICS if name in row}
        expected = self.expected_results(trial.config)
        if not set(expected) <= set(results):
            return None
        return {name: results[name] for name in expected}


def _read_evaluations(
    run: RunDir, config: PretrainConfig, plan: TrainingPlan, knn_setting: str
) -> dict[str, float]:
    """Returns the newest results of the last step on the run's own splits."""
    data = config.data
    expected = (data.dataset, data.train_split, data.eval_split, plan.total_steps)
    results = {}
    for record in map(with_defaults, read_evaluations(run.evaluations_file)):
        actual = tuple(record[key] for key in ("dataset", "train_split", "test_split", "step"))
        is_knn = record["protocol"].partition("/")[0] == "knn"
        if actual == expected and record["setting"].startswith(knn_setting if is_knn else ""):
            results[record["protocol"]] = record["value"]
    return results


def train_and_evaluate(
    trial: Trial, evaluation: TrialEvaluation, distribution: "DistributionContext"
) -> None:
    """Trains a trial, or resumes its training, and evaluates it."""
    import tf_keras as keras

    from simclr_tf.evaluation.load_encoder import encoder_from_model, encoder_from_run
    from simclr_tf.training.tasks import finetune, pretrain

    keras.backend.clear_session()  # what the process's previous trial has left
    gc.collect()
    run = trial.run_dir
    note = "waiting for another process that uses this run"
    # A process that has lost its study may still be saving a checkpoint. (The run's own directory
    # is locked when evaluations.json is written.)
    with directory_lock(run.checkpoint_dir, lambda: logger.info(note)):
        config: Any = trial.config
        train: Any = finetune if isinstance(config, FinetuneConfig) else pretrain
        model = train(config, trial.path, distribution)
        if distribution.num_replicas > 1:
            trained = encoder_from_run(trial.path)
        else:
            trained = encoder_from_model(model, run.read_config()[0])
        evaluation.evaluate(run, trained)
