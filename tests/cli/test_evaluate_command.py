"""`simclr-tf evaluate`: every protocol, transfer, tables, saved classifiers."""

import shutil
import signal

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from simclr_tf.runs.results_file import read_evaluations
from simclr_tf.runs.run_dir import RunDir
from tests.commands import error_of, exported_accuracy, output_of
from tests.processes import finish, python

_OTHERS = ("projection ", "pca ", "random ", "supervised ")


@pytest.fixture(scope="module")
def evaluated(run_dir):
    return output_of(
        *("evaluate", f"--model_dir={run_dir}", "--protocols=knn,logistic,linear,probes"),
        *("--baselines=pca,random,supervised", "--knn_k=5,20", "--l2_sweep", "--linear_epochs=2"),
        *("--probe_transformations=rotation", "--table"),
    )


def _records(directory):
    return read_evaluations(directory / "evaluations.json")


def _places(run_dir):
    return sorted(place for place in (run_dir / "features").iterdir() if place.is_dir())


@pytest.mark.slow
def test_every_protocol_and_baseline_is_recorded(evaluated, run_dir):
    found = {record["protocol"] for record in _records(run_dir)}
    bases = ("", "/pca", "/random", "/supervised")
    wanted = {f"{name}{base}" for name in ("knn", "logistic", "linear") for base in bases}
    assert found == wanted | {
        *("finetune/supervised", "probe:rotation"),
        *(f"probe:rotation/{name.strip()}" for name in _OTHERS),
    }
    keys = {"protocol", "dataset", "train_split", "test_split", "top1", "top5", "num_train"}
    keys |= {"num_test", "step", "seconds", "setting", "metric", "value"}
    assert all(set(record) == keys for record in _records(run_dir))
    assert "| k-NN, k=20, T=0.1 | SimCLR | R18 × 0.0625 | 32 | 16 |" in " ".join(evaluated.split())


@pytest.mark.slow
def test_evaluation_writes_plots_tables_and_tensorboard_events(evaluated, run_dir):
    (place,) = (run_dir / "evaluations").glob("3-shapes-*-knn-k-5-T-0.1-300-images")
    assert sorted(file.name for file in place.iterdir()) == [
        *("confusion.csv", "confusion.npz", "confusion.png", "per_class.csv")
    ]
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    tag = f"evaluation/{place.name.removeprefix('3-').replace('-knn', '/knn')}"
    assert tag in events.Tags()["tensors"]


@pytest.mark.slow
def test_repeated_evaluation_reuses_features_and_baseline(evaluated, run_dir):
    places = _places(run_dir)
    stamps = [(place / "features.npy").stat().st_mtime_ns for place in places]
    measured = [r for r in _records(run_dir) if not r["protocol"].startswith("finetune")]
    printed = output_of(
        *("evaluate", f"--model_dir={run_dir}", "--protocols=knn,linear,probes", "--knn_k=5,20"),
        *("--baselines=random,supervised", "--linear_epochs=2", "--probe_transformations=rotation"),
    )
    place = RunDir(run_dir).supervised_dir("train[:300]")
    assert f"{place} is finished: 3 steps" in printed
    assert _places(run_dir) == places
    assert [(place / "features.npy").stat().st_mtime_ns for place in places] == stamps
    after = _records(run_dir)
    assert len(after) == len(measured) + 1 and all(record in after for record in measured)


@pytest.mark.slow
def test_encoders_and_representations_have_separate_caches(evaluated, run_dir):
    assert len(_places(run_dir)) == 2 * 4  # splits of the encoder and its three baselines
    answers = [np.load(file) for file in (run_dir / "features").glob("probe-rotation-*.npz")]
    scores = {
        name: arrays[name].tobytes()
        for arrays in answers
        for name in arrays.files
        if name.endswith("scores")
    }
    assert set(scores) == {f"{name}scores" for name in (" ", *_OTHERS)}
    assert len(set(scores.values())) == len(scores)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_stopped_evaluation_resumes(pretrained, tmp_path, number, status):
    run = shutil.copytree(pretrained, tmp_path / "run")
    flags = ["--protocols=logistic,linear,knn", "--linear_epochs=20", "--knn_k=5"]
    command = ["evaluate", f"--model_dir={run}", *flags]
    process = python("-m", "simclr_tf", *command)
    for line in process.stdout:
        if line.startswith("logistic: top-1"):
            process.send_signal(number)
    ended, _, errors = finish(process)
    assert ended == status and "Traceback" not in errors
    if number == signal.SIGINT:
        assert errors.splitlines()[-1] == (
            "simclr-tf: interrupted. To continue, run the same command again: "
            f"simclr-tf evaluate --model_dir={run} {' '.join(flags)}"
        )
    (before,) = _records(run)
    output_of(*command)
    after = _records(run)
    assert [record["protocol"] for record in after] == ["logistic", "linear", "knn"]
    assert after[0] == before


