"""One's own code by name: `MODULE:NAME`, as `--upscale`, `--interpolate` and `--safety` take it."""

import importlib

from colibri.core.errors import UserError
from colibri.infer.hashes import hash_kept
from colibri.infer.recipe import PluginUse


def find_plugin(flag: str, name: str) -> tuple[object, PluginUse]:
    """What `MODULE:NAME` is, and its name with the hash of the module's file.

    UserError where it cannot be imported. `flag` is named in it.
    """
    from pathlib import Path

    module, _, attribute = name.partition(":")
    try:
        imported = importlib.import_module(module)
        found: object = getattr(imported, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{flag} {name} cannot be imported: {error}",
            hint="it has to be installed, or on PYTHONPATH",
        ) from None
    file = imported.__file__
    return found, PluginUse(name=name, sha256=hash_kept(Path(file)) if file else None)
