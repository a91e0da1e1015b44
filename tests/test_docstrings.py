"""The examples in the docstrings of all modules run and print what they say."""

import doctest
import importlib
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
