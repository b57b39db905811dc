"""Curated shards to a trainer's own files: check each row, put its video in place, write the table.

A row that the trainer would turn into something else is refused with a reason, in refused.jsonl.
Every file appears whole or not at all; the same command goes on where it was stopped, and ends with
the same bytes.
"""

import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from colibri.core.clip import VideoRef
from colibri.core.errors import RowError, UserError
from colibri.core.progress import Progress
from colibri.core.shards import read_rows, write_json_whole, write_whole
from colibri.curate.export import fastvideo, folder, hummingbird, videox_fun, webdataset
from colibri.curate.export.base import (
    Entry,
    ExportConfig,
    ExportCounts,
    Format,
    Row,
    Sampling,
    VideoMode,
    check_text,
    counted,
    sampling_of,
)
from colibri.curate.export.checks import (
    NOTE,
    REFUSED,
    check_flags,
    data_root,
    finished_run,
    own_folder,
    remove_strays,
)
from colibri.curate.export.videos import check_ref, measure, place
from colibri.curate.store import exclusive

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (hummingbird, videox_fun, fastvideo, webdataset, folder)
}

COLUMNS = ("id", "source", "video", "member", "start_s", "caption", "licence", "split")


def export(config: ExportConfig) -> ExportCounts:
    """Write `config.to`. UserError for a folder, flag or hub that does not fit."""
    shards, manifest = finished_run(config.out)
    check_flags(config)
    work = (
        partial(_push, config, shards, manifest)
        if config.format == "hub"
        else _prepared(config, FORMATS[config.format], shards)
    )
    with exclusive(own_folder(config)):
        write_json_whole(config.to / NOTE, {"format": config.format})
        try:
            return work()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise UserError(
                    "the disk is full", hint="free some space and run the same command again"
                ) from None
            raise


def _prepared(config: ExportConfig, kind: Format, shards: list[Path]) -> Callable[[], ExportCounts]:
    """The work, once it is clear that the flags fit; nothing is written yet."""
    sampling = sampling_of(config, kind)
    mode = config.videos or (kind.modes[0] if kind.modes else None)
    if mode is not None and mode not in kind.modes:
        known = " or ".join(kind.modes) or "no --videos: they go into the tars"
        raise UserError(
            f"--videos {mode} has no meaning for --format {kind.name}", hint=f"it takes {known}"
        )
    return partial(_export, config, kind, shards, sampling, mode, data_root(config))


def _export(
    config: ExportConfig,
    kind: Format,
    shards: list[Path],
    sampling: Sampling,
    mode: VideoMode | None,
    root: Path,
) -> ExportCounts:
    refusals = _Refusals(root)
    total = sum(pq.read_metadata(shard).num_rows for shard in shards)
    progress = Progress("export", total)
    wanted = config.split or "train"
    rows = other = 0
    videos: set[str] = set()

    def take(row: Row) -> Entry:
        check_text(row.id, row.caption)
        check_ref(row.ref, kind.endings, mode)
        entry = measure(row, root, decode=config.decode)
        kind.check(entry, sampling)
        if mode is None:
            return entry
        entry = replace(entry, path=place(entry, root, config.to, kind.videos_folder, mode))
        assert entry.path is not None
        if not entry.path.is_absolute():
            videos.add(entry.path.name)
        return entry

    def entries() -> Iterator[Entry]:
        nonlocal rows, other
        for fields in _sorted_rows(shards):
            if wanted not in ("all", fields["split"]):
                other += 1
                progress.add()
                continue
            rows += 1
            try:
                entry = take(_row(fields))
            except RowError as error:
                refusals.add(fields, error)
                progress.add(refused=1)
                continue
            progress.add()
            yield entry

    try:
        names = kind.write(entries(), config, root)
    finally:
        progress.close()
    refusals.write(config.to / REFUSED)
    if mode in ("copy", "link"):
        (config.to / kind.videos_folder).mkdir(exist_ok=True)  # its trainer wants it, even empty
    remove_strays(config.to / kind.videos_folder, videos | names)
    remove_strays(config.to, videos | names)
    return counted(rows, refusals.entries, other, str(config.to / kind.table))


def _push(config: ExportConfig, shards: list[Path], manifest: dict[str, Any]) -> ExportCounts:
    from colibri.curate.export.hub import push

    refusals = _Refusals(None)
    try:
        names, rows, other, address = push(config, shards, manifest, refusals.add)
    finally:
        refusals.write(config.to / REFUSED)
    remove_strays(config.to, set())
    remove_strays(config.to / "data", {Path(name).name for name in names})
    return counted(rows, refusals.entries, other, address)


class _Refusals:
    """Rows that were not taken, in the order of their ids."""

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self.entries: list[dict[str, str | None]] = []

    def add(self, fields: dict[str, Any], error: RowError) -> None:
        message = error.message
        if self._root is not None:
            message = message.replace(f"{self._root}/", "")
        self.entries.append(
            {name: fields[name] for name in ("id", "source", "video", "member")}
            | {"reason": error.reason, "message": message}
        )

    def write(self, path: Path) -> None:
        lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in self.entries)
        text = "".join(lines).encode("utf-8", "surrogateescape")
        write_whole(path, lambda temporary: temporary.write_bytes(text))


def _row(fields: dict[str, Any]) -> Row:
    return Row(
        id=fields["id"],
        ref=VideoRef(video=fields["video"], member=fields["member"], start_s=fields["start_s"]),
        source=fields["source"],
        caption=fields["caption"] or "",
        licence=fields["licence"] or "",
        split=fields["split"],
    )


def _sorted_rows(shards: list[Path]) -> Iterator[dict[str, Any]]:
    last = ""
    for shard in shards:
        for fields in read_rows(shard, COLUMNS):
            if fields["id"] <= last:
                raise UserError(
                    f"the ids in {shard} do not rise", hint="write the shards with curate run again"
                )
            last = fields["id"]
            yield fields
