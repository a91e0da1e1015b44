"""Judge an encoder by what can be done with its features.

Learns from the labelled train split and predicts the test split, beside baselines that see the same
images. Dataset and splits are the run's unless given. Results go to evaluations.json, features are
kept in the run directory, and a command that was stopped goes on from there. docs/evaluation.md
says what each protocol computes.

  simclr-tf evaluate --model_dir=runs/a --protocols=knn,logistic --baselines=pca,random
  simclr-tf evaluate --model_dir=runs/a,runs/b,runs/c --protocols= --table
"""

import math
from pathlib import Path

from absl import flags

from simclr_tf.errors import UserError
from simclr_tf.options import parse_choices, split_commas

_PROTOCOLS = ("knn", "logistic", "linear", "probes")
_BASELINES = ("pca", "random", "supervised")
_WITH_HEAD = ("logistic", "linear")


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    def string(name, default, text):
        flags.DEFINE_string(name, default, text, flag_values=values)

    def integer(name, default, text, low=1):
        flags.DEFINE_integer(name, default, text, low, flag_values=values)

    def number(name, default, text, high=1e9):  # a bound also keeps what is no number out
        flags.DEFINE_float(name, default, text, 1e-6, high, flag_values=values)
        flags.register_validator(name, math.isfinite, "must be a number", values)

    def switch(name, default, text):
        flags.DEFINE_boolean(name, default, text, flag_values=values)

    string("model_dir", None, "The run whose newest checkpoint is evaluated, or several: A,B,C.")
    string("encoder", None, "An exported SavedModel in place of a run; needs output and dataset.")
    string("output", None, "Where evaluations.json goes, with encoder.")
    string("protocols", "knn,logistic", f"Any of {', '.join(_PROTOCOLS)}; none with table alone.")
    string(
        "baselines",
        "",
        "Any of pca (of pixels), random (the same encoder untrained), supervised (the same encoder "
        "trained with labels, as long as the run: that takes as long).",
    )
    string("dataset", "", "A labelled dataset; the run's if empty.")
    string("datasets", "", "Several, one after the other: transfer. Each has its usual metric.")
    string("train_split", "", "What is learnt from; the run's, or the dataset's usual, if empty.")
    string("eval_split", "", "What is judged on; the run's, or the dataset's usual, if empty.")
    flags.DEFINE_enum(
        "metric",
        "",
        ["", "top-1", "mean per class", "11-point mAP"],
        "What is reported as value; the dataset's usual if empty.",
        flag_values=values,
    )
    string("data_dir", "", "Where TFDS datasets are prepared; the run's if empty.")
    switch(
        "skip_unreadable", False, "Leave files that are not images out; on where the run has it."
    )
    number("label_fraction", 1.0, "Share of the labels that is learnt from, class by class.", 1.0)
    integer("labels_per_class", 0, "So many of each class; above 0 it overrides it.", 0)
    integer("seed", 0, "Of the choice of labels and the protocols' own draws.", 0)
    string("knn_k", "200", "Neighbours that vote; several: 20,200.")
    string("knn_temperature", "0.1", "A vote is exp(cosine / temperature); several: 0.07,0.1.")
    switch("l2_sweep", False, "Logistic: choose L2 of 45 values on a held-out tenth of train.")
    flags.DEFINE_enum(
        "logistic_solver",
        "lbfgs",
        ["lbfgs", "adam"],
        "Logistic: adam for sets that L-BFGS would take too long for.",
        flag_values=values,
    )
    number("linear_epochs", 90, "Linear: passes over the training images.")
    integer("linear_batch_size", 256, "Linear: images per step.")
    number("linear_learning_rate", 0.1, "Linear: times batch / 256.")
    flags.DEFINE_enum(
        "linear_features",
        "augmented",
        ["augmented", "cached"],
        "Linear: of crops and flips, as in the paper, or of the images as they are: much faster.",
        flag_values=values,
    )
    string(
        "probe_transformations",
        "color,rotation,noise,sobel",
        "Probes: which transformation is told from h and from g(h).",
    )
    integer("eval_batch_size", 256, "Images per call of the encoder.")
    switch(
        "save_classifier",
        False,
        "Keep the logistic or linear head and export it with the encoder as signature `classify`.",
    )
    switch(
        "table",
        False,
        "Print a Markdown table of what evaluations.json holds, of several runs together.",
    )
    return {
        "What": ["model_dir", "encoder", "output"],
        "Data": [
            *("dataset", "datasets", "train_split", "eval_split", "metric", "data_dir"),
            *("skip_unreadable", "label_fraction", "labels_per_class", "seed"),
        ],
        "How": [
            *("protocols", "baselines", "knn_k", "knn_temperature", "l2_sweep", "logistic_solver"),
            *("linear_epochs", "linear_batch_size", "linear_learning_rate", "linear_features"),
            *("probe_transformations", "eval_batch_size"),
        ],
        "What to do with it": ["save_classifier", "table"],
    }


