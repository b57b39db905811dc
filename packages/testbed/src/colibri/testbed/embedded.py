"""The tiny models and decoders that come with the package, as folders that load anywhere."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from colibri.core.cache import cache_folder
from colibri.core.errors import UserError
from colibri.core.hashing import hash_json

DATA = Path(__file__).parent / "data"
PREFIX = "embedded:"
"""Before a name, where folders and hub ids can be given as well."""
TEACHER = "tiny-ti2v"
"""50 steps with guidance."""
STUDENT = "tiny-ti2v-3step"
"""Its student: 3 steps without guidance."""
LONG = "tiny-long"
"""Its causal student: videos of any length, block after block."""
LIGHT = "tiny-light"
"""A causal light decoder for their latents."""


def embedded_model(name: str) -> Path:
    """The folder of an embedded model or decoder; UserError where there is none of that name.

    A student is kept without the parts that it shares with its teacher: they are put together in
    the user's cache at first use.
    """
    own = DATA / name.removeprefix(PREFIX)
    if (own / "config.json").is_file():
        return own  # a decoder
    if not (own / "model_index.json").is_file():
        kinds = ("model_index.json", "config.json")
        names = sorted(path.parent.name for kind in kinds for path in DATA.glob(f"*/{kind}"))
        raise UserError(
            f"this installation holds no embedded model {own.name!r}",
            hint=f"it has {', '.join(names)}" if names else "name a folder or a hub id",
        )
    index = json.loads((own / "model_index.json").read_text("utf-8"))
    parts = [name for name, kind in index.items() if isinstance(kind, list) and kind[0]]
    shared = [part for part in parts if not (own / part).is_dir()]
    return _joined(own, [DATA / TEACHER / part for part in shared]) if shared else own


def _joined(own: Path, shared: list[Path]) -> Path:
    state = [
        [path.as_posix(), path.stat().st_size, path.stat().st_mtime_ns]
        for folder in (own, *shared)
        for path in sorted(folder.rglob("*"))
    ]
    folder = cache_folder() / "embedded" / hash_json(state)[:16] / own.name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        shutil.copytree(own, temporary, dirs_exist_ok=True)
        for part in shared:
            shutil.copytree(part, temporary / part.name)
        temporary.chmod(0o755)
        os.replace(temporary, folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        if not folder.is_dir():  # else another process was faster
            raise
    return folder
