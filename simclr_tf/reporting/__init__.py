"""What a run has learned, as one HTML file to look at."""

from simclr_tf.reporting.comparison import report_runs
from simclr_tf.reporting.run_report import ReportOptions, report_run

__all__ = ["ReportOptions", "report_run", "report_runs"]
