"""`simclr-tf evaluate`: every protocol, transfer, tables, saved classifiers."""

import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from simclr_tf.data import open_source, sequential_batches
from simclr_tf.runs.results_file import read_evaluations
from simclr_tf.runs.run_dir import RunDir
from tests.processes import finish, python

TINY = [
    *("--dataset=shapes", "--train_split=train[:300]", "--eval_split=test[:100]"),
    *("--image_size=16", "--resnet_depth=18", "--width_multiplier=0.0625", "--use_blur=False"),
    *("--num_proj_layers=2", "--proj_out_dim=16", "--optimizer=momentum", "--learning_rate=0.1"),
    *("--train_batch_size=32", "--train_steps=3", "--warmup_epochs=0", "--log_every=3"),
    "--pictures_every_epochs=0",
]


_OTHERS = ("projection ", "pca ", "random ", "supervised ")


@pytest.fixture(scope="module")
def run_dir(run_cli, tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate") / "run"
    done = run_cli("pretrain", *TINY, f"--model_dir={path}")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def evaluated(run_cli, run_dir):
    done = run_cli(
        *("evaluate", f"--model_dir={run_dir}", "--protocols=knn,logistic,linear,probes"),
        *("--baselines=pca,random,supervised", "--knn_k=5,20", "--l2_sweep", "--linear_epochs=2"),
        *("--probe_transformations=rotation", "--table"),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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
def test_repeated_evaluation_reuses_features_and_baseline(run_cli, evaluated, run_dir):
    places = _places(run_dir)
    stamps = [(place / "features.npy").stat().st_mtime_ns for place in places]
    measured = [r for r in _records(run_dir) if not r["protocol"].startswith("finetune")]
    done = run_cli(
        *("evaluate", f"--model_dir={run_dir}", "--protocols=knn,linear,probes", "--knn_k=5,20"),
        *("--baselines=random,supervised", "--linear_epochs=2", "--probe_transformations=rotation"),
    )
    assert done.returncode == 0, done.stderr
    place = RunDir(run_dir).supervised_dir("train[:300]")
    assert f"{place} is finished: 3 steps" in done.stdout
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
def test_stopped_evaluation_resumes(run_dir, tmp_path, number, status):
    shutil.copytree(run_dir, tmp_path / "run", ignore=lambda *_: ["features", "evaluations.json"])
    flags = ["--protocols=logistic,linear,knn", "--linear_epochs=40", "--knn_k=5"]
    command = ("-m", "simclr_tf", "evaluate", f"--model_dir={tmp_path / 'run'}", *flags)
    process = python(*command)
    for line in process.stdout:
        if line.startswith("logistic: top-1"):
            process.send_signal(number)
    ended, _, errors = finish(process)
    assert ended == status and "Traceback" not in errors
    (before,) = _records(tmp_path / "run")
    ended, _, errors = finish(python(*command))
    assert ended == 0, errors
    after = _records(tmp_path / "run")
    assert [record["protocol"] for record in after] == ["logistic", "linear", "knn"]
    assert after[0] == before


@pytest.mark.slow
def test_saved_classifier_is_exported(run_cli, run_dir):
    done = run_cli(
        *("evaluate", f"--model_dir={run_dir}", "--protocols=logistic", "--save_classifier"),
        "--labels_per_class=12",
    )
    assert done.returncode == 0, done.stderr
    record = _records(run_dir)[-1]
    assert record["num_train"] == 120
    loaded = tf.saved_model.load(str(run_dir / "export" / "3"))
    test = open_source("shapes", "test[:100]")
    from simclr_tf.augment import eval_transform

    images = np.concatenate([batch["image"] for batch in sequential_batches(test, 100)])
    images = eval_transform(tf.constant(images), 16)
    answer = loaded.signatures["classify"](images=images)
    assert np.mean(answer["label"] == test.labels()) == pytest.approx(record["top1"])
    names = [name.decode() for name in answer["class_name"].numpy()]
    assert names == [test.class_names[i] for i in answer["label"]]
    assert "signature `classify`" in (run_dir / "export" / "3" / "README.md").read_text("utf-8")


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
def test_transfer_uses_the_standard_metric_of_each_dataset(run_cli, run_dir, others):
    before = len(_records(run_dir))
    done = run_cli(
        *("evaluate", f"--model_dir={run_dir}", "--knn_k=3", "--data_dir", others / "tfds"),
        f"--datasets=shapes,folder:{others}/aircraft,voc/2007",
    )
    assert done.returncode == 0, done.stderr
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
        (["--protocols="], "--protocols is empty"),
        (["--knn_k=5,x"], "--knn_k=5,x: expected positive integers"),
        (["--knn_k=301"], "--knn_k=301: expected 1 to 300"),
        (["--protocols=logistic,linear", "--save_classifier"], "--save_classifier: expected one"),
        (["--datasets=shapes", "--dataset=shapes"], "exclude each other"),
        (["--label_fraction=0.001"], "--label_fraction=0.001 selects none"),
        (["--metric=11-point mAP"], "--metric=11-point mAP: the images"),
        (["--label_fraction=10"], "--label_fraction=10"),
        (["--linear_epochs=nan"], "--linear_epochs=nan"),
        (["--baselines=supervised", "--labels_per_class=3"], "--baselines=supervised: is trained"),
        (
            ["--baselines=supervised", "--train_split=train[:20]", "--knn_k=1"],
            "one batch of the run, 32 images, and --train_split=train[:20] has 20",
        ),
        (["--model_dir=,"], "--model_dir=,: expected"),
        (
            ["--encoder=a", f"--output={__file__}/b", "--dataset=c", "--model_dir="],
            "test_evaluate_command.py/b: expected a directory that can be created",
        ),
        (["--train_split=train[:1]", "--protocols=knn", "--knn_k=1"], "single class"),
    ],
)
def test_mistakes_are_one_line_before_any_work(run_dir, capsys, flags, message):
    from simclr_tf.cli.main import main

    before = _records(run_dir)
    assert main(["evaluate", f"--model_dir={run_dir}", *flags]) == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("simclr-tf: error:")]
    assert message in line
    assert _records(run_dir) == before


def test_all_runs_are_checked_before_the_first_evaluation(run_dir, tmp_path, capsys):
    from simclr_tf.cli.main import main

    before = _records(run_dir)
    assert main(["evaluate", f"--model_dir={run_dir},{tmp_path / 'none'}"]) == 2
    assert "none holds no run" in capsys.readouterr().err
    assert _records(run_dir) == before
