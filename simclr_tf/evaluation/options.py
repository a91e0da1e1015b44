"""What is asked of an evaluation: on which data, by which protocols."""

import dataclasses
from collections.abc import Sequence

from simclr_tf.data import ImageSource
from simclr_tf.data.label_subset import sample_labeled
from simclr_tf.evaluation.protocols import EvaluationProtocol
from simclr_tf.evaluation.splits import Splits
from simclr_tf.evaluation.transfer_datasets import lookup_transfer_dataset


@dataclasses.dataclass(frozen=True)
class EvalOptions:
    """What is to be measured, whatever the encoder.

    Attributes:
        protocols: such as KNN() and Logistic().
        baselines: any of BASELINES.
        transformations: any of TRANSFORMATIONS: told from the encoder's and the head's outputs.
        datasets: labelled datasets; empty: the run's own.
        train_split, test_split, metric: for all of them; "": the run's for its own dataset, else
            those that `lookup_transfer_dataset` knows.
        data_dir: where TFDS datasets are prepared; "": the run's.
        skip_unreadable: leave out files that are not images.
        label_fraction, labels_per_class: how many of the labels are learnt from, class by class.
        save_classifier: keep the one fitted head, of the one protocol and dataset that has it.
        batch_size: images per call of an encoder.
        seed: of the choice of labels and of the protocols' own draws.
    """

    protocols: Sequence[EvaluationProtocol] = ()
    baselines: Sequence[str] = ()
    transformations: Sequence[str] = ()
    datasets: Sequence[str] = ()
    train_split: str = ""
    test_split: str = ""
    metric: str = ""
    data_dir: str = ""
    skip_unreadable: bool = False
    label_fraction: float = 1.0
    labels_per_class: int = 0
    save_classifier: bool = False
    batch_size: int = 256
    seed: int = 0

    def splits(self, dataset: str, own: Splits) -> Splits:
        """Returns the splits of a dataset: what was asked for, the run's, or the usual ones."""
        usual = own if dataset == own.dataset else None
        known = lookup_transfer_dataset(dataset)
        return dataclasses.replace(
            own,
            dataset=dataset,
            train_split=self.train_split or (usual or known).train_split or "train",
            test_split=self.test_split or (usual or known).test_split or "test",
            metric=self.metric or known.metric,
            data_dir=self.data_dir or own.data_dir,
            skip_unreadable=self.skip_unreadable or own.skip_unreadable,
        )

    def open(self, splits: Splits) -> tuple[ImageSource, ImageSource]:
        """Opens both splits, train's down to the labels that may be learnt from."""
        train, test = splits.open()
        if train.class_names and (self.label_fraction < 1 or self.labels_per_class):
            positions = sample_labeled(
                train.labels(),
                train.class_names,
                fraction=self.label_fraction,
                per_class=self.labels_per_class,
                seed=self.seed,
            )
            train = train.subset(positions)
        return train, test
