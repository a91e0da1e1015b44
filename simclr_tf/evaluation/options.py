"""Options of an evaluation; this module does not import TensorFlow."""

import dataclasses
import functools

from simclr_tf.errors import UserError
from simclr_tf.options import (
    OptionGroup,
    absolute_dataset,
    option,
    parse_choices,
    parse_floats,
    parse_ints,
    split_commas,
)
from simclr_tf.utils.paths import split_paths

PROTOCOLS = ("knn", "logistic", "linear", "probes")
CLASSIFIER_PROTOCOLS = ("logistic", "linear")
BASELINES = ("pca", "random", "supervised")
METRICS = ("top-1", "mean per class", "11-point mAP")
TRANSFORMATIONS = ("color", "rotation", "noise", "sobel")

_data, _protocol, _output = (
    functools.partial(option, heading=heading) for heading in ("Data", "Protocols", "Output")
)


@dataclasses.dataclass(frozen=True)
class EvalSource(OptionGroup):
    """Input"""

    model_dir: str = option(
        "",
        "Run directory, or several, comma-separated (an existing name may have commas).",
        is_path=True,
    )
    encoder: str = option(
        "",
        "Exported SavedModel to evaluate instead of a run; requires output and dataset.",
        is_path=True,
    )
    output: str = _output("", "Directory for the results of an exported encoder.", is_path=True)
    table: bool = _output(
        False, "Print a Markdown table of all results of the runs; protocols may then be empty."
    )

    @property
    def model_dirs(self) -> list[str]:
        """Run directories."""
        return split_paths(self.model_dir)

    def check(self, options: "EvalOptions") -> None:
        """Raises UserError if these options contradict each other or `options`."""
        if bool(self.model_dir) == bool(self.encoder):
            got = "both" if self.encoder else "neither"
            raise UserError(f"expected either --model_dir=RUN or --encoder=SAVEDMODEL, got {got}")
        if self.model_dir and not self.model_dirs:
            raise UserError(
                f"--model_dir={self.model_dir}: expected the path of a run, got {self.model_dir!r}"
            )
        if self.encoder and not (self.output and options.dataset_names):
            raise UserError(
                f"--encoder={self.encoder}: expected --output=DIR and --dataset with it. Fix: set "
                "both"
            )
        if self.encoder and options.save_classifier:
            raise UserError("--save_classifier: expected --model_dir, got --encoder")
        if not options.protocol_names and (self.encoder or not self.table):
            raise UserError(f"--protocols: expected any of {', '.join(PROTOCOLS)}, got none")


