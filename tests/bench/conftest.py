"""Answers instead of processes, for what the benches make of them."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest

from simclr_tf.bench.measure import HardwareInfo


@pytest.fixture
def answered(monkeypatch) -> Callable[..., list[tuple]]:
    """`answered(bench, answers, gpus=())`: the bench's processes hand back these, in turn.

    Returns a list that gets the arguments of each, without the options and `say`.
    """

    def answer(name: str, answers: list[Any], gpus=()) -> list[tuple]:
        asked: list[tuple] = []
        left = list(answers)

        def in_fresh_process(function, options, *arguments):
            asked.append(arguments[:-1])
            found = left.pop(0)
            if isinstance(found, Exception):
                raise found
            return found

        bench = importlib.import_module(f"simclr_tf.bench.{name}")
        monkeypatch.setattr(bench, "in_fresh_process", in_fresh_process)
        monkeypatch.setattr(bench, "this_machine", lambda: HardwareInfo("CPU", 2, "2", gpus))
        return asked

    return answer
