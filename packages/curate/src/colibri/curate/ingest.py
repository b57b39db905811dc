"""Read the sources' tables into one ordered list of rows to do, on disk.

Rows are spread over buckets by the first digits of their id and each bucket is sorted by itself, so
that memory does not grow with the number of rows. Reads no video, only their size and date.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from colibri.core.clip import Clip
from colibri.core.errors import UserError
from colibri.core.hashing import hash_file, hash_json, hash_text
from colibri.curate import stages
from colibri.curate.config import RunConfig, row_settings
from colibri.curate.sources import get_source
from colibri.curate.sources.base import LICENCES, Source, SourceConfig, SourceLayout
from colibri.curate.store import DONE_SCHEMA

BUCKETS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingested:
    """What the sources hold."""

    rows: int
    by_source: dict[str, int]
    inputs: dict[str, dict[str, str]]
    """Source -> its tables -> SHA-256."""
    facts: tuple[str, ...]
    """Choices that were made while looking: which column, which part."""
    folder: Path
    """One parquet file a bucket, rows by rising id."""


def find_sources(config: RunConfig, root: Path) -> list[tuple[Source, SourceLayout, SourceConfig]]:
    """The layout of each asked source. UserError when one is not there."""
    found = []
    for name in dict.fromkeys(config.sources):
        source = get_source(name)
        settings = source_config(config, name)
        layout = source.find(root, settings)
        if layout is None:
            raise UserError(
                f"there is no {name} data below {root}",
                hint=f"pass --{name}.root FOLDER, or leave {name} out of --sources",
            )
        found.append((source, layout, settings))
    if not found:
        raise UserError("--sources names no data set", hint="pass --sources magicmotion,openvid")
    return found


def source_config(config: RunConfig, name: str) -> SourceConfig:
    """The settings of one source; sources from outside have the defaults."""
    known = {
        "magicmotion": config.magicmotion,
        "openvid": config.openvid,
        "humanvid": config.humanvid,
    }
    return known.get(name, SourceConfig())


def ingest(config: RunConfig, root: Path, folder: Path) -> Ingested:
    """Write every row of every source below `folder`, by rising id."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings_hash = hash_json(row_settings(config))
    by_source: Counter[str] = Counter()
    inputs: dict[str, dict[str, str]] = {}
    facts: list[str] = []
    writers = _Buckets(folder)
    try:
        for source, layout, settings in find_sources(config, root):
            facts += [f"{source.name}: {fact}" for fact in layout.facts]
            inputs[source.name] = {
                path.relative_to(layout.root).as_posix()
                if path.is_relative_to(layout.root)
                else path.name: hash_file(path)
                for path in (*layout.tables, *layout.guides)
            }
            flagged, excluded = _is_flagged(source), is_excluded(config, source)
            if flagged:
                facts.append(
                    f"{source.name}: licence {source.licence} does not clearly allow training "
                    f"({'its rows are excluded' if excluded else 'kept'})"
                )
            dates = _FileDates(root)
            for clip in source.clips(layout, settings):
                by_source[source.name] += 1
                key = hash_text(
                    settings_hash,
                    clip.id,
                    clip.caption or "",
                    clip.ref.video,
                    clip.ref.member or "",
                    str(clip.ref.start_s),
                    repr(clip.problem),
                    config.licence_policy if flagged else "",
                    dates.of(clip),
                )[:32]
                row = stages.begin(
                    clip, key=key, exclude_licence=excluded, bearable=bearable(config)
                )
                writers.add(row)
    finally:
        writers.close()
    _sort_buckets(folder)
    return Ingested(
        rows=sum(by_source.values()),
        by_source=dict(by_source),
        inputs=inputs,
        facts=tuple(facts),
        folder=folder,
    )


def _is_flagged(source: Source) -> bool:
    licence = LICENCES.get(source.licence)
    return licence is None or licence.flagged


def is_excluded(config: RunConfig, source: Source) -> bool:
    """True where --licence-policy drops all rows of a source."""
    return config.licence_policy == "exclude" and _is_flagged(source)


def bearable(config: RunConfig) -> frozenset[str]:
    """Problems of a clip that this run can live with."""
    described = frozenset({"no_caption"} if config.describer != "rules" else ())
    return described | (stages.NO_VIDEO if config.frame.reader == "none" else frozenset())


def ingested_rows(folder: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """All rows by rising id."""
    for path in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024, columns=columns):
                yield from batch.to_pylist()


class _FileDates:
    """Size and date of a clip's file, so that a replaced video is decoded again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._archives: dict[str, str] = {}

    def of(self, clip: Clip) -> str:
        if clip.problem:
            return ""
        if clip.ref.member is None:
            return self._stat(clip.ref.video)
        if clip.ref.video not in self._archives:
            self._archives[clip.ref.video] = self._stat(clip.ref.video)
        return self._archives[clip.ref.video]

    def _stat(self, video: str) -> str:
        try:
            status = (self._root / video).stat()
        except (OSError, ValueError):
            return "missing"
        return f"{status.st_size}:{status.st_mtime_ns}"


class _Buckets:
    """Rows written to the file of their bucket, a few hundred at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[int, list[dict[str, Any]]] = {}
        self._writers: dict[int, pq.ParquetWriter] = {}

    def add(self, row: dict[str, Any]) -> None:
        bucket = int(row["id"][:4], 16) * BUCKETS >> 16
        waiting = self._waiting.setdefault(bucket, [])
        waiting.append(row)
        if len(waiting) == 256:
            self._flush(bucket)

    def close(self) -> None:
        for bucket in list(self._waiting):
            self._flush(bucket)
        for writer in self._writers.values():
            writer.close()

    def _flush(self, bucket: int) -> None:
        rows = self._waiting.pop(bucket, [])
        if not rows:
            return
        if bucket not in self._writers:
            path = self._folder / f"{bucket:02d}.parquet"
            self._writers[bucket] = pq.ParquetWriter(path, DONE_SCHEMA, compression="zstd")
        self._writers[bucket].write_table(pa.Table.from_pylist(rows, schema=DONE_SCHEMA))


def _sort_buckets(folder: Path) -> None:
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path, schema=DONE_SCHEMA)
        pq.write_table(_unique_ids(table).sort_by("id"), path, compression="zstd")


def _unique_ids(table: pa.Table) -> pa.Table:
    """Rows that name the same clip twice get ids of their own, so that none is lost in counting."""
    rows = table.to_pylist()
    # A usable row before its duplicates; then by content, never by the order of arrival.
    rows.sort(key=lambda row: (row["id"], row["reason"] is not None, row["key"]))
    seen: Counter[str] = Counter()
    for row in rows:
        seen[row["id"]] += 1
        if (copy := seen[row["id"]]) > 1:
            row["key"] = hash_text(row["key"], str(copy))[:32]
            row["id"] = f"{row['id']}-{copy}"
            if not row["reason"]:
                row["reason"], row["stage"] = "duplicate_row", "ingest"
                row["error"] = "the source lists this clip more than once"
    return pa.Table.from_pylist(rows, schema=DONE_SCHEMA)


def with_embedded_sample(config: RunConfig, sample: Path) -> RunConfig:
    """The config that runs on the embedded sample, HumanVid's own captions file included."""
    captions = sample / "HumanVid" / "captions.csv"
    humanvid = config.humanvid
    if humanvid.captions is None:
        humanvid = replace(humanvid, captions=str(captions))
    return replace(config, data_root=sample, humanvid=humanvid)
