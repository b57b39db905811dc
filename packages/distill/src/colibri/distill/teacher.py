"""Where a teacher lies: an embedded tiny model, a folder, or the hub."""

from pathlib import Path

from colibri.core import wan
from colibri.testbed.embedded import PREFIX, TEACHER, embedded_model


def teacher_folder(name: str) -> Path:
    """The pipeline folder of a model; `tiny-ti2v` is an embedded one, as `embedded:NAME` are."""
    if name.startswith(PREFIX) or (name == TEACHER and not Path(name).is_dir()):
        return embedded_model(name)
    return wan.find_folder(name)
