"""Judge an encoder by what can be done with its features.

Learns from the labelled train split and predicts the test split, beside baselines that see the same
images. Dataset and splits are the run's unless given. Results go to evaluations.json.

  simclr-tf evaluate --model_dir=runs/a --protocols=knn,logistic --baselines=pca,random
"""

from absl import flags

from simclr_tf.errors import UserError

_PROTOCOLS = ("knn", "logistic")
_BASELINES = ("pca", "random")


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    def string(name, default, text):
        flags.DEFINE_string(name, default, text, flag_values=values)

    string("model_dir", None, "The run whose newest checkpoint is evaluated.")
    string("encoder", None, "An exported SavedModel in place of a run; needs output and dataset.")
    string("output", None, "Where evaluations.json goes, with encoder.")
    string("protocols", "knn,logistic", f"Any of {', '.join(_PROTOCOLS)}.")
    string("baselines", "", "Any of pca (of pixels), random (the same encoder untrained).")
    string("dataset", "", "A labelled dataset; the run's if empty.")
    string("train_split", "", "What is learnt from; the run's if empty.")
    string("eval_split", "", "What is judged on; the run's if empty.")
    string("data_dir", "", "Where TFDS datasets are prepared; the run's if empty.")
    flags.DEFINE_boolean(
        "skip_unreadable",
        False,
        "Leave files that are not images out; on where the run has it on.",
        flag_values=values,
    )
    flags.DEFINE_integer("knn_k", 200, "Neighbours that vote.", 1, flag_values=values)
    flags.DEFINE_float(
        "knn_temperature", 0.1, "A vote is exp(cosine / temperature).", 1e-6, flag_values=values
    )
    flags.DEFINE_integer(
        "eval_batch_size", 256, "Images per call of the encoder.", 1, flag_values=values
    )
    return {
        "What": ["model_dir", "encoder", "output"],
        "Data": ["dataset", "train_split", "eval_split", "data_dir", "skip_unreadable"],
        "How": ["protocols", "baselines", "knn_k", "knn_temperature", "eval_batch_size"],
    }


def run(values: flags.FlagValues) -> None:
    if bool(values.model_dir) == bool(values.encoder):
        raise UserError("name what to evaluate: either --model_dir=RUN or --encoder=SAVEDMODEL")
    if values.encoder and not (values.output and values.dataset):
        raise UserError("--encoder needs --output=DIR and --dataset as well")
    names = _names("protocols", values.protocols, _PROTOCOLS)
    baselines = _names("baselines", values.baselines, _BASELINES)
    if not names:
        raise UserError(f"--protocols is empty: name any of {', '.join(_PROTOCOLS)}")

    from simclr_tf.evaluation import KNN, Logistic
    from simclr_tf.evaluation.runs import Splits, evaluate_run, evaluate_saved_model

    knn = KNN(values.knn_k, values.knn_temperature)
    protocols = [knn if name == "knn" else Logistic() for name in names]
    if values.encoder:
        splits = Splits(
            values.dataset,
            values.train_split or "train",
            values.eval_split or "validation",
            values.data_dir,
            skip_unreadable=values.skip_unreadable,
        )
        evaluate_saved_model(
            values.encoder,
            values.output,
            splits,
            protocols,
            baselines=baselines,
            batch_size=values.eval_batch_size,
        )
        return
    evaluate_run(
        values.model_dir,
        protocols,
        baselines=baselines,
        dataset=values.dataset,
        train_split=values.train_split,
        test_split=values.eval_split,
        data_dir=values.data_dir,
        skip_unreadable=values.skip_unreadable,
        batch_size=values.eval_batch_size,
    )
    print(f"next: simclr-tf export --model_dir={values.model_dir}")


def _names(flag: str, value: str, allowed: tuple[str, ...]) -> list[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if name not in allowed:
            raise UserError(f"--{flag}: {name!r} is none of {', '.join(allowed)}")
    return names
