"""Studies in processes of their own, as a user runs them, on the built-in shapes."""

import json
import os
import re
import signal
import subprocess

import psutil
import pytest
from absl import flags as absl_flags

from simclr_tf.cli import study as study_command
from tests.processes import ROOT, finish, last_checkpoint, python

TINY = [
    *("--dataset=shapes", "--train_split=train[:256]", "--eval_split=test[:100]"),
    *("--image_size=16", "--resnet_depth=18", "--width_multiplier=0.0625", "--use_blur=False"),
    *("--num_proj_layers=2", "--proj_out_dim=16", "--optimizer=momentum", "--learning_rate=0.1"),
    *("--train_batch_size=32", "--train_steps=3", "--warmup_epochs=0", "--log_every=1"),
]
TWO = "--cells=normalised-0.1,plain-10"


def study(name, output, *flags):
    return python("-m", "simclr_tf", "study", name, f"--output={output}", *TINY, *flags)


def figures(output):
    document = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return {run["run"]: run["figures"] for run in document["runs"]}


def times(run):
    """When each file of a run was last written."""
    return {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}


def await_line(process, words):
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"ended without {words!r}: {process.communicate()[1]}")


def await_logged(run, words):
    """Waits until a line of a run's log begins so; its file need not be there yet."""
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
    """The process that carries out the runs."""
    children = psutil.Process(process.pid).children()
    (found,) = (child for child in children if "spawn_main" in " ".join(child.cmdline()))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study that nobody disturbed: two cells, the second one of more steps than the first."""
    output = tmp_path_factory.mktemp("study") / "whole"
    status, text, errors = finish(study("temperature", output, TWO, "--train_steps=200"))
    assert status == 0, errors
    return output, text


def test_a_study_writes_runs_table_and_picture(whole):
    output, text = whole
    assert "1 seeds = 2 runs, 0 of them finished already; 1 at a time" in text
    assert "run 1 of 2, normalised-0.1-0: finished" in text
    assert "run 2 of 2, plain-10-0: finished" in text
    table = (output / "table.md").read_text(encoding="utf-8")
    assert table.strip() in text and "| normalised | 0.1 |" in table and "| 64.4 |" in table
    assert f"simclr-tf study temperature --output={output}" in table
    assert (output / "temperature.png").read_bytes().startswith(b"\x89PNG")
    asked = json.loads((output / "study.json").read_text(encoding="utf-8"))
    assert asked["study"] == "temperature" and asked["seeds"] == [0]
    assert asked["cells"] == ["normalised-0.1", "plain-10"]
    expected = {"knn", "knn/random", "logistic", "logistic/random"}
    expected |= {"contrastive_accuracy", "contrastive_entropy"}
    found = figures(output)
    assert [set(run) for run in found.values()] == [expected] * 2
    # The same encoder untrained, whatever the cell.
    assert len({run["knn/random"] for run in found.values()}) == 1
    for run in found:
        records = json.loads((output / "runs" / run / "evaluations.json").read_text("utf-8"))
        assert {r["protocol"]: r["value"] for r in records}["knn"] == found[run]["knn"]
    log = (output / "runs" / "plain-10-0" / "log.txt").read_text(encoding="utf-8")
    assert "step 200/200" in log and "knn/random" in log


def test_a_finished_study_is_only_read(whole):
    output, _ = whole
    runs = [output / "runs" / name for name in figures(output)]
    before, found = [times(run) for run in runs], figures(output)
    table = (output / "table.md").read_bytes()
    status, text, errors = finish(study("temperature", output, TWO, "--train_steps=200"))
    assert status == 0, errors
    assert "2 of them finished already" in text and "run 1" not in text
    assert [times(run) for run in runs] == before and figures(output) == found
    assert (output / "table.md").read_bytes() == table


@pytest.mark.slow
def test_a_killed_study_goes_on_and_repeats_nothing(whole, tmp_path):
    """SIGKILL in the second run: the first is left alone, the second goes on from a checkpoint."""
    unbroken, _ = whole
    flags = TWO, "--train_steps=200", "--checkpoint_steps=5"
    first, second = (tmp_path / "runs" / name for name in figures(unbroken))
    process = study("temperature", tmp_path, *flags)
    await_line(process, "run 1 of 2")
    before = times(first)
    await_logged(second, "step 20/")
    worker = worker_of(process)
    process.kill()
    finish(process)
    worker.wait(60)  # nobody told it, and it ends
    assert 20 <= last_checkpoint(second) < 200
    status, text, errors = finish(study("temperature", tmp_path, *flags))
    assert status == 0, errors
    assert "1 of them finished already" in text and "run 2 of 2" in text
    assert times(first) == before
    log = (second / "log.txt").read_text(encoding="utf-8")
    assert "resuming" in log and log.count("step 200/200") == 1
    for run, found in figures(tmp_path).items():
        assert found == pytest.approx(figures(unbroken)[run], abs=0.011)  # an image of 100


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_study_saves_its_run(tmp_path, number, status):
    flags = TWO, "--train_steps=5000"
    process = study("temperature", tmp_path, *flags)
    await_logged(tmp_path / "runs" / "normalised-0.1-0", "step 5/")
    process.send_signal(number)
    code, text, errors = finish(process)
    assert code == status, errors
    assert "stopped: 0 of 2 runs are finished; the same command goes on" in text
    assert "Traceback" not in errors
    assert 5 <= last_checkpoint(tmp_path / "runs" / "normalised-0.1-0") < 5000


@pytest.mark.slow
def test_what_fails_is_said_and_the_others_go_on(tmp_path):
    """A damaged run, and one whose process is killed; the third is finished."""
    damaged = tmp_path / "runs" / "normalised-0.05-0"
    (damaged / "checkpoints").mkdir(parents=True)
    (damaged / "checkpoints" / "step-3.index").touch()
    cells = "--cells=normalised-0.05,normalised-0.1,plain-10"
    process = study("temperature", tmp_path, cells)
    await_line(process, "run 1 of 3, normalised-0.05-0: failed: ")
    # A run's log begins with its process's turn; killed there or in its training, it is lost.
    await_logged(tmp_path / "runs" / "normalised-0.1-0", "one device")
    os.kill(worker_of(process).pid, signal.SIGKILL)
    status, text, errors = finish(process)
    assert status == 2 and "Traceback" not in errors
    last = errors.strip().splitlines()[-1]
    assert "error: 2 of 3 runs failed: normalised-0.05-0, normalised-0.1-0; " in last
    assert "run 2 of 3, normalised-0.1-0: failed: its process ended with signal 9" in text
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "Failed: normalised-0.05-0: " in table and "names no checkpoint" in table
    assert "Failed: normalised-0.1-0: its process ended with signal 9" in table
    rows = {tuple(row.split(" | ")[:2]): row for row in table.splitlines() if row[:1] == "|"}
    assert rows["| plain", "10"].split(" | ")[-2] == "1"
    assert rows["| normalised", "0.1"].split(" | ")[-2] == "0"
    assert (tmp_path / "temperature.png").exists()

    # What can be mended is, and the same command does what is left.
    (damaged / "checkpoints" / "step-3.index").unlink()
    before = times(tmp_path / "runs" / "plain-10-0")
    status, text, errors = finish(study("temperature", tmp_path, cells))
    assert status == 0, errors
    assert "1 of them finished already" in text
    assert times(tmp_path / "runs" / "plain-10-0") == before
    assert all(figures(tmp_path).values())


@pytest.mark.slow
def test_a_study_of_ones_own_with_a_run_that_is_not_finite(tmp_path):
    """The example of docs/study.md, shortened, with one rate too high."""
    text = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    changes = {
        '"learning_rate": 1e-3': '"learning_rate": 1e30',
        'dataset="shapes"': 'dataset="shapes", train_split="train[:512]"',
        "width_multiplier=0.25": "width_multiplier=0.0625",
        "train_epochs=5, warmup_epochs=1": "train_steps=3",
        "[0, 1, 2]": "[4]",
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
def test_processes_with_cores_of_their_own(tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("there is one core")
    process = study("temperature", tmp_path, TWO, "--processes=2", "--train_steps=2000")
    for name in ("normalised-0.1-0", "plain-10-0"):
        await_logged(tmp_path / "runs" / name, "step 1/")
    children = psutil.Process(process.pid).children()
    shares = [c.cpu_affinity() for c in children if "spawn_main" in " ".join(c.cmdline())]
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143
    assert len(shares) == 2 and sorted(shares[0] + shares[1]) == cores


@pytest.mark.slow
def test_labels_another_policy_and_replicas(tmp_path):
    """What the other studies need: supervised runs, RandAugment, g(h), replicas' own statistics."""
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
    status, _, errors = finish(
        study(
            "bn",
            tmp_path / "bn",
            "--subset=small",
            "--num_replicas=2",
            "--train_epochs=0.4",
            "--train_steps=0",
        )
    )
    assert status == 0, errors
    log = (tmp_path / "bn" / "runs" / "of_each_replica-B-0" / "log.txt").read_text("utf-8")
    assert "2 CPU devices: global batch 32, 16 per replica" in log
    found = figures(tmp_path / "bn")
    assert found["global-B-0"] != found["of_each_replica-B-0"]


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("ablation", [], "ablation: no such study; there are augmentations, color_strength"),
        ("", [], "the study's name is missing; there are"),
        ("head", ["--subset=big"], "--subset=big: the subsets of head are: small"),
        ("head", ["--cells=none"], "--cells: 'none' is none of none-that_of_h, linear-32"),
        ("head", ["--seeds=0,x"], "--seeds=0,x: 'x' is no integer"),
        ("head", ["--seeds="], "--seeds is empty"),
        ("head", ["--seed=3"], "--seed: a study has several: --seeds=0,1,2"),
        ("head", ["--dataset=shapes"], "--output is missing"),
        ("head", ["--output=x"], "--dataset is missing"),
    ],
)
def test_mistakes_are_one_line_before_any_work(run_cli, name, flags, words):
    done = run_cli("study", *filter(None, [name]), *flags)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"simclr-tf: error: {words}")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", study_command.STUDIES)
