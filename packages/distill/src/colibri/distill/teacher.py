"""Where a teacher lies: an embedded tiny model, a folder, or the hub."""

from pathlib import Path

from colibri.core import wan
from colibri.testbed.embedded import TEACHER, embedded_model


def teacher_folder(name: str) -> Path:
    """The pipeline folder of a model; `tiny-ti2v` is the embedded one."""
    if name != TEACHER or Path(name).is_dir():
        return wan.find_folder(name)
    return embedded_model(name)