@pytest.mark.slow
def test_saved_classifier_is_exported(run_dir):
    flags = ["--protocols=logistic", "--save_classifier", "--labels_per_class=12"]
    output_of("evaluate", f"--model_dir={run_dir}", *flags)
    record = _records(run_dir)[-1]
    assert record["num_train"] == 120
    export = run_dir / "export" / "3"
    assert exported_accuracy(export, "test[:100]") == pytest.approx(record["top1"])
    assert "signature `classify`" in (export / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A folder whose name is that of a transfer set, and a set of several labels per image."""
    root = tmp_path_factory.mktemp("others")
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for i in range(count):
            folder = root / "aircraft" / split / f"class{i % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / f"{i}.png")
    examples = {
        split: [
            (i, {"image": draw.integers(0, 256, (16, 16, 3), np.uint8), "labels": [i % 3, 3]})
            for i in range(12)
        ]
        for split in ("train", "validation", "test")
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="voc",
        config="2007",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(16, 16, 3), encoding_format="png"),
                "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=list("abcd"))),
            }
        ),
        split_datasets=examples,
        data_dir=root / "tfds",
        disable_shuffling=True,
    )
    return root


@pytest.mark.slow
def test_transfer_uses_the_standard_metric_of_each_dataset(run_dir, others):
    before = len(_records(run_dir))
    output_of(
        *("evaluate", f"--model_dir={run_dir}", "--knn_k=3", "--data_dir", others / "tfds"),
        f"--datasets=shapes,folder:{others}/aircraft,voc/2007",
    )
    found = [(r["protocol"], r["metric"], r["num_train"]) for r in _records(run_dir)[before:]]
    assert found == [
        *(("knn", "top-1", 300), ("logistic", "top-1", 300)),
        *(("knn", "mean per class", 12), ("logistic", "mean per class", 12)),
        *(("knn", "11-point mAP", 24), ("logistic", "11-point mAP", 24)),
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--protocols=finetune"], "simclr-tf finetune"),
        (["--protocols=kn"], "expected any of knn, logistic, linear, probes, got 'kn'"),
        (["--protocols="], "--protocols: expected any of knn"),
        (["--knn_k=5,x"], "--knn_k=5,x: expected integers from 1 to"),
        (["--knn_k=301"], "--knn_k=301: expected 1 to 300"),
        (["--protocols=logistic,linear", "--save_classifier"], "--save_classifier: expected one"),
        (["--datasets=shapes", "--dataset=shapes"], "exclude each other"),
        (["--label_fraction=10"], "--label_fraction=10"),
        (["--linear_epochs=nan"], "--linear_epochs=nan"),
        (["--baselines=supervised", "--labels_per_class=3"], "--baselines=supervised: is trained"),
        (["--model_dir=,"], "--model_dir=,: expected"),
        (
            ["--encoder=a", f"--output={__file__}/b", "--dataset=c", "--model_dir="],
            "test_evaluate_command.py/b: expected a directory that can be created",
        ),
    ],
)
def test_mistakes_are_one_line_before_any_work(run_dir, flags, message):
    before = _records(run_dir)
    assert message in error_of("evaluate", f"--model_dir={run_dir}", *flags)
    assert _records(run_dir) == before


def test_all_runs_are_checked_before_the_first_evaluation(run_dir, tmp_path):
    before = _records(run_dir)
    runs = f"--model_dir={run_dir},{tmp_path / 'none'}"
    assert "none holds no run" in error_of("evaluate", runs)
    assert _records(run_dir) == before
