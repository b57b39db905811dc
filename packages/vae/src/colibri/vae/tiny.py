"""The tiny Wan VAE that ships with the testbed: what `vae train` learns from by itself."""

from importlib.resources import as_file, files
from pathlib import Path

from colibri.core.errors import UserError


def tiny_teacher() -> Path:
    """Its folder. UserError where this installation carries no weights."""
    with as_file(files("colibri.testbed") / "data") as folder:
        found = sorted(folder.glob("**/vae/config.json"))
    if not found:
        raise UserError("this installation carries no tiny Wan VAE", hint="pass --teacher FOLDER")
    return found[0].parent
