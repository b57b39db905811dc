"""Get what a run needs from the Hugging Face hub: the tables, and single members of big zips."""

from colibri.curate.fetch.config import FetchConfig
from colibri.curate.fetch.run import FetchReport, fetch

__all__ = ["FetchConfig", "FetchReport", "fetch"]
