"""Startup of TensorFlow without its log lines."""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any


def silence_tensorflow() -> None:
    """Hides the lines that TensorFlow logs from its import on; errors raise as always.

    Its C++ libraries print to file descriptor 2 before any log level applies. They are captured
    while TensorFlow is imported and lists its devices, and shown if that fails.
    """
    # Read once, when the libraries are loaded; 3: neither information, warnings nor errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _CapturingFinder())


class _CapturingFinder(importlib.abc.MetaPathFinder):
    """Imports TensorFlow, whoever imports it first, with standard error captured."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_quietly(module: ModuleType) -> None:
            with _stderr_shown_on_failure():
                execute(module)
                module.config.list_physical_devices()  # initializes the drivers
            module.get_logger().setLevel("ERROR")

        loader.exec_module = execute_quietly
        return spec


@contextlib.contextmanager
def _stderr_shown_on_failure() -> Iterator[None]:
    """Redirects file descriptor 2 to a file, whose contents are printed if the block raises."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            if failed:
                captured.seek(0)
                os.write(2, captured.read())
