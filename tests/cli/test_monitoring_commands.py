"""TensorBoard over HTTP, and the commands `runs` and `show`."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.commands import error_of, output_of
from tests.processes import finish, free_workers, pretrain, python

TINY = [
    *("--image_size=16", "--resnet_depth=18", "--width_multiplier=0.0625", "--use_blur=False"),
    *("--num_proj_layers=2", "--proj_out_dim=16", "--warmup_epochs=0"),
    *("--learning_rate_scaling=none", "--log_every=2"),
]
SHAPES = ["--dataset=shapes", "--train_split=train[:64]", "--eval_split=test[:32]", *TINY]


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    """Finished runs: `labeled`, and `bare` without labels and of another optimizer."""
    path = tmp_path_factory.mktemp("runs")
    flags = [*SHAPES, "--train_batch_size=16", "--train_steps=8", "--optimizer=lars"]
    flags += ["--knn_every_epochs=1", "--validation_fraction=0.25", "--pictures_every_epochs=1"]
    output_of("pretrain", *flags, f"--model_dir={path / 'labeled'}")
    images = path / "images"
    images.mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (20, 24, 24, 3))):
        Image.fromarray(pixels.astype(np.uint8)).save(images / f"<b>{i}.png")
    flags = [f"--dataset=folder:{images}", *TINY, "--train_batch_size=8", "--train_steps=2"]
    output_of("pretrain", *flags, "--optimizer=adamw", f"--model_dir={path / 'bare'}")
    return path


@contextlib.contextmanager
def tensorboard(logdir):
    """TensorBoard on a free port: a function that asks it."""
    port = free_workers(1).rpartition(":")[2]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tensorboard.main", f"--logdir={logdir}", f"--port={port}"),
            # All of it is loaded before anything is answered.
            *("--load_fast=false", "--reload_task=blocking", "--reload_interval=0"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def ask(route, **query):
        url = f"http://127.0.0.1:{port}/data/{route}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=120) as answer:
            content = answer.read()
            is_json = "json" in answer.headers["Content-Type"]
        return json.loads(content) if is_json else content

    try:
        # It says where it listens, or why it does not.
        line = next(line for line in process.stderr if "Press CTRL+C" in line)
        assert port in line
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield ask
    finally:
        process.terminate()
        process.wait()


SCALARS = {
    *("loss", "contrastive_accuracy", "contrastive_entropy", "alignment", "uniformity"),
    *("feature_std", "learning_rate", "gradient_norm", "weight_norm", "views_per_second"),
}
PROBES = {"knn_top1", "linear_probe_top1", "validation_loss", "linear_accuracy"}
PICTURES = {"view_pairs", "nearest_neighbours", "similarity_matrix"}


@pytest.mark.slow
def test_tensorboard_shows_every_documented_tag(logdir, tmp_path):
    logdir = shutil.copytree(logdir, tmp_path / "runs")
    few = ["--train_split=train[:64]", "--eval_split=test[:32]"]
    knn = ["--protocols=knn", "--knn_k=5"]
    output_of("evaluate", f"--model_dir={logdir / 'labeled'}", *few, *knn)
    flags = [f"--checkpoint={logdir / 'labeled'}", *few, "--train_batch_size=16"]
    output_of("finetune", *flags, "--train_steps=2", f"--model_dir={logdir / 'tuned'}")
    labeled, bare, tuned = (f"{name}/tensorboard" for name in ("labeled", "bare", "tuned"))
    with tensorboard(logdir) as ask:
        loaded = ask("plugin/images/tags")
        evaluated = "evaluation/shapes-train-64-304cd1-test-32-0803b1/knn-k-5-T-0.1-64-images"
        assert set(loaded[labeled]) == PICTURES | {f"{evaluated}/confusion"}
        assert set(loaded[bare]) == PICTURES
        assert set(loaded[tuned]) >= {"views", "nearest_neighbours", "similarity_matrix"}
        scalars = ask("plugin/scalars/tags")
        assert set(scalars[labeled]) >= SCALARS | PROBES | {evaluated}
        assert set(scalars[bare]) >= SCALARS and not set(scalars[bare]) & PROBES
        rows = (logdir / "labeled" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        for tag in ("loss", "gradient_norm", "knn_top1"):
            points = ask("plugin/scalars/scalars", run=labeled, tag=tag)
            wanted = [(r["step"], r[tag]) for r in map(json.loads, rows) if tag in r]
            assert wanted
            np.testing.assert_allclose([p[1:] for p in points], wanted, rtol=1e-6)
        # LARS alone has trust ratios.
        histograms = ask("plugin/histograms/tags")
        assert set(histograms[labeled]) == {"trust_ratio"} and bare not in histograms
        (*_, (_, step, bins)) = ask("plugin/histograms/histograms", run=labeled, tag="trust_ratio")
        assert step == 8 and sum(count for _, _, count in bins) == 23  # kernels but the linear head

        for tag, times in (("view_pairs", [2]), ("similarity_matrix", [3, 6, 8])):
            found = ask("plugin/images/images", run=labeled, tag=tag, sample=0)
            assert [image["step"] for image in found] == times
            query = dict(urllib.parse.parse_qsl(found[-1]["query"]))
            content = ask("plugin/images/individualImage", **query)
            picture = tf.io.decode_png(content).numpy()
            assert picture.shape[-1] == 3 and picture.std() > 5

        (config,) = ask("plugin/text/text", run=labeled, tag="config")
        assert '"train_batch_size": 16' in config["text"].replace("&quot;", '"')
        _runs_compare(ask, labeled, bare, tuned)
        _projector(ask, labeled, 48, "label\tid\tindex")
        metadata = _projector(ask, bare, 20, "id\tindex")
        assert all(f"<b>{i}.png\t" in metadata for i in range(20))


def _runs_compare(ask, labeled, bare, tuned):
    experiment = ask("plugin/hparams/experiment", request="{}")
    names = {info["name"] for info in experiment["hparamInfos"]}
    assert {"optimizer", "learning_rate", "temperature", "train_batch_size", "seed"} <= names
    columns = [{"metric": {"group": "", "tag": "loss"}}]
    statuses = ["STATUS_UNKNOWN", "STATUS_RUNNING", "STATUS_SUCCESS"]
    wanted = {"colParams": columns, "sliceSize": 10, "allowedStatuses": statuses}
    groups = ask("plugin/hparams/session_groups", request=json.dumps(wanted))["sessionGroups"]
    by_run = {group["sessions"][0]["name"]: group for group in groups}
    assert set(by_run) == {labeled, bare, tuned}
    assert by_run[labeled]["hparams"]["optimizer"] == "lars"
    assert by_run[bare]["hparams"]["optimizer"] == "adamw"
    assert by_run[labeled]["hparams"]["train_batch_size"] == 16
    (value,) = [m for m in by_run[labeled]["metricValues"] if m["name"]["tag"] == "loss"]
    assert value["trainingStep"] == 8


def _projector(ask, run, count, head):
    (embedding,) = ask("plugin/projector/info", run=run)["embeddings"]
    width, tile = embedding["tensorShape"][1], embedding["sprite"]["singleImageDim"][0]
    assert embedding["tensorShape"][0] == count and width == 32
    points = ask("plugin/projector/tensor", run=run, name="features")
    assert np.isfinite(np.frombuffer(points, np.float32)).sum() == count * width
    sprite = tf.io.decode_png(ask("plugin/projector/sprite_image", run=run, name="features"))
    assert sprite.shape[1] == tile * int(np.ceil(np.sqrt(count)))
    metadata = ask("plugin/projector/metadata", run=run, name="features").decode()
    assert metadata.splitlines()[0] == head and len(metadata.splitlines()) == count + 1
    return metadata


def listed(directory):
    runs = json.loads(output_of("runs", directory, "--json"))
    return {run["path"].removeprefix(f"{directory}/"): run for run in runs}


@pytest.mark.slow
def test_finished_runs_are_listed_with_progress_probe_and_size(logdir):
    found = listed(logdir)
    assert list(found) == ["bare", "labeled"]
    labeled, bare = found["labeled"], found["bare"]
    assert labeled["state"] == bare["state"] == "done"
    assert (labeled["step"], labeled["saved_step"], labeled["total_steps"]) == (8, 8, 8)
    assert labeled["epoch"] == pytest.approx(8 / 3)
    rows = (logdir / "labeled" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    probes = [
        (row[name], row["step"], name)
        for row in map(json.loads, rows)
        for name in ("knn_top1", "linear_probe_top1")
        if name in row
    ]
    best = labeled["best_probe"]
    assert best["value"] == max(probes)[0] and (best["value"], best["step"], best["name"]) in probes
    assert bare["best_probe"] is None
    files = [path for path in (logdir / "bare").rglob("*") if path.is_file()]
    assert bare["size"] == sum(path.stat().st_size for path in files)

    printed = output_of("runs", logdir)
    head, first, second = printed.splitlines()
    assert head.split()[:5] == ["run", "state", "step", "of", "%"]
    assert first.split()[1:6] == ["done", "2", "2", "100", "–"]
    assert f"{best['name']} {100 * best['value']:.1f}" in second
    assert "\x1b" not in printed  # plain, as it is no terminal


@pytest.mark.slow
def test_show_prints_the_metric_and_the_evaluations(logdir, tmp_path):
    run = shutil.copytree(logdir / "labeled", tmp_path / "run")
    printed = output_of("show", run)
    assert f"{run}: done, step 8 of 8, epoch 2.67" in printed
    assert re.search(r"\nloss +value +at step\nfirst +[\d.]+ +2\nlast +[\d.]+ +8\n", printed)
    assert f"no evaluations yet: simclr-tf evaluate --model_dir={run}" in printed

    record = {"protocol": "knn", "dataset": "shapes", "train_split": "train", "step": 8}
    record |= {"test_split": "test", "num_train": 64, "num_test": 32, "seconds": 1.0}
    record |= {"top1": 0.5, "top5": 0.75, "setting": "", "metric": "top-1", "value": 0.5}
    baseline = {**record, "protocol": "knn/pca", "top1": 0.25, "value": 0.25}
    (run / "evaluations.json").write_text(json.dumps([record, baseline]), encoding="utf-8")
    printed = output_of("show", run, "--metric=knn_top1")
    assert re.search(r"\nknn +50\.0 +25\.0\n", printed)
    assert re.search(r"\nknn_top1 +value +at step\n", printed)

    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 9, "epoch": 3.0, "loss": 1.5, "weight_norm": NaN}\n')
    printed = output_of("show", run, "--json", "--metric=weight_norm")
    found = json.loads(printed, parse_constant=pytest.fail)  # NaN is no JSON
    assert found["steps"] == [2, 4, 6, 8] and len(found["values"]) == 4
    assert found["last"] == {"step": 9, "epoch": 3.0, "loss": 1.5, "weight_norm": None}
    assert found["evaluations"] == [record, baseline] and found["state"] == "done"
    error = error_of("show", run, "--metric=nothing")
    assert "--metric=nothing: expected one of loss, " in error


def reported(run):
    output_of("report", f"--model_dir={run}", "--images=40")
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_states_of_running_killed_and_failed_runs_are_distinguished(tmp_path):
    flags = [*SHAPES, "--train_batch_size=16", "--pictures_every_epochs=0", "--optimizer=momentum"]
    process = pretrain(tmp_path / "killed", *flags, "--train_steps=1000000", "--log_every=1")
    cut_off = pretrain(tmp_path / "cut_off", *flags, "--train_steps=10", "--log_every=1")
    for line in cut_off.stdout:
        if line.startswith("compiling"):
            cut_off.kill()
            break
    assert finish(cut_off)[0] == -signal.SIGKILL
    for line in process.stdout:
        if line.startswith("step 5/"):
            break
    # Its output is not read meanwhile, and so it may stand still, but it is there.
    assert listed(tmp_path)["killed"]["state"] == "running"
    assert "running at step" in reported(tmp_path / "killed")
    error = error_of("pretrain", f"--model_dir={tmp_path / 'killed'}", *flags, "--train_steps=9")
    assert f"is being trained (process {process.pid} on " in error
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL

    failing = ["--learning_rate=1e30", "--train_steps=20", "--log_every=1"]
    error_of("pretrain", f"--model_dir={tmp_path / 'failed'}", *flags, *failing)

    found = listed(tmp_path)
    assert {name: run["state"] for name, run in found.items()} == {
        **{"cut_off": "interrupted", "failed": "failed", "killed": "interrupted"}
    }
    assert "killed?" in found["killed"]["reason"] and found["killed"]["saved_step"] >= 4
    assert found["cut_off"]["step"] == 0 and found["cut_off"]["best_probe"] is None
    assert found["failed"]["reason"].startswith("the loss was not finite at step ")
    printed = output_of("show", tmp_path / "cut_off")
    assert "interrupted, step 0 of 10, epoch 0.00; saved at step 0" in printed
    assert "no metrics yet" in printed
    page = reported(tmp_path / "cut_off")
    assert "interrupted at step 0 of 10, epoch 0 (the process ended" in page
    assert 'id="views"' in page and 'id="map"' not in page and "No checkpoint yet" in page
    failed = f"{tmp_path / 'failed'}: failed: the loss was not finite at step"
    assert failed in output_of("runs", tmp_path)


@pytest.mark.slow
def test_damaged_run_is_named_and_hides_no_other(logdir, tmp_path):
    for name in ("config", "metrics", "cut", "evaluations", "checkpoint"):
        shutil.copytree(logdir / "labeled", tmp_path / name)
    text = (tmp_path / "config" / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config" / "config.json").write_text(text[:40], encoding="utf-8")
    rows = (tmp_path / "metrics" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "metrics" / "metrics.jsonl").write_text(
        "\n".join([rows[0], "{", *rows[1:], ""]), encoding="utf-8"
    )
    (tmp_path / "cut" / "metrics.jsonl").write_text("\n".join(rows)[:-5], encoding="utf-8")
    (tmp_path / "evaluations" / "evaluations.json").write_text("[{}]", encoding="utf-8")
    (tmp_path / "checkpoint" / "checkpoints" / "checkpoint").unlink()
    # No runs, and none of their business.
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "config.json").write_text("{}", encoding="utf-8")

    found = listed(tmp_path)
    reasons = {name: run["reason"] for name, run in found.items() if run["state"] == "damaged"}
    assert set(found) == {"config", "metrics", "cut", "evaluations", "checkpoint"}
    assert found["cut"]["state"] == found["evaluations"]["state"] == "done"
    assert set(reasons) == {"config", "metrics", "checkpoint"}
    assert "config.json is damaged" in reasons["config"]
    assert "metrics.jsonl is damaged in line 2" in reasons["metrics"]
    assert "names no existing checkpoint" in reasons["checkpoint"]
    for name in (*reasons, "evaluations"):
        error_of("show", tmp_path / name)


ASCII = """
import sys
from simclr_tf.cli.main import main
sys.stdout.reconfigure(encoding="ascii")
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_links_are_followed_and_names_are_escaped_for_ascii_terminals(logdir, tmp_path):
    shutil.copytree(logdir / "bare", tmp_path / "runs" / os.fsdecode(b"\xff\xe9"))
    (tmp_path / "runs" / "link").symlink_to(logdir / "labeled")
    (tmp_path / "runs" / "circle").symlink_to(tmp_path)
    status, printed, errors = finish(python("-c", ASCII, "runs", tmp_path / "runs"))
    assert status == 0, errors
    assert len(printed.splitlines()) == 3
    assert "/link  done" in printed and "\\udcff" in printed and "\\u2013" in printed
    status, _, errors = finish(python("-c", ASCII, "show", tmp_path / "runs" / "link"))
    assert status == 0, errors


def test_runs_and_show_start_without_tensorflow_and_name_missing_runs(tmp_path):
    code = (
        "import sys; from simclr_tf.cli.main import main; "
        f"main(['runs', {str(tmp_path)!r}]); main(['show', {str(tmp_path)!r}]); "
        "print(sorted({'tensorflow', 'tf_keras', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    _, printed, errors = finish(python("-c", code))
    assert printed.splitlines() == [f"no runs in {tmp_path}", "[]"]
    assert "holds no run (config.json" in errors
    assert output_of("runs", tmp_path, "--json") == "[]\n"
    for arguments, message in (
        (["runs", tmp_path / "nowhere"], "no such directory"),
        (["show"], "expected a run directory, got none. Fix: name it, such as"),
        (["show", "a", "b"], "b: not a flag"),
    ):
        assert message in error_of(*arguments)
