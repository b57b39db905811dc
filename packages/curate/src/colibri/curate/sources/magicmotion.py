"""MagicMotion's MagicData: MagicData.csv, videos/ or videos.zip.part_*, masks/, boxs/.

Layout after the quanhaol/MagicData data card and quanhaol/MagicMotion issue 14. The caption
column's name is not documented, so it is found among candidates or said by the user.
"""

from collections.abc import Iterator
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
    columns_of,
    find_root,
    make_clip,
    one_column,
    orphan_parts,
    read_csv,
    refuse,
)

TABLE = "MagicData.csv"
CAPTION_COLUMNS = ("caption", "text", "prompt", "description")
PATH_COLUMNS = ("video_path", "path", "video")
ID_COLUMN = "videoid"


class MagicMotion:
    """MagicData rows: a video and a short, action-like caption."""

    name = "magicmotion"
    licence = "apache-2.0"

    def find(self, data_root: Path, config: SourceConfig) -> SourceLayout | None:
        """Look for MagicData.csv."""
        refuse(config, self.name, "captions", "subset")
        root = find_root(data_root, config, self.name, TABLE)
        if root is None:
            return None
        table = root / TABLE
        column = one_column(
            table, CAPTION_COLUMNS, config.caption_column, "--magicmotion.caption-column", "caption"
        )
        zips = archive.first_parts(root)
        archives = tuple(path for path in zips if "video" in path.name.lower())
        loose = (root / "videos",) if (root / "videos").is_dir() else ()
        facts = [
            f"captions from column {column!r} of {TABLE}",
            f"videos named by column {', else '.join(map(repr, video_columns(table)))}",
            *(f"videos in {folder.name}/" for folder in loose),
            *(f"videos in {_with_parts(path)}" for path in archives),
        ]
        if loose and archives:
            facts.append("a clip that lies unpacked is read from its plain file")
        unread = [path.name for path in zips if path not in archives]
        unread += [path.name for path in root.glob("*.csv") if path.name != TABLE]
        if unread:
            facts.append(f"not read: {', '.join(sorted(unread))}")
        if not archives and not loose and not orphan_parts(root):
            facts.append("no videos/ and no videos.zip beside the table")
        return SourceLayout(
            name=self.name,
            data_root=data_root,
            root=root,
            tables=(table,),
            archives=archives,
            loose=loose,
            caption_column=column,
            facts=tuple(facts),
        )

    def clips(self, layout: SourceLayout, config: SourceConfig) -> Iterator[Clip]:
        """Every row of the table."""
        assert layout.caption_column is not None
        source: Source = self
        videos, seen = Videos(layout), set[VideoRef]()
        names = video_columns(layout.tables[0])
        for row in read_csv(layout.tables[0]):
            name = next((row.values[column] for column in names if row.values.get(column)), "")
            if name and "/" not in name and "." not in name:
                name = f"videos/{name}.mp4"
            yield make_clip(
                source,
                videos,
                name=name or f"line {row.line}",
                caption=row.values.get(layout.caption_column),
                group=base_name(name).rsplit(".", 1)[0],
                labels={},
                seen=seen,
                problem=row.problem or (None if name else "the row names no video"),
            )


def video_columns(table: Path) -> list[str]:
    """The columns that name a row's video: its path, and its id for rows without a path."""
    lowered = {name.lower(): name for name in columns_of(table)}
    paths = [lowered[name] for name in PATH_COLUMNS if name in lowered]
    if len(paths) > 1:
        raise UserError(
            f"{table.name}: the video's path could be {' or '.join(map(repr, paths))}",
            hint="take one of these columns out of the table",
        )
    found = paths + [lowered[name] for name in (ID_COLUMN,) if name in lowered]
    if not found:
        known = ", ".join((*PATH_COLUMNS, ID_COLUMN))
        raise UserError(f"{table.name} names no videos", hint=f"it needs one column of {known}")
    return found


def _with_parts(path: Path) -> str:
    try:
        count = len(archive.parts_of(path))
    except UserError as error:
        return f"{path.name}: {error}"
    return path.name if count == 1 else f"{path.name} and on, {count} parts"