@dataclasses.dataclass(frozen=True)
class EvalOptions(OptionGroup):
    """Evaluation

    Lists are comma-separated strings; Python callers may pass sequences.

    >>> from simclr_tf.evaluation.options import EvalOptions
    >>> EvalOptions(protocols=["knn"], knn_k=[20, 200]).k_values
    (20, 200)
    """

    dataset: str = _data("", "Labeled dataset. Default: the run's dataset.", is_path=True)
    datasets: str = _data(
        "",
        "Comma-separated datasets for transfer, each with its standard splits and metric.",
        is_path=True,
    )
    train_split: str = _data(
        "", "Training split. Default: the run's split, or the dataset's standard split."
    )
    eval_split: str = _data(
        "", "Test split. Default: the run's split, or the dataset's standard split."
    )
    metric: str = _data(
        "",
        "Metric reported as `value`. Default: the dataset's standard metric.",
        choices=("", *METRICS),
    )
    data_dir: str = _data(
        "", "Directory of prepared TFDS datasets. Default: the run's directory.", is_path=True
    )
    skip_unreadable: bool = _data(
        False, "Skip files that are not readable images; always on if the run has it."
    )
    max_pixels: int | None = _data(
        None, "Maximum pixels of an image file. Default: the run's.", min=1
    )
    label_fraction: float = _data(
        1.0, "Fraction of the training labels to use, of each class.", min=1e-6, max=1.0
    )
    labels_per_class: int = _data(
        0, "Number of training labels per class; above 0 it replaces label_fraction.", min=0
    )
    seed: int = _data(0, "Seed of the label subset and of the protocols.", min=0)
    protocols: str = _protocol("knn,logistic", f"Any of {', '.join(PROTOCOLS)}.")
    baselines: str = _protocol(
        "",
        "Any of pca (of pixels), random (the untrained encoder), supervised (the encoder trained "
        "with labels for as many steps as the run, which takes as long).",
    )
    knn_k: str | None = _protocol(
        None,
        "k-NN: number of neighbors, or several, comma-separated. Default: 200, or the size of the "
        "smallest class if that is less, but at least 5.",
    )
    knn_temperature: str = _protocol(
        "0.1", "k-NN: temperature T of the vote exp(cosine / T), or several, comma-separated."
    )
    l2_sweep: bool = _protocol(
        False, "Logistic: select L2 from 45 values on a held-out tenth of the training split."
    )
    logistic_solver: str = _protocol(
        "lbfgs",
        "Logistic: adam for datasets that are too large for L-BFGS.",
        choices=("lbfgs", "adam"),
    )
    linear_epochs: float = _protocol(
        90, "Linear: epochs over the training images.", min=1e-6, max=1e9
    )
    linear_batch_size: int = _protocol(256, "Linear: images per step.", min=1)
    linear_learning_rate: float = _protocol(
        0.1,
        "Linear: learning rate for a batch of 256; scaled by batch size / 256.",
        min=1e-6,
        max=1e9,
    )
    linear_features: str = _protocol(
        "augmented",
        "Linear: train on features of random crops and flips, as in the paper, or on the cached "
        "features of the unaugmented images, which is much faster.",
        choices=("augmented", "cached"),
    )
    probe_transformations: str = _protocol(
        ",".join(TRANSFORMATIONS), "Probes: transformations to predict from h and g(h)."
    )
    eval_batch_size: int = _protocol(256, "Images per call of the encoder.", min=1)
    save_classifier: bool = _output(
        False,
        "Save the logistic or linear classifier and export it with the encoder as signature "
        "`classify`.",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.dataset and self.datasets:
            raise UserError(
                "--dataset and --datasets exclude each other. Fix: list all in --datasets"
            )
        if "finetune" in split_commas(self.protocols):
            raise UserError(
                f"--protocols={self.protocols}: finetune is a separate command. "
                "Fix: simclr-tf finetune --checkpoint=RUN"
            )
        parse_choices("probe_transformations", self.probe_transformations, TRANSFORMATIONS)
        _ = self.protocol_names, self.baseline_names, self.k_values, self.temperatures
        if self.save_classifier:
            classifiers = set(self.protocol_names) & set(CLASSIFIER_PROTOCOLS)
            if len(classifiers) != 1 or len(self.dataset_names) > 1:
                raise UserError(
                    f"--save_classifier: expected one of {', '.join(CLASSIFIER_PROTOCOLS)} in "
                    f"--protocols and one dataset, got --protocols={self.protocols}"
                )

    @property
    def dataset_names(self) -> list[str]:
        """Datasets; empty for the run's dataset."""
        if self.dataset:
            return [self.dataset]
        return [absolute_dataset(dataset) for dataset in split_paths(self.datasets)]

    @property
    def protocol_names(self) -> list[str]:
        """Protocols, each a member of PROTOCOLS."""
        return parse_choices("protocols", self.protocols, PROTOCOLS)

    @property
    def baseline_names(self) -> list[str]:
        """Baselines, each a member of BASELINES."""
        return parse_choices("baselines", self.baselines, BASELINES)

    @property
    def transformation_names(self) -> list[str]:
        """Transformations to probe; empty without the protocol `probes`."""
        if "probes" not in self.protocol_names:
            return []
        return parse_choices("probe_transformations", self.probe_transformations, TRANSFORMATIONS)

    @property
    def k_values(self) -> tuple[int, ...]:
        """Numbers of neighbors; empty for the default, which depends on the classes."""
        return () if self.knn_k is None else tuple(parse_ints("knn_k", self.knn_k))

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Temperatures of the k-NN vote."""
        return tuple(parse_floats("knn_temperature", self.knn_temperature))
