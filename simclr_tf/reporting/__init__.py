"""What a run has learned, as one HTML file to look at."""

from simclr_tf.reporting.comparison import report_runs
from simclr_tf.reporting.run_report import ReportRequest, report_run

__all__ = ["ReportRequest", "report_run", "report_runs"]