def run(values: flags.FlagValues) -> None:
    if bool(values.model_dir) == bool(values.encoder):
        raise UserError("name what to evaluate: either --model_dir=RUN or --encoder=SAVEDMODEL")
    if values.dataset and values.datasets:
        raise UserError("--dataset and --datasets exclude each other: name all in --datasets")
    datasets = split_commas(values.datasets or values.dataset)
    if values.encoder and not (values.output and datasets):
        raise UserError("--encoder needs --output=DIR and --dataset as well")
    if "finetune" in split_commas(values.protocols):
        raise UserError("--protocols: finetune is a command: simclr-tf finetune --checkpoint=RUN")
    names = parse_choices("protocols", values.protocols, _PROTOCOLS)
    baselines = parse_choices("baselines", values.baselines, _BASELINES)
    if not names and (values.encoder or not values.table):
        raise UserError(f"--protocols is empty: name any of {', '.join(_PROTOCOLS)}")
    runs = [Path(name) for name in split_commas(values.model_dir or "")]
    if values.model_dir and not runs:
        raise UserError(f"--model_dir={values.model_dir} names no run")
    neighbours = _numbers("knn_k", values.knn_k, int)
    temperatures = _numbers("knn_temperature", values.knn_temperature, float)
    if values.save_classifier:
        heads = [name for name in names if name in _WITH_HEAD]
        if len(heads) != 1 or len(datasets) > 1 or values.encoder:
            raise UserError(
                "--save_classifier keeps one head: name one of "
                f"{', '.join(_WITH_HEAD)} in --protocols, one dataset and a --model_dir"
            )

    from simclr_tf.evaluation.evaluate import check_runs, evaluate_run, evaluate_saved_model
    from simclr_tf.evaluation.options import EvalOptions
    from simclr_tf.evaluation.run_table import format_run_table
    from simclr_tf.exporter.export_run import export_run
    from simclr_tf.runs.results_file import format_results, read_evaluations
    from simclr_tf.training.tasks import train_supervised_baseline

    request = EvalOptions(
        protocols=_protocols(values, names, neighbours, temperatures),
        baselines=baselines,
        transformations=_transformations(values) if "probes" in names else (),
        datasets=datasets,
        train_split=values.train_split,
        test_split=values.eval_split,
        metric=values.metric,
        data_dir=values.data_dir,
        skip_unreadable=values.skip_unreadable,
        label_fraction=values.label_fraction,
        labels_per_class=values.labels_per_class,
        save_classifier=values.save_classifier,
        batch_size=values.eval_batch_size,
        seed=values.seed,
    )
    if values.encoder:
        evaluate_saved_model(values.encoder, values.output, request)
        if values.table:
            records = read_evaluations(Path(values.output) / "evaluations.json")
            print(f"\n{format_results(records, markdown=True)}")
        return
    if names:
        check_runs(runs)
    for model_dir in runs if names else ():
        evaluate_run(model_dir, request, train_supervised=train_supervised_baseline)
        if values.save_classifier:
            export_run(model_dir)
    if values.table:
        print(f"\n{format_run_table(runs)}")
    elif not values.save_classifier:
        print(f"next: simclr-tf export --model_dir={runs[0]}")


def _protocols(values, names, neighbours, temperatures):
    from simclr_tf.evaluation import KNN, Linear, Logistic

    made = {
        "knn": lambda: KNN(neighbours, temperatures),
        "logistic": lambda: Logistic(sweep=values.l2_sweep, solver=values.logistic_solver),
        "linear": lambda: Linear(
            values.linear_epochs,
            values.linear_batch_size,
            values.linear_learning_rate,
            cached=values.linear_features == "cached",
        ),
    }
    return [made[name]() for name in names if name in made]


def _transformations(values):
    from simclr_tf.evaluation.transformation_probes import TRANSFORMATIONS

    flag = "probe_transformations"
    return parse_choices(flag, values[flag].value, tuple(TRANSFORMATIONS))


def _numbers(flag, value, kind):
    try:
        numbers = tuple(kind(name) for name in split_commas(value))
    except ValueError:
        raise UserError(f"--{flag}={value}: must be numbers with commas between them") from None
    if not numbers:
        raise UserError(f"--{flag} is empty: name a number, or several with commas between them")
    if not all(0 < number < float("inf") for number in numbers):
        raise UserError(f"--{flag}={value}: must be above 0 and finite")
    return numbers
