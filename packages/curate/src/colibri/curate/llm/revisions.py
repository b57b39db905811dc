"""Which model exactly: a name and a branch become a commit or a hash, and stay it for the run."""

import functools
import json
from pathlib import Path

from colibri.core.hashing import hash_file, hash_text
from colibri.core.shards import write_json_whole
from colibri.curate.llm.engines import Engine

SAMPLE_BYTES = 1 << 20
"""Read of each weight file of a local model."""


@functools.lru_cache(maxsize=64)
def resolved(kind: Engine, name: str, revision: str | None, record: Path) -> str | None:
    """Commit of a hub model, or a hash of a local folder's files; the first finding stays in
    `record`, so that a branch which moves on does not change a run.

    Behind an endpoint, or without a network and a cached copy: `revision` as it was given.
    """
    if kind in ("rules", "openai"):
        return revision
    known: dict[str, str | None] = {}
    if record.exists():
        known = json.loads(record.read_text(encoding="utf-8"))
    folder = Path(name)
    if folder.is_dir():
        return f"files:{_hash_folder(folder)}"
    key = f"{name}@{revision or 'main'}"
    if key not in known:
        commit = _commit(name, revision)
        if commit is None:
            return revision
        known[key] = commit
        if record.parent.is_dir():
            write_json_whole(record, known)
    return known[key]


def _commit(name: str, revision: str | None) -> str | None:
    """The commit by the hub, or by the copy in the hub's cache on this machine."""
    import httpx2
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        sha = HfApi().model_info(name, revision=revision, timeout=10).sha
        return sha if sha is None else str(sha)
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError, OSError, ValueError):
        repository = f"models--{name.replace('/', '--')}"
        reference = Path(constants.HF_HUB_CACHE) / repository / "refs" / (revision or "main")
        return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None


def _hash_folder(folder: Path) -> str:
    parts = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            parts += [path.name, hash_file(path)]
        elif path.suffix == ".safetensors":
            with path.open("rb") as file:
                sample = file.read(SAMPLE_BYTES)
            parts += [path.name, str(path.stat().st_size), hash_text(sample.hex())]
    return hash_text(*parts)[:16]