def test_help_tells_every_flag_of_a_study(run_cli, name):
    values = absl_flags.FlagValues()
    study_command.named(name).define(values)
    told = run_cli("study", name, "--help").stdout
    flags = [line.split()[0] for line in told.splitlines() if line.startswith("  --")]
    assert sorted(flags) == sorted(f"--{flag}" for flag in [*values, "flagfile=FILE"])
    assert study_command.STUDIES[name].source in told


@pytest.mark.parametrize(
    ("name", "option", "counts"),
    [
        ("temperature", "temperature", False),
        ("losses", "loss", False),
        ("batch_epochs", "train_batch_size", True),
        ("batch_epochs", "learning_rate_scaling", True),
        ("head", "proj_out_dim", True),  # of the cell without a head
    ],
)
def test_which_of_the_bases_settings_count(name, option, counts):
    assert study_command.is_replaced(option, study_command.STUDIES[name].cells) != counts


def test_list_runs_nothing(run_cli):
    done = run_cli("study", "augmentations", "--list", "--seeds=0,1,2")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[-1] == "49 cells × 3 seeds = 147 runs"
    assert lines[2].split() == ["crop-color", "transformations=crop,color"]
    done = run_cli("study", "batch_epochs", "--list", "--subset=small")
    assert "train_batch_size=×0.25" in done.stdout
