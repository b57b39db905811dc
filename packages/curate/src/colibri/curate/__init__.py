"""Captioned clips to training shards."""

__version__ = "0.1.0"
