"""The page that shows a curated set to a person."""

from colibri.curate.report.page import write_report

__all__ = ["write_report"]
