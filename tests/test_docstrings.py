"""The examples in the docstrings of all modules run and print what they say."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

from simclr_tf.errors import UserError
from tests.commands import eager_functions

ROOT = Path(__file__).resolve().parent.parent

_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def modules() -> list[str]:
    names = []
    for folder, package in (("simclr_tf", "simclr_tf"), ("export", "simclr_tf.exporter")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if "examples" not in parts and parts[-1] != "__main__":
                names.append(".".join((package, *(p for p in parts if p != "__init__"))))
    return names


def members(module) -> list[str]:
    """Returns the names that autodoc lists for a module."""
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__]
    return getattr(module, "__all__", [name for name in own if not name.startswith("_")])


def documented() -> dict[str, object]:
    """Returns the functions and classes of the API page by name."""
    found = {}
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for kind, target, text in re.findall(r"\.\. auto(\w+):: (\S+)((?:\n {3}:.*)*)", page):
        package, _, name = target.rpartition(".")
        names = [name]
        if kind == "module":
            package, options = target, dict(re.findall(r":([\w-]+): (.*)", text))
            module = importlib.import_module(package)
            names = options["members"].split(", ") if "members" in options else members(module)
            names = set(names) - set(options.get("exclude-members", "").split(", "))
        found |= {f"{package}.{n}": getattr(importlib.import_module(package), n) for n in names}
    return {name: value for name, value in found.items() if callable(value)}


def test_every_documented_function_and_class_has_an_example_that_runs():
    names = documented()
    assert len(names) > 100
    assert {name for name, value in names.items() if ">>> " not in (value.__doc__ or "")} == set()
    tested = set(modules())
    assert {name for name, value in names.items() if value.__module__ not in tested} == set()


@pytest.mark.parametrize("name", modules())
def test_examples_of_module_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        assert error.name in ("keras_cv", "tensorflow_addons", "umap"), error
        pytest.skip(f"needs {error.name}")
    except UserError as error:  # of LAMB
        assert "tensorflow-addons" in str(error), error
        pytest.skip("needs tensorflow_addons")
    with eager_functions():
        failures, _ = doctest.testmod(module, optionflags=_OPTIONS)
    assert not failures
