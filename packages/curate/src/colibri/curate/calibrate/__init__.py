"""How far a judge can be trusted: a person labels a sample of its rows, and figures follow."""

from colibri.curate.calibrate.run import CalibrateConfig, calibrate

__all__ = ["CalibrateConfig", "calibrate"]
