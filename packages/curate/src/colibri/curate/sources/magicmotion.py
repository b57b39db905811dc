"""MagicMotion's MagicData: MagicData.csv, videos/ or videos.zip.part_*, masks/, boxs/.

Layout after the quanhaol/MagicData data card and quanhaol/MagicMotion issue 14. The caption
column's name is not documented, so it is found among candidates or said by the user.
"""

from collections.abc import Iterator
from pathlib import Path

from colibri.core import archive
from colibri.core.clip import Clip
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

TABLE = "MagicData.csv"
CAPTION_COLUMNS = ("caption", "text", "prompt", "description")
VIDEO_COLUMNS = ("video_path", "path", "video", "videoid")


class MagicMotion:
    """MagicData rows: a video and a short, action-like caption."""

    name = "magicmotion"
    licence = "apache-2.0"

    def find(self, data_root: Path, config: SourceConfig) -> SourceLayout | None:
        """Look for MagicData.csv."""
        root = find_root(data_root, config, self.name, TABLE)
        if root is None:
            return None
        table = root / TABLE
        column = one_column(
            table, CAPTION_COLUMNS, config.caption_column, "--magicmotion.caption-column", "caption"
        )
        archives = tuple(path for path in archive.first_parts(root) if "video" in path.name)
        loose = (root / "videos",) if (root / "videos").is_dir() else ()
        facts = [f"captions from column {column!r} of {TABLE}"]
        facts += [
            f"videos in {path.name} ({len(archive.parts_of(path))} parts)" for path in archives
        ]
        facts += [f"videos in {folder.name}/" for folder in loose]
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
        videos, seen = Videos(layout), set[str]()
        names = columns_of_videos(layout.tables[0])
        for row in read_csv(layout.tables[0]):
            name = next((row.values[column] for column in names if row.values.get(column)), "")
            if name and "/" not in name and "." not in name:
                name = f"videos/{name}.mp4"
            yield make_clip(
                source,
                videos,
                name=name or f"line {row.line}",
                caption=row.values.get(layout.caption_column),
                group=name.rsplit("/", 1)[-1].rsplit(".", 1)[0],
                labels={},
                seen=seen,
                problem=row.problem or (None if name else "the row names no video"),
            )


def columns_of_videos(table: Path) -> list[str]:
    """The columns that can name a row's video, best first."""
    from colibri.curate.sources.base import columns_of

    names = columns_of(table)
    return [column for column in VIDEO_COLUMNS if column in names]
