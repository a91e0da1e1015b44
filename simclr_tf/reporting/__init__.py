"""HTML reports of one run, and comparisons of runs."""

from typing import TYPE_CHECKING

from simclr_tf.utils.lazy import lazy_attributes

if TYPE_CHECKING:
    from simclr_tf.reporting.comparison import report_runs
    from simclr_tf.reporting.options import ReportOptions
    from simclr_tf.reporting.run_report import report_run

__all__ = ["ReportOptions", "report_run", "report_runs"]

__getattr__, __dir__ = lazy_attributes(
    __name__, {"ReportOptions": "options", "report_run": "run_report", "report_runs": "comparison"}
)
