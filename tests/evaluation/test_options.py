"""Options of an evaluation: lists, limits and contradictions."""

import pytest

from simclr_tf.embedding import EmbedOptions
from simclr_tf.errors import UserError
from simclr_tf.evaluation import metrics, transformation_probes
from simclr_tf.evaluation.evaluate import make_protocols
from simclr_tf.evaluation.knn import KNN
from simclr_tf.evaluation.linear import Linear
from simclr_tf.evaluation.logistic import Logistic
from simclr_tf.evaluation.options import METRICS, TRANSFORMATIONS, EvalOptions, EvalSource
from simclr_tf.evaluation.splits import Splits


def test_make_protocols_passes_every_option():
    options = EvalOptions(
        protocols="linear,knn,logistic,knn",
        knn_k="5, 20",
        knn_temperature=[0.07, 0.1],
        l2_sweep=True,
        logistic_solver="adam",
        linear_epochs=2,
        linear_batch_size=8,
        linear_learning_rate=0.5,
        linear_features="cached",
    )
    assert make_protocols(options) == [
        Linear(2, 8, 0.5, cached=True),
        KNN((5, 20), (0.07, 0.1)),
        Logistic(sweep=True, solver="adam"),
    ]
    assert make_protocols(EvalOptions()) == [KNN(), Logistic()]
    assert make_protocols(EvalOptions(linear_epochs=3, protocols="linear")) == [Linear(3)]


def test_options_list_the_names_of_metrics_and_transformations():
    assert tuple(metrics.METRIC_FUNCTIONS) == METRICS
    assert tuple(transformation_probes.TRANSFORMATION_FUNCTIONS) == TRANSFORMATIONS
    assert EvalOptions().transformation_names == []
    assert EvalOptions(protocols="probes").transformation_names == list(TRANSFORMATIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocols": "finetune"}, "simclr-tf finetune"),
        ({"protocols": "kn"}, "--protocols=kn: expected any of knn, .*, got 'kn'"),
        ({"baselines": "pcs"}, "did you mean pca"),
        ({"probe_transformations": "blur"}, "--probe_transformations=blur"),
        ({"knn_k": "5,x"}, "--knn_k=5,x: expected integers from 1 to"),
        ({"knn_k": ""}, "--knn_k=: expected"),
        ({"knn_temperature": "0"}, "--knn_temperature=0: expected positive numbers"),
        ({"knn_temperature": "nan"}, "--knn_temperature=nan"),
        ({"dataset": "a", "datasets": "b"}, "exclude each other"),
        ({"label_fraction": 10.0}, "--label_fraction=10"),
        ({"label_fraction": 0.0}, "--label_fraction=0"),
        ({"labels_per_class": -1}, "--labels_per_class=-1"),
        ({"linear_epochs": float("nan")}, "--linear_epochs=nan"),
        ({"eval_batch_size": 0}, "--eval_batch_size=0"),
        ({"metric": "top-3"}, "--metric=top-3"),
        ({"save_classifier": True, "protocols": "logistic,linear"}, "--save_classifier: expected"),
        ({"save_classifier": True, "datasets": "a,b"}, "--save_classifier: expected"),
    ],
)
def test_options_refuse_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        EvalOptions(**options)


def test_comma_of_an_existing_folder_is_part_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cats,dogs").mkdir()
    (tmp_path / "lr=1,k=2").mkdir()
    names = EvalOptions(datasets=["folder:cats,dogs", "shapes"]).dataset_names
    assert names == [f"folder:{tmp_path}/cats,dogs", "shapes"]
    assert EvalOptions(datasets="shapes,dtd").dataset_names == ["shapes", "dtd"]
    (name,) = EvalOptions(dataset="folder:~/cats,dogs").dataset_names
    assert name == f"folder:{tmp_path}/cats,dogs"
    source = EvalSource(model_dir="~/lr=1,k=2,~/b")
    assert source.model_dirs == [f"{tmp_path}/lr=1,k=2", f"{tmp_path}/b"]


def test_labels_and_duplicates_of_a_run_do_not_apply_to_other_data():
    run = Splits("shapes", "train", "test", labels="none", duplicates="drop", max_pixels=9)
    for options in (EmbedOptions(), EmbedOptions(dataset="shapes")):
        assert run.with_data(options) == run
    other = run.with_data(EmbedOptions(dataset="folder:/photos"))
    assert (other.labels, other.duplicates, other.max_pixels) == ("auto", "keep", 9)
    other = run.override(EvalOptions(dataset="dtd"), "dtd")
    assert (other.labels, other.duplicates, other.max_pixels) == ("auto", "keep", 9)
    assert run.override(EvalOptions(), "shapes").labels == "none"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ({}, {}, "either --model_dir=RUN or --encoder=SAVEDMODEL"),
        ({"model_dir": "a", "encoder": "b"}, {}, "either --model_dir=RUN or"),
        ({"model_dir": ","}, {}, "--model_dir=,: expected the path of a run"),
        ({"encoder": "a", "output": "b"}, {}, "--encoder=a: expected --output=DIR and --dataset"),
        (
            {"encoder": "a", "output": "b"},
            {"dataset": "c", "save_classifier": True},
            "--save_classifier: expected --model_dir",
        ),
        ({"model_dir": "a"}, {"protocols": ""}, "--protocols: expected any of knn"),
    ],
)
def test_source_refuses_contradictions(source, options, message):
    with pytest.raises(UserError, match=message):
        EvalSource(**source).check(EvalOptions(**options))
    EvalSource(model_dir="a,b", table=True).check(EvalOptions(protocols=""))
    EvalSource(encoder="a", output="b").check(EvalOptions(dataset="c"))
