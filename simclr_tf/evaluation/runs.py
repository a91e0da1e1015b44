"""Evaluation of a run directory or of an exported encoder."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.build import build_encoder
from simclr_tf.config import Data
from simclr_tf.data import Source, open_source
from simclr_tf.errors import UserError
from simclr_tf.evaluation.evaluate import check_splits, evaluate
from simclr_tf.evaluation.features import Encoder
from simclr_tf.evaluation.protocols import EvaluationProtocol
from simclr_tf.evaluation.results import append_evaluations, format_table
from simclr_tf.run import Run, load


@dataclasses.dataclass(frozen=True)
class Splits:
    """The labelled data of an evaluation: what is learnt from, and what is judged on."""

    dataset: str
    train_split: str
    test_split: str
    data_dir: str = ""
    storage_size: int | None = None
    skip_unreadable: bool = False

    @classmethod
    def of(cls, data: Data) -> "Splits":
        """Those that a run's data settings name."""
        return cls(
            data.dataset,
            data.train_split,
            data.eval_split,
            data.data_dir,
            data.storage_size,
            data.skip_unreadable,
        )

    def open(self) -> tuple[Source, Source]:
        """Opens both splits.

        Raises:
            UserError: if one is not to be had.
        """
        train, test = (
            open_source(
                self.dataset,
                split,
                data_dir=self.data_dir or None,
                storage_size=self.storage_size,
                skip_unreadable=self.skip_unreadable,
            )
            for split in (self.train_split, self.test_split)
        )
        return train, test


def check_evaluation(data: Data, protocols: Sequence[EvaluationProtocol]) -> None:
    """Checks what `evaluate_run` will need, before the run that it is to follow.

    Raises:
        UserError: if the splits that `data` names cannot be evaluated on.
    """
    splits = Splits.of(data)
    train, test = splits.open()
    check_splits(train, test, protocols, splits.dataset, splits.train_split, splits.test_split)


def evaluate_run(
    model_dir: str | Path,
    protocols: Sequence[EvaluationProtocol],
    *,
    baselines: Sequence[str] = (),
    dataset: str = "",
    train_split: str = "",
    test_split: str = "",
    data_dir: str = "",
    skip_unreadable: bool = False,
    batch_size: int = 256,
    say: Callable = print,
) -> None:
    """Evaluates a run's newest checkpoint; what is left empty is taken from the run.

    Every figure goes into the run's evaluations.json as soon as it is known.

    Raises:
        UserError: if the run, the data or the settings do not allow it.
    """
    run = Run(Path(model_dir))
    config, _ = run.read()
    own = Splits.of(config.data)
    splits = dataclasses.replace(
        own,
        dataset=dataset or own.dataset,
        train_split=train_split or own.train_split,
        test_split=test_split or own.test_split,
        data_dir=data_dir or own.data_dir,
        skip_unreadable=skip_unreadable or own.skip_unreadable,
    )
    opened = splits.open()
    model = load(model_dir)
    untrained = None
    if "random" in baselines:
        keras.utils.set_random_seed(config.optimization.seed)  # the run's own first weights
        untrained = build_encoder(config.encoder)
    _evaluate(
        model.encoder,
        opened,
        splits,
        run.evaluations_file,
        protocols,
        say,
        image_size=config.views.image_size,
        step=int(model.step),
        baselines=baselines,
        random_encoder=untrained,
        batch_size=batch_size,
    )


def evaluate_saved_model(
    encoder: str | Path,
    output: str | Path,
    splits: Splits,
    protocols: Sequence[EvaluationProtocol],
    *,
    baselines: Sequence[str] = (),
    batch_size: int = 256,
    say: Callable = print,
) -> None:
    """Evaluates an exported encoder; the figures go into `output`/evaluations.json.

    Raises:
        UserError: if it is no SavedModel of an image encoder, or the data do not allow it.
    """
    try:
        loaded = tf.saved_model.load(str(encoder))
        shape = loaded.signatures["serving_default"].structured_input_signature[1]["images"].shape
    except (OSError, KeyError, AttributeError) as error:
        raise UserError(
            f"--encoder={encoder}: not a SavedModel of an encoder ({str(error).splitlines()[0]}); "
            "name a directory that simclr-tf export wrote"
        ) from None
    splits = dataclasses.replace(splits, storage_size=round(1.5 * shape[1]))
    _evaluate(
        loaded,
        splits.open(),
        splits,
        Path(output) / "evaluations.json",
        protocols,
        say,
        image_size=shape[1],
        step=0,
        baselines=baselines,
        batch_size=batch_size,
    )


def _evaluate(
    encoder: Encoder,
    opened: tuple[Source, Source],
    splits: Splits,
    file: Path,
    protocols: Sequence[EvaluationProtocol],
    say: Callable,
    **settings: Any,
) -> None:
    train, test = opened
    say(f"evaluating on {train.num_examples} + {test.num_examples} images of {splits.dataset}")
    records = []
    for evaluation in evaluate(
        encoder,
        train,
        test,
        protocols,
        dataset=splits.dataset,
        train_split=splits.train_split,
        test_split=splits.test_split,
        **settings,
    ):
        if evaluation.notice:
            say(f"note: {evaluation.notice}")
        say(f"{evaluation.protocol}: top-1 {evaluation.top1:.4f} ({evaluation.seconds:.1f} s)")
        records.append(evaluation.record())
        append_evaluations(file, records[-1:])
    say(f"\n{format_table(records)}\n\nwritten to {file}")
