"""OpenVid-1M and OpenVid-HD: CSVs under data/train, zips flat, big ones in parts, OpenVidHD.json.

Layout after NJU-PCALab/OpenVid-1M@215fa7d. Both CSVs list the HD clips, so reading both counts them
twice: one is chosen, and said.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from colibri.core import archive
from colibri.core.clip import Clip, VideoRef
from colibri.core.errors import UserError
from colibri.curate.sources.base import (
    Source,
    SourceConfig,
    SourceLayout,
    Videos,
    base_name,
    find_root,
    make_clip,
    one_column,
    read_csv,
    refuse,
)

TABLES = {"hd": "OpenVidHD.csv", "1m": "OpenVid-1M.csv"}
NUMBERS = (
    "aesthetic score",
    "motion score",
    "temporal consistency score",
    "frame",
    "fps",
    "seconds",
)
# <video>_<scene>_<first>to<last>, or <set>_<YouTube id of 11 characters>_<scene>
_CLIP_NAME = re.compile(
    r"(?P<video>.+?)_\d+_\d+to\d+|(?P<other>(?:.*_)?[\w-]{11})_\d+", re.ASCII | re.DOTALL
)
_PART = re.compile(r"part_?(?P<number>\d+)(?!.*part_?\d)", re.ASCII | re.IGNORECASE)


class OpenVid:
    """OpenVid rows: a clip of a longer video, a long caption, and scores."""

    name = "openvid"
    licence = "cc-by-4.0"

    def find(self, data_root: Path, config: SourceConfig) -> SourceLayout | None:
        """Look for data/train/OpenVid*.csv."""
        refuse(config, self.name, "captions")
        root = find_root(data_root, config, self.name, "data/train/OpenVid*.csv")
        if root is None:
            return None
        tables, fact = self._tables(root, config.subset)
        flag = "--openvid.caption-column"
        for table in tables:
            column = one_column(table, ("caption",), config.caption_column, flag, "caption")
            one_column(table, ("video",), None, "a column called video", "video")
        folders = [root, *(root / name for name in ("OpenVidHD", "download", "zips"))]
        archives = tuple(p for f in folders if f.is_dir() for p in archive.first_parts(f))
        loose = tuple(
            f for f in (root / "video", root / "videos", root / "OpenVidHD") if f.is_dir()
        )
        layout = SourceLayout(
            name=self.name,
            data_root=data_root,
            root=root,
            tables=tables,
            guides=tuple(path for path in (_map_path(root),) if path.exists()),
            archives=archives,
            loose=loose,
            caption_column=column,
        )
        facts = (
            fact,
            f"captions from column {column!r}",
            f"videos in {len(archives)} archives and {len(loose)} folders",
            *_map_facts(layout),
        )
        return replace(layout, facts=facts)

    def clips(self, layout: SourceLayout, config: SourceConfig) -> Iterator[Clip]:
        """Every row of the chosen tables."""
        assert layout.caption_column is not None
        source: Source = self
        videos, seen = Videos(layout), set[VideoRef]()
        archive_of = _archive_of(layout)
        for table in layout.tables:
            for row in read_csv(table):
                name = row.values.get("video", "")
                yield make_clip(
                    source,
                    videos,
                    name=name or f"{table.name} line {row.line}",
                    caption=row.values.get(layout.caption_column),
                    group=video_of(name),
                    labels=_labels(row.values),
                    seen=seen,
                    problem=row.problem or (None if name else "the row names no video"),
                    archive_of=archive_of,
                )

    def _tables(self, root: Path, subset: str | None) -> tuple[tuple[Path, ...], str]:
        folder = root / "data" / "train"
        present = {key: folder / name for key, name in TABLES.items() if (folder / name).exists()}
        if subset is None:
            if not present:
                raise UserError(f"{folder} holds neither {' nor '.join(TABLES.values())}")
            subset = "hd" if "hd" in present else "1m"
        if subset not in ("hd", "1m", "both"):
            raise UserError(f"--openvid.subset {subset} is unknown", hint="use hd, 1m or both")
        wanted = ("hd", "1m") if subset == "both" else (subset,)
        for key in wanted:
            if key not in present:
                raise UserError(f"{folder / TABLES[key]} is missing", hint="see --openvid.subset")
        names = " and ".join(TABLES[key] for key in wanted)
        note = "; a clip in both is used once" if len(wanted) == 2 else ""
        unread = [TABLES[key] for key in present if key not in wanted]
        if unread:
            note = f"; {unread[0]} is there too, not read (--openvid.subset both reads it)"
        return tuple(present[key] for key in wanted), f"rows from {names}{note}"


def _map_path(root: Path) -> Path:
    return root / "OpenVidHD" / "OpenVidHD.json"


def read_map(root: Path) -> dict[str, int] | None:
    """File name -> number of its part, by OpenVidHD.json; None where there is no map.

    UserError when the map is not a list of {part: [file names]}.
    """
    path = _map_path(root)
    if not path.exists():
        return None
    parts: dict[str, int] = {}
    try:
        for entry in json.loads(path.read_text(encoding="utf-8")):
            for part, names in entry.items():
                match = _PART.search(part)
                if match is None or not isinstance(names, list):
                    raise ValueError(part)
                parts.update((base_name(name), int(match["number"])) for name in names)
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise UserError(
            f"{path} is not a list of {{part: [file names]}}", hint="fetch it again, or remove it"
        ) from None
    return parts


def _archives_by_part(layout: SourceLayout) -> dict[int, str]:
    """Number of a part of OpenVid-HD -> its archive, relative to the data root."""
    found = {}
    for path in layout.archives:
        match = _PART.search(path.name)
        if match and path.name.startswith("OpenVidHD"):
            found[int(match["number"])] = path.relative_to(layout.data_root).as_posix()
    return found


def _archive_of(layout: SourceLayout) -> dict[str, str]:
    archives = _archives_by_part(layout)
    absent = "OpenVidHD_part_{}.zip, which is not on disk"
    parts = read_map(layout.root) or {}
    return {name: archives.get(part, absent.format(part)) for name, part in parts.items()}


def _map_facts(layout: SourceLayout) -> tuple[str, ...]:
    parts = read_map(layout.root)
    if parts is None:
        return ()
    archives = _archives_by_part(layout)
    videos = Videos(layout)
    names = videos.names()
    found: Counter[str] = Counter()
    for name, part in parts.items():
        if part not in archives:
            found["files of parts that are not on disk"] += name not in names
        else:
            found["files that are not where it says"] += name not in names
    hd = set(archives.values())
    for ref in videos.archived():
        name = base_name(ref.member or "")
        if ref.video in hd and name not in parts:
            found["files in archives but not in it"] += 1
        elif ref.video in hd and archives.get(parts[name]) != ref.video:
            found["files in another part than it says"] += 1
    differs = [f"{count:,} {what}" for what, count in found.items() if count]
    if not differs:
        return ("OpenVidHD.json agrees with the archives",)
    return (f"OpenVidHD.json: {', '.join(differs)}",)


def video_of(name: str) -> str:
    """The longer video that a clip was cut from: a YouTube id for `<id>_<scene>_<a>to<b>.mp4`."""
    stem = base_name(name).rsplit(".", 1)[0]
    match = _CLIP_NAME.fullmatch(stem)
    return match["video"] or match["other"] if match else stem


def _labels(values: dict[str, str]) -> dict[str, str | float]:
    labels: dict[str, str | float] = {}
    for name in NUMBERS:
        try:
            number = float(values.get(name, ""))
        except ValueError:
            continue
        if math.isfinite(number):
            labels[name] = number
    if values.get("camera motion"):
        labels["camera motion"] = values["camera motion"]
    return labels
