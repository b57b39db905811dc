"""Hashes of model files, kept between runs: 20 GB are read once, not before every video."""

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from colibri.core import wan
from colibri.core.cache import cache_folder
from colibri.core.hashing import hash_file, hash_json
from colibri.core.shards import write_json_whole


def hash_parts(folder: Path, parts: tuple[str, ...]) -> str:
    """SHA-256 over the names and contents of the files in some parts of a model, in any layout."""
    files = [(part, path) for part in parts for path in wan.part_files(folder, part)]
    return hash_json([[part, path.name, hash_kept(path)] for part, path in files])


def hash_kept(path: Path) -> str:
    """SHA-256 of a file, remembered by its place, size and time of change."""
    real = path.resolve()
    if real.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", real.name):
        return real.name  # the hub's cache names its large files so
    status = real.stat()
    key = [str(real), status.st_size, status.st_mtime_ns]
    return remembered(key, lambda: hash_file(real))


def remembered(key: list[object], compute: Callable[[], str]) -> str:
    """`compute()`, once for each key on this machine."""
    note = cache_folder() / "hashes" / f"{hash_json(key)[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(note.read_text(encoding="utf-8"))
        if kept["key"] == key:
            return str(kept["value"])
    value = compute()
    with contextlib.suppress(OSError):  # a cache that cannot be written is none
        write_json_whole(note, {"key": key, "value": value})
    return value
