"""The installed package, and the files that must agree with it."""

import importlib.metadata
import importlib.resources
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import simclr_tf

ROOT = Path(__file__).resolve().parent.parent
FLAGFILES = sorted(path.name for path in (ROOT / "flags").glob("*.flags"))


def run_python(code: str) -> str:
    """Runs code in a fresh interpreter without TF_USE_LEGACY_KERAS; returns what it printed."""
    environ = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def repository_files() -> list[Path]:
    """Every file of the repository: tracked, or new and not ignored."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_flagfiles_are_package_data():
    found = importlib.resources.files("simclr_tf.flags")
    assert FLAGFILES
    for name in FLAGFILES:
        assert found.joinpath(name).read_bytes() == (ROOT / "flags" / name).read_bytes()


def test_wheel_holds_every_module_and_flagfile(tmp_path):
    # A copy: setuptools leaves its build/ behind, and would pack what an older one left.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("simclr_tf", "export", "flags"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    expected = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        # The examples are of other programs, which run them from a checkout.
        if path.suffix in {".py", ".flags", ".html", ".css", ".js", ".typed"}
        and path.name != "setup.py"
        and path.parent.name != "examples"
    }
    expected = {
        "simclr_tf/" + re.sub("^export/", "exporter/", name.removeprefix("simclr_tf/"))
        for name in expected
    }

    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    content = zipfile.ZipFile(wheel)
    assert {name for name in content.namelist() if ".dist-info/" not in name} == expected
    (commands,) = (name for name in content.namelist() if name.endswith("/entry_points.txt"))
    lines = content.read(commands).decode().split("\n")
    assert lines[:2] == ["[console_scripts]", "simclr-tf = simclr_tf.cli.main:console"]


def test_installation_has_the_command():
    command = Path(sys.executable).with_name("simclr-tf")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: simclr-tf COMMAND" in done.stdout


@pytest.mark.parametrize("name", FLAGFILES)
def test_flagfile_has_its_head_and_no_place_of_its_own(name):
    lines = (ROOT / "flags" / name).read_text(encoding="utf-8").splitlines()
    body = [line for line in lines if line.strip() and not line.startswith("#")]
    assert all(re.fullmatch(r"--[a-z][a-z_]*=\S+", line) for line in body), body
    flags = [line.split("=")[0] for line in body]
    assert len(flags) == len(set(flags))
    assert not {"--data_dir", "--model_dir"} & set(flags)

    head = "\n".join(lines[: lines.index(body[0])])
    command = "study losses" if name.startswith("study_") else "pretrain"
    assert f"simclr-tf {command} --flagfile=flags/{name}" in head
    for entry in ("Hardware", "Time", "Expected"):
        assert f"\n# {entry} " in head, f"{name}: no {entry} in its header"


def test_versions_agree():
    def first(pattern: str, name: str) -> str:
        match = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert match, f"no version in {name}"
        return match.group(1)

    versions = {
        "setup.py": first(r'^    version="(.+)",$', "setup.py"),
        "installed": importlib.metadata.version("simclr_tf"),
        "CITATION.cff": first(r"^version: (\S+)$", "CITATION.cff"),
        "CHANGELOG.md": first(r"^## (\d\S*)", "CHANGELOG.md"),
    }
    assert versions == dict.fromkeys(versions, simclr_tf.__version__)


def test_import_is_light_and_chooses_the_keras():
    code = "import os, sys, simclr_tf; print(sorted({'tensorflow', 'tf_keras'} & set(sys.modules)),"
    assert run_python(f"{code} os.environ['TF_USE_LEGACY_KERAS'])") == "[] 1"


def test_public_names_are_listed_without_importing_tensorflow():
    code = """
import sys, time
started = time.perf_counter()
import simclr_tf as st
names = dir(st)
print(time.perf_counter() - started < 0.5, {"tensorflow", "numpy"} & set(sys.modules), *names)
"""
    fast, loaded, *names = run_python(code).split()
    assert (fast, loaded) == ("True", "set()")
    assert set(names) == set(simclr_tf.__all__) >= {"pretrain", "Run", "losses", "load"}


def test_every_public_name_exists():
    for name in simclr_tf.__all__:
        assert getattr(simclr_tf, name) is not None
        assert name in dir(simclr_tf)


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'pretain'"):
        simclr_tf.pretain  # noqa: B018


@pytest.mark.slow
def test_only_keras_cv_needs_tf_keras_to_be_chosen_before_tensorflow_is_used():
    printed = run_python("""
import tensorflow as tf
assert tf.keras.__version__.startswith("3.")  # touched before simclr_tf could choose
from simclr_tf.errors import UserError
from simclr_tf.losses import nt_xent
from simclr_tf.models import ResNet
from simclr_tf.models.keras_cv_backbones import describe_preset
from simclr_tf.optimizers import LARS
loss, _, _ = nt_xent(tf.ones([4, 8]), tf.ones([4, 8]))
weight = tf.Variable([[3.0, 4.0]])
LARS(0.5, momentum=0.0).apply_gradients([(tf.constant([[0.0, 1.0]]), weight)])
print(f"{float(loss):.5f} {weight[0, 0]:.5f} {weight[0, 1]:.5f}", ResNet(18, 0.125).output_shape)
try:
    describe_preset("resnet18_v2", 32)
except UserError as error:
    print(error)
""")
    # ln 7; and trust 0.001 * |w| / |g| = 0.005, so the step is 0.5 * 0.005.
    first, error = printed.splitlines()
    assert first == "1.94591 3.00000 3.99750 (None, 64)"
    assert error.startswith("--encoder=keras_cv:") and "TF_USE_LEGACY_KERAS=1" in error


def test_no_file_names_a_place_on_someones_machine():
    # Only where it begins a path ("host/home/x" is none); "someone" is the docs' example.
    place = re.compile(rb"(?<![\w./~-])/(?:home|root|Users|work)/(?!someone\b)[\w.]+")
    named = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in repository_files()
        for match in place.finditer(path.read_bytes())
    ]
    assert not named, named
