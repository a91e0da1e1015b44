"""One run of a study: what is trained, how it is judged, and what came of it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from simclr_tf.config import FinetuneConfig, PretrainConfig, TrainingPlan
from simclr_tf.evaluation import (
    KNN,
    Logistic,
    Representation,
    append_evaluations,
    evaluate,
    read_evaluations,
)
from simclr_tf.evaluation.evaluate import evaluate_classifier
from simclr_tf.evaluation.load_encoder import FrozenEncoder, untrained_encoder
from simclr_tf.evaluation.splits import Splits
from simclr_tf.runs.metrics_log import read_metrics
from simclr_tf.runs.results_file import with_defaults
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.study.grid import Cell, configured

OWN_HEAD = "finetune/supervised"
_OF_TRAINING = ("contrastive_accuracy", "contrastive_entropy")  # in metrics.jsonl


@dataclasses.dataclass(frozen=True)
class Trial:
    """A cell's run with one seed.

    Attributes:
        cell: of the study's grid.
        seed: of this run of it.
        config: what is trained.
        path: the run directory.
    """

    cell: Cell
    seed: int
    config: PretrainConfig
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def log_file(self) -> Path:
        """Where its lines are."""
        return self.path / "log.txt"

    @property
    def images(self) -> float:
        """How many images it learns from, up to a factor that is the same for a study's trials."""
        settings = self.config.optimization
        return settings.train_steps * settings.train_batch_size or settings.train_epochs


def trials_of(
    cells: Sequence[Cell], base: PretrainConfig, seeds: Sequence[int], runs: Path
) -> list[Trial]:
    """Returns the trials, seed by seed, so that a study that is cut short has whole grids.

    Raises:
        UserError: a cell's settings do not go with the base.
    """
    return [
        Trial(cell, seed, configured(cell, base, seed), runs / f"{cell.name}-{seed}")
        for seed in seeds
        for cell in cells
    ]


@dataclasses.dataclass(frozen=True)
class Judging:
    """How all trials of a study are judged.

    Attributes:
        columns: what is reported beside `knn` and `knn/random`, by names as in evaluations.json.
        knn_k: neighbours that vote.
        batch_size: images per call of an encoder.
        features_dir: where the features of untrained encoders are kept: many trials share one.
    """

    columns: tuple[str, ...]
    knn_k: int
    batch_size: int
    features_dir: Path

    @property
    def protocols(self) -> list[KNN | Logistic]:
        logistic = any(column.partition("/")[0] == "logistic" for column in self.columns)
        return [KNN((self.knn_k,)), *([Logistic()] if logistic else [])]

    @property
    def of_head(self) -> bool:
        """Whether g(h) is judged, too."""
        return any(column.endswith("/projection") for column in self.columns)

    def expected(self, config: PretrainConfig) -> list[str]:
        """Returns the figures that a finished trial has."""
        columns = ["knn", *self.columns, *(f"{p.name}/random" for p in self.protocols)]
        if not isinstance(config, FinetuneConfig):
            return columns
        without = [c for c in columns if c not in _OF_TRAINING and not c.endswith("/projection")]
        return [*without, OWN_HEAD]

    def judge(self, run: RunDir, trained: FrozenEncoder) -> None:
        """Judges the encoder of a run; the figures go into its evaluations.json.

        Raises:
            UserError: images or features turn out unusable.
        """
        config, _ = run.read_config()
        splits = Splits.from_config(config.data)
        train, test = splits.open()
        own = [Representation("", lambda: (trained.encoder, trained.fingerprint))]
        if self.of_head and trained.outputs_fn is not None:
            represent, identity = trained.outputs_fn, trained.fingerprint + trained.head_fingerprint
            of_head = lambda images, training: represent(images)["projection"]  # noqa: E731
            own.append(Representation("projection", lambda: (of_head, identity)))
        untrained = [Representation("random", lambda: untrained_encoder(config))]
        for representations, kept in ((own, None), (untrained, self.features_dir)):
            setting = splits.setting(
                image_size=trained.image_size,
                step=trained.step,
                batch_size=self.batch_size,
                cache_dir=kept,
            )
            for found in evaluate(representations, train, test, self.protocols, setting):
                append_evaluations(run.evaluations_file, [found.record()])
                print(f"{found.protocol}: {found.value:.4f} ({found.seconds:.1f} s)")
        if isinstance(config, FinetuneConfig):
            evaluate_classifier(run.path, batch_size=self.batch_size)

    def figures(self, trial: Trial) -> dict[str, float] | None:
        """Returns what came of a trial, by names; None unless it is finished: trained and judged.

        Accuracies are fractions in [0, 1].

        Raises:
            UserError: its directory is damaged.
        """
        run = RunDir(trial.path)
        if not run.config_file.exists():
            return None
        _, plan = run.read_config()
        if run.latest_step() < plan.total_steps:
            return None
        found = _evaluated(run, trial.config, plan, f"k={self.knn_k}, ")
        found |= _last_metrics(run)
        expected = self.expected(trial.config)
        if not set(expected) <= set(found):
            return None
        return {name: found[name] for name in expected}


def _evaluated(
    run: RunDir, config: PretrainConfig, plan: TrainingPlan, knn: str
) -> dict[str, float]:
    """The newest figures of the last step on the run's own splits."""
    data = config.data
    about = (data.dataset, data.train_split, data.eval_split, plan.total_steps)
    found = {}
    for record in map(with_defaults, read_evaluations(run.evaluations_file)):
        of = tuple(record[key] for key in ("dataset", "train_split", "test_split", "step"))
        is_knn = record["protocol"].partition("/")[0] == "knn"
        if of == about and record["setting"].startswith(knn if is_knn else ""):
            found[record["protocol"]] = record["value"]
    return found


def _last_metrics(run: RunDir) -> dict[str, float]:
    """Means over the run's last row of metrics."""
    last = read_metrics(run.metrics_file)[-1:]
    return {name: row[name] for row in last for name in _OF_TRAINING if name in row}
