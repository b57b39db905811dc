"""Where a teacher lies: the embedded tiny model, a folder, or the hub."""

from importlib.resources import files
from pathlib import Path

from colibri.core import wan
from colibri.core.errors import UserError

EMBEDDED = "tiny-ti2v"


def teacher_folder(name: str) -> Path:
    """The pipeline folder of a model; `tiny-ti2v` is the embedded one."""
    if name != EMBEDDED or Path(name).is_dir():
        return wan.find_folder(name)
    folder = Path(str(files("colibri.testbed"))) / "data" / EMBEDDED
    if not folder.is_dir():
        raise UserError(
            "this installation has no embedded model tiny-ti2v", hint="pass --teacher FOLDER"
        )
    return folder
