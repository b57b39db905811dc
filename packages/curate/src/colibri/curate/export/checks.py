"""What has to be right around an export: the run it reads, its own folder, its flags."""

import json
import re
from pathlib import Path
from typing import Any

from colibri.core.errors import UserError
from colibri.curate.export.base import ExportConfig

NOTE, REFUSED = "export.json", "refused.jsonl"

_OURS = re.compile(
    r"\..+\.part|[0-9A-Za-z_-]+\.(mp4|mkv|webm|mov|avi|txt)|shard-\d+\.(tar|parquet)"
)
"""Names that an export gives; other files in DIR are never touched."""


def finished_run(out: Path) -> tuple[list[Path], dict[str, Any]]:
    """Shards and manifest of a run. UserError when it is not there or not finished."""
    try:
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        shards = [out / shard["path"] for shard in manifest["shards"]]
    except FileNotFoundError:
        raise UserError(
            f"{out} holds no manifest.json, so no finished run",
            hint="name the --out of curate run, and let it finish first",
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{out / 'manifest.json'} is damaged", hint="run curate again") from None
    for shard in shards:
        if not shard.is_file():
            raise UserError(f"{shard} is missing", hint="run curate run again, it writes it anew")
    return shards, manifest


def own_folder(config: ExportConfig) -> Path:
    """`config.to`, once it is clear that nobody else's files lie there."""
    note = config.to / NOTE
    if note.is_file():
        held = json.loads(note.read_text(encoding="utf-8")).get("format")
        if held != config.format:
            raise UserError(f"{config.to} holds an export for {held}", hint="choose another --to")
    elif config.to.exists() and (
        not config.to.is_dir() or any(path.name != ".lock" for path in config.to.iterdir())
    ):
        raise UserError(f"{config.to} is not empty and no export", hint="choose another --to")
    return config.to


def data_root(config: ExportConfig) -> Path:
    """The folder of the data sets: the one given, or the one that the run noted."""
    root, hint = config.data_root, "pass --data-root DATA, the folder that holds the data sets"
    if root is None:
        try:
            saved = json.loads((config.out / "state" / "run.json").read_text(encoding="utf-8"))
            root = Path(saved["data_root"])
        except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
            raise UserError(f"{config.out} does not tell its data root", hint=hint) from None
    if not root.is_dir():
        raise UserError(f"there is no folder {root}", hint=hint)
    return root.resolve()


def check_flags(config: ExportConfig) -> None:
    """UserError for a flag that the format would not honour."""
    if config.shard_rows < 1:
        raise UserError("--shard-rows has to be at least 1")
    for_hub = {"--repo": config.repo is not None, "--public": config.public}
    not_for_hub = {
        "--videos": config.videos is not None,
        "--data-root": config.data_root is not None,
        "--decode": config.decode,
        "--frames": config.frames is not None,
        "--stride": config.stride is not None,
        "--train-fps": config.train_fps is not None,
        "--size": config.size is not None,
        "--max-stretch": config.max_stretch is not None,
    }
    given = not_for_hub if config.format == "hub" else for_hub
    for flag in (flag for flag, used in given.items() if used):
        raise UserError(f"{flag} has no meaning for --format {config.format}", hint="leave it out")


def remove_strays(folder: Path, names: set[str]) -> None:
    """Remove what earlier, other or killed exports left under names of ours."""
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.name not in names and _OURS.fullmatch(path.name) and not path.is_dir():
                path.unlink()
