"""The docstring examples that need a run, which `tests/test_docstrings.py` cannot execute."""

import doctest
import logging
import re
import shutil

import numpy as np
import pytest

import simclr_tf as st
from simclr_tf import embedding, evaluation, reporting
from tests.commands import eager_functions

pytestmark = pytest.mark.slow  # t-SNE, and an export


class AnyNumber(doctest.OutputChecker):
    """Compares output except for the digits of decimal fractions, which depend on the run."""

    def check_output(self, want, got, optionflags):
        want, got = (re.sub(r"\d\.\d+", "0.0", text) for text in (want, got))
        return super().check_output(want, got, optionflags)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pretrained, finetuning, photos):
    """A directory with the runs and images that the examples name."""
    path = tmp_path_factory.mktemp("examples")
    for name in ("photos", "first", "a", "b"):
        shutil.copytree(pretrained, path / "runs" / name)
    shutil.copytree(finetuning[0], path / "runs" / "tuned")
    shutil.copytree(photos, path / "new")
    with eager_functions():
        shutil.move(st.export(path / "runs" / "first"), path / "runs" / "first" / "export" / "780")
    return path


@pytest.mark.parametrize(
    "documented",
    [
        *(st.Run, st.embed, st.evaluate, st.export, st.report),
        *(embedding.embed_run, embedding.embed_saved_model),
        *(evaluation.evaluate_classifier, evaluation.evaluate_run, evaluation.evaluate_saved_model),
        *(reporting.report_run, reporting.report_runs),
    ],
    ids=lambda value: value.__name__,
)
def test_example_runs(documented, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(logging.root.manager, "disable", logging.WARNING)  # no progress in stdout
    names = {"images": np.zeros((2, 16, 16, 3), np.float32)}
    example = doctest.DocTestParser().get_doctest(
        documented.__doc__, names, documented.__name__, None, 0
    )
    skipped = [line.options.pop(doctest.SKIP, False) for line in example.examples]
    assert any(skipped)
    with eager_functions():
        result = doctest.DocTestRunner(AnyNumber()).run(example)
    assert result.failed == 0
