"""What a run's folder or a student's folder holds, in a few facts. Reads no weights."""

import json
from pathlib import Path
from typing import Any

from colibri.core.errors import UserError


def about(folder: Path) -> dict[str, Any]:
    """Facts of a student (its provenance) or of a run (step, last figures, checkpoints)."""
    student = folder / "distill.json"
    if student.is_file():
        return _json(student)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is neither a run of distill train nor a student")
    checkpoints = sorted(
        path.name
        for path in (folder / "checkpoints").glob("step-*")
        if (path / "state.json").is_file()
    )
    log = folder / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return {
        "config": _json(folder / "config.json"),
        "checkpoints": checkpoints,
        "steps_logged": len(lines),
        "last": _last(lines),
        "student": str(folder / "student") if (folder / "student").is_dir() else None,
    }


def _last(lines: list[str]) -> dict[str, Any] | None:
    for line in reversed(lines):
        try:
            value = json.loads(line)
        except ValueError:  # cut by a kill
            continue
        return dict(value)
    return None


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
