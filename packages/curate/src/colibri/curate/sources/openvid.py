"""OpenVid-1M and OpenVid-HD: CSVs under data/train, zips flat, big ones in parts, OpenVidHD.json.

Layout after NJU-PCALab/OpenVid-1M@215fa7d. Both CSVs list the HD clips, so reading both counts them
twice: one is chosen, and said.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from colibri.core import archive
from colibri.core.clip import Clip
from colibri.core.errors import UserError
from colibri.curate.sources.base import (
    Source,
    SourceConfig,
    SourceLayout,
    Videos,
    find_root,
    make_clip,
    one_column,
    read_csv,
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
_CLIP_NAME = re.compile(r"^(?P<video>.+?)_\d+(?:_\d+to\d+)?$")


class OpenVid:
    """OpenVid rows: a clip of a longer video, a long caption, and scores."""

    name = "openvid"
    licence = "cc-by-4.0"

    def find(self, data_root: Path, config: SourceConfig) -> SourceLayout | None:
        """Look for data/train/OpenVid*.csv."""
        root = find_root(data_root, config, self.name, "data/train/OpenVid*.csv")
        if root is None:
            return None
        tables, fact = self._tables(root, config.subset)
        column = one_column(
            tables[0], ("caption",), config.caption_column, "--openvid.caption-column", "caption"
        )
        folders = [root, *(root / name for name in ("OpenVidHD", "download", "zips"))]
        archives = tuple(p for f in folders if f.is_dir() for p in archive.first_parts(f))
        loose = tuple(
            f for f in (root / "video", root / "videos", root / "OpenVidHD") if f.is_dir()
        )
        facts = (
            fact,
            f"captions from column {column!r}",
            f"videos in {len(archives)} archives",
            *self._map_facts(root, data_root, archives),
        )
        return SourceLayout(
            name=self.name,
            data_root=data_root,
            root=root,
            tables=tables,
            archives=archives,
            loose=loose,
            caption_column=column,
            facts=facts,
        )

    def clips(self, layout: SourceLayout, config: SourceConfig) -> Iterator[Clip]:
        """Every row of the chosen tables."""
        assert layout.caption_column is not None
        source: Source = self
        videos, seen = Videos(layout), set[str]()
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
        note = "; clips in both are counted once" if len(wanted) == 2 else ""
        return tuple(present[key] for key in wanted), f"rows from {names}{note}"

    def _map_facts(
        self, root: Path, data_root: Path, archives: tuple[Path, ...]
    ) -> tuple[str, ...]:
        path = root / "OpenVidHD" / "OpenVidHD.json"
        if not path.exists():
            return ()
        try:
            parts = json.loads(path.read_text(encoding="utf-8"))
            mapped = {name for part in parts for names in part.values() for name in names}
        except (json.JSONDecodeError, AttributeError, TypeError):
            raise UserError(f"{path} is not a list of {{part: [file names]}}") from None
        layout = SourceLayout(
            name=self.name, data_root=data_root, root=root, tables=(), archives=archives
        )
        there = Videos(layout).members.keys()
        absent, unlisted = len(mapped - there), len(there - mapped)
        if not absent and not unlisted:
            return (f"{path.name} agrees with the archives",)
        return (f"{path.name}: {absent} files in no archive, {unlisted} in archives but not in it",)


def video_of(name: str) -> str:
    """The longer video that a clip was cut from: a YouTube id for `<id>_<scene>_<a>to<b>.mp4`."""
    stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    match = _CLIP_NAME.match(stem)
    return match["video"] if match else stem


def _labels(values: dict[str, str]) -> dict[str, str | float]:
    labels: dict[str, str | float] = {}
    for name in NUMBERS:
        try:
            labels[name] = float(values.get(name, ""))
        except ValueError:
            continue
    if values.get("camera motion"):
        labels["camera motion"] = values["camera motion"]
    return labels
