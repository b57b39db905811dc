"""Exports of curated shards for trainers and for the hub."""

from colibri.curate.export.base import ExportConfig, ExportCounts
from colibri.curate.export.run import export

__all__ = ["ExportConfig", "ExportCounts", "export"]
