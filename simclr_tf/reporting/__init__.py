"""HTML reports of one run, and comparisons of runs."""

import importlib
from typing import TYPE_CHECKING, Any

from simclr_tf.reporting.options import ReportOptions

if TYPE_CHECKING:
    from simclr_tf.reporting.comparison import report_runs
    from simclr_tf.reporting.run_report import report_run

__all__ = ["ReportOptions", "report_run", "report_runs"]

_MODULES = {"report_run": "run_report", "report_runs": "comparison"}


def __getattr__(name: str) -> Any:
    # The options must not wait for TensorFlow.
    if name in _MODULES:
        return getattr(importlib.import_module(f"simclr_tf.reporting.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
