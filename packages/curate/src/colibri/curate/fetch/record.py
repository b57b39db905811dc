"""DATA/fetch.json: which commit of which repository the files of each data set come from."""

import json
import os
from pathlib import Path
from typing import Any

from colibri.core.errors import UserError
from colibri.curate.fetch.hub import Repository

RECORD = "fetch.json"


def recorded_commit(folder: Path, name: str, repository: str) -> str | None:
    """The commit that an earlier fetch took, if it was from the same repository."""
    entry = _read_record(folder)["sources"].get(name, {})
    return entry.get("revision") if entry.get("repo") == repository else None


def write_commit(folder: Path, name: str, repository: Repository) -> None:
    """Write down which commit the files of a source come from."""
    record = _read_record(folder)
    record["sources"][name] = {"repo": repository.name, "revision": repository.commit}
    path = folder / RECORD
    fresh = path.with_name(RECORD + ".part")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(json.dumps(record, indent=2, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if isinstance(record, dict) and isinstance(record.get("sources"), dict):
            return record
    except FileNotFoundError:
        return {"format": 1, "sources": {}}
    except ValueError:
        pass
    raise UserError(f"{folder / RECORD} is not a record of curate fetch", hint="move it away")
