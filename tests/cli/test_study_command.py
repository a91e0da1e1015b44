"""Studies as a user runs them. Those that need processes of their own are slow tests."""

import json
import os
import re
import signal
import subprocess
import sys

import psutil
import pytest

from simclr_tf.cli import study as study_command
from tests.commands import TINY, error_of, output_of
from tests.processes import ROOT, finish, last_checkpoint, python

ONE = "--cells=normalized-0.1"
TWO = "--cells=normalized-0.1,plain-10"


def study(name, output, *flags):
    return python("-m", "simclr_tf", "study", name, f"--output={output}", *TINY, *flags)


def figures(output):
    document = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return {run["run"]: run["figures"] for run in document["runs"]}


def times(run):
    """Modification times of a run's files."""
    return {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}


def wait_for_line(process, words):
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"ended without {words!r}: {process.communicate()[1]}")


def wait_for_log(run, words):
    """Waits until a line of a run's log starts with `words`; the file need not exist yet."""
    with subprocess.Popen(
        ["tail", "-n", "+1", "-F", run / "log.txt"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as tail:
        for line in tail.stdout:
            if line.startswith(words):
                break
        tail.kill()


def worker_of(process):
    """The process that executes the runs."""
    children = psutil.Process(process.pid).children()
    (worker,) = (child for child in children if "spawn_main" in " ".join(child.cmdline()))
    return worker


def run_here(output, *flags):
    """Runs a study's command in this process; its trials have their own."""
    arguments = ["study", "temperature", f"--output={output}", *TINY, *flags]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["simclr-tf", *arguments])
        return output_of(*arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of one cell."""
    output = tmp_path_factory.mktemp("study") / "finished"
    run_here(output, ONE)
    return output


@pytest.mark.slow
def test_study_writes_run_table_and_plot(finished):
    table = (finished / "table.md").read_text(encoding="utf-8")
    assert "normalized" in table and "64.4" in table
    assert f"simclr-tf study temperature --output={finished}" in table
    assert (finished / "temperature.png").read_bytes().startswith(b"\x89PNG")
    settings = json.loads((finished / "study.json").read_text(encoding="utf-8"))
    assert settings["study"] == "temperature" and settings["seeds"] == [0]
    assert settings["cells"] == ["normalized-0.1"]
    expected = {"knn", "knn/random", "logistic", "logistic/random"}
    expected |= {"contrastive_accuracy", "contrastive_entropy"}
    ((run, values),) = figures(finished).items()
    assert set(values) == expected
    records = json.loads((finished / "runs" / run / "evaluations.json").read_text("utf-8"))
    assert {r["protocol"]: r["value"] for r in records}["knn"] == values["knn"]
    log = (finished / "runs" / run / "log.txt").read_text(encoding="utf-8")
    assert "step 3/3" in log and "knn/random" in log


@pytest.mark.slow
def test_finished_study_is_only_read(finished):
    run = finished / "runs" / "normalized-0.1-0"
    before, values = times(run), figures(finished)
    table = (finished / "table.md").read_bytes()
    output = run_here(finished, ONE)
    assert "= 1 runs, 1 already finished" in output and "run 1 of" not in output
    assert table.decode().strip() in output
    assert times(run) == before and figures(finished) == values
    assert (finished / "table.md").read_bytes() == table


@pytest.mark.slow
def test_killed_study_resumes_and_repeats_nothing(tmp_path_factory, tmp_path):
    """SIGKILL in the second run: the first is not touched, the second resumes at a checkpoint."""
    unbroken = tmp_path_factory.mktemp("unbroken")
    run_here(unbroken, TWO, "--train_steps=200")
    flags = TWO, "--train_steps=200", "--checkpoint_steps=5"
    first, second = (tmp_path / "runs" / name for name in figures(unbroken))
    process = study("temperature", tmp_path, *flags)
    wait_for_line(process, "run 1 of 2")
    before = times(first)
    wait_for_log(second, "step 20/")
    worker = worker_of(process)
    process.kill()
    finish(process)
    worker.wait(60)  # ends although it receives no signal from outside
    assert 20 <= last_checkpoint(second) < 200
    status, text, errors = finish(study("temperature", tmp_path, *flags))
    assert status == 0, errors
    assert "1 already finished" in text and "run 2 of 2" in text
    assert times(first) == before
    log = (second / "log.txt").read_text(encoding="utf-8")
    assert "resuming" in log and log.count("step 200/200") == 1
    for run, values in figures(tmp_path).items():
        assert values == pytest.approx(figures(unbroken)[run], abs=0.011)  # an image of 100


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_study_saves_its_run(tmp_path, number, status):
    flags = TWO, "--train_steps=5000"
    process = study("temperature", tmp_path, *flags)
    wait_for_log(tmp_path / "runs" / "normalized-0.1-0", "step 5/")
    process.send_signal(number)
    code, text, errors = finish(process)
    assert code == status, errors
    assert "the study stops as soon as its current runs are saved" in text
    assert "stopped: 0 of 2 runs are finished. Run the same command to resume" in text
    assert "Traceback" not in errors
    assert 5 <= last_checkpoint(tmp_path / "runs" / "normalized-0.1-0") < 5000


@pytest.mark.slow
def test_failed_runs_are_reported_and_the_others_continue(tmp_path):
    """A damaged run, and one whose process is killed; the third is finished."""
    damaged = tmp_path / "runs" / "normalized-0.05-0"
    (damaged / "checkpoints").mkdir(parents=True)
    (damaged / "checkpoints" / "step-3.index").touch()
    cells = "--cells=normalized-0.05,normalized-0.1,plain-10"
    process = study("temperature", tmp_path, cells)
    wait_for_line(process, "run 1 of 3, normalized-0.05-0: failed: ")
    wait_for_log(tmp_path / "runs" / "normalized-0.1-0", "one device")
    os.kill(worker_of(process).pid, signal.SIGKILL)
    status, text, errors = finish(process)
    assert status == 2 and "Traceback" not in errors
    last = errors.strip().splitlines()[-1]
    assert "error: 2 of 3 runs failed: normalized-0.05-0, normalized-0.1-0; " in last
    assert "run 2 of 3, normalized-0.1-0: failed: the process was killed or crashed" in text
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "Failed: normalized-0.05-0: " in table and "names no existing checkpoint" in table
    assert "Failed: normalized-0.1-0: the process was killed or crashed" in table
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line] for line in lines]
    num_finished = {tuple(row[:2]): row[-2] for row in rows}
    assert num_finished["plain", "10"] == "1" and num_finished["normalized", "0.1"] == "0"
    assert (tmp_path / "temperature.png").exists()

    # After the damage is repaired, the same command executes the unfinished runs.
    (damaged / "checkpoints" / "step-3.index").unlink()
    before = times(tmp_path / "runs" / "plain-10-0")
    status, text, errors = finish(study("temperature", tmp_path, cells))
    assert status == 0, errors
    assert "1 already finished" in text
    assert times(tmp_path / "runs" / "plain-10-0") == before
    assert all(figures(tmp_path).values())


@pytest.mark.slow
def test_user_defined_study_reports_a_loss_that_is_not_finite(tmp_path):
    """The example of docs/study.md, shortened, with one rate too high."""
    text = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    changes = {
        '"learning_rate": 1e-3': '"learning_rate": 1e30',
        'dataset="shapes"': 'dataset="shapes", train_split="train[:512]"',
        "width_multiplier=0.25": "width_multiplier=0.0625",
        "train_epochs=5, warmup_epochs=1": "train_steps=3",
        '"0,1,2"': '"4"',
        "runs/optimizers": f"{tmp_path}/out",
    }
    for old, new in changes.items():
        assert old in program
        program = program.replace(old, new)
    (tmp_path / "own.py").write_text(program, encoding="utf-8")
    status, text, errors = finish(python(tmp_path / "own.py"))
    assert status == 0, errors
    assert "adam-4: failed: the loss was not finite at step" in text
    assert "momentum-4: finished" in text
    assert "Failed: adam-4: the loss was not finite" in text


@pytest.mark.slow
def test_processes_have_separate_cores(tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("there is one core")
    process = study("temperature", tmp_path, TWO, "--processes=2", "--train_steps=2000")
    for name in ("normalized-0.1-0", "plain-10-0"):
        wait_for_log(tmp_path / "runs" / name, "step 1/")
    children = psutil.Process(process.pid).children()
    shares = [c.cpu_affinity() for c in children if "spawn_main" in " ".join(c.cmdline())]
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143
    assert len(shares) == 2 and sorted(shares[0] + shares[1]) == cores


@pytest.mark.slow
def test_supervised_randaugment_head_and_replica_cells_run(tmp_path):
    """Requirements of other studies: supervised runs, RandAugment, g(h), local statistics."""
    pytest.importorskip("keras_cv", reason="the extra keras-cv is not installed")
    cells = "--cells=SimCLR-RandAugment,supervised-1_8"
    status, _, errors = finish(study("color_strength", tmp_path / "color", cells))
    assert status == 0, errors
    found = figures(tmp_path / "color")
    assert set(found["supervised-1_8-0"]) - set(found["SimCLR-RandAugment-0"]) == {
        "finetune/supervised"
    }
    flags = "--cells=linear-32", "--seeds=1"
    status, _, errors = finish(study("head", tmp_path / "head", *flags))
    assert status == 0, errors
    found = figures(tmp_path / "head")["linear-32-1"]
    assert {"knn/projection", "logistic/projection"} < set(found)
    flags = ["--subset=small", "--num_replicas=2", "--train_epochs=0.4", "--train_steps=0"]
    status, _, errors = finish(study("bn", tmp_path / "bn", *flags))
    assert status == 0, errors
    log = (tmp_path / "bn" / "runs" / "of_each_replica-B-0" / "log.txt").read_text("utf-8")
    assert "2 CPU devices: global batch 32, 16 per replica" in log
    found = figures(tmp_path / "bn")
    assert found["global-B-0"] != found["of_each_replica-B-0"]


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("ablation", [], "simclr-tf study: expected one of augmentations, color_strength"),
        ("", [], "simclr-tf study: expected one of"),
        ("head", ["--subset=big"], "--subset=big: expected one of small"),
        ("head", ["--cells=none"], "--cells: expected any of none-that_of_h, linear-32"),
        (
            "head",
            ["--seeds=0,x"],
            "--seeds=0,x: expected integers from 0 to 2^31 - 1",
        ),
        ("head", ["--seeds="], "--seeds=: expected integers from 0"),
        ("head", ["--seed=3"], "--seed=3: expected --seeds in a study. Fix: --seeds=3"),
        ("head", ["--dataset=shapes"], "--output is missing"),
        ("head", ["--output=x"], "--dataset is missing"),
    ],
)
def test_mistake_is_one_line_before_any_work(name, flags, message):
    error = error_of("study", *filter(None, [name]), *flags)
    assert error.startswith(f"simclr-tf: error: {message}")


@pytest.mark.parametrize(
    ("name", "option", "is_used"),
    [
        ("temperature", "temperature", False),
        ("losses", "loss", False),
        ("batch_epochs", "train_batch_size", True),
        ("batch_epochs", "learning_rate_scaling", True),
        ("head", "proj_out_dim", True),  # by the cell without a head
    ],
)
def test_base_value_is_ignored_if_every_cell_sets_the_option(name, option, is_used):
    cells = study_command.STUDIES[name].cells
    assert study_command.is_set_by_every_cell(option, cells) != is_used


def test_list_runs_nothing():
    lines = output_of("study", "augmentations", "--list", "--seeds=0,1,2").splitlines()
    assert lines[-1] == "49 cells × 3 seeds = 147 runs"
    assert lines[2].split() == ["crop-color", "transformations=crop,color"]
    printed = output_of("study", "batch_epochs", "--list", "--subset=small")
    assert "train_batch_size=×0.25" in printed
