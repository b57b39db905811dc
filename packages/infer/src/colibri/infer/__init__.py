"""Make videos with Wan models. Read `generate` first."""

__version__ = "0.1.0"
