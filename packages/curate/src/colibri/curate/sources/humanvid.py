"""HumanVid's Pexels part: URL lists, downloaded clips, and no captions at all.

Layout after zhenzhiwang/HumanVid@28ff734. A clip's size and rate stand in its file name. Captions
come from the user's file, or every row is refused with that reason.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

from colibri.core.clip import Clip, VideoRef
from colibri.core.errors import UserError
from colibri.curate.sources.base import (
    Source,
    SourceConfig,
    SourceLayout,
    Videos,
    find_root,
    make_clip,
    read_captions,
    refuse,
)

LISTS = "pexels-*-urls*.txt"
FOLDERS = ("videos", "pexels-my-h", "pexels-my-v")
RENDERED = ("training_video", "3d_video_*", "generated_video_*")
_NAME = re.compile(
    r"(?P<id>\d{1,20})-\w+_(?P<width>\d{1,5})_(?P<height>\d{1,5})_(?P<fps>\d{1,3}(\.\d{1,6})?)fps",
    re.ASCII,
)


class HumanVid:
    """HumanVid rows: a URL each; the video is the file of that name on disk."""

    name = "humanvid"
    licence = "pexels"

    def find(self, data_root: Path, config: SourceConfig) -> SourceLayout | None:
        """Look for the URL lists."""
        refuse(config, self.name, "caption_column")
        if config.subset not in (None, "pexels"):
            raise UserError(
                f"--humanvid.subset {config.subset} cannot be read",
                hint="only the Pexels part can: the rendered part has neither a list nor a text",
            )
        root = find_root(data_root, config, self.name, LISTS)
        if root is None:
            return None
        lists = sorted(root.glob(LISTS))
        # The lists without -new are withdrawn: HumanVid's README declares them invalid.
        tables = tuple(path for path in lists if "-new" in path.name) or tuple(lists)
        loose = tuple(folder for name in FOLDERS if (folder := root / name).is_dir())
        facts = [f"clips from {', '.join(path.name for path in tables)}"]
        if len(tables) < len(lists):
            old = ", ".join(path.name for path in lists if path not in tables)
            facts.append(f"not read: {old}, which the -new lists replace")
        folders = ", ".join(f"{folder.name}/" for folder in loose)
        facts.append(f"videos in {folders}" if loose else f"none of {', '.join(FOLDERS)} is there")
        if any(next(root.glob(pattern), None) for pattern in RENDERED):
            facts.append("the rendered part is not read: it has no text")
        if config.captions is None:
            facts.append("HumanVid has no captions; pass --humanvid.captions FILE to use it")
        else:
            path = Path(config.captions)
            if not path.is_file():
                raise UserError(
                    f"there is no caption file {path}", hint="check --humanvid.captions"
                )
            facts.append(f"captions for {len(read_captions(path)):,} files from {path.name}")
            tables = (*tables, path)
        return SourceLayout(
            name=self.name,
            data_root=data_root,
            root=root,
            tables=tables,
            loose=loose,
            facts=tuple(facts),
        )

    def clips(self, layout: SourceLayout, config: SourceConfig) -> Iterator[Clip]:
        """Every URL of the lists."""
        source: Source = self
        captions = read_captions(Path(config.captions)) if config.captions else {}
        videos, seen = Videos(layout), set[VideoRef]()
        lists = layout.tables[:-1] if config.captions else layout.tables
        for table, number, line in _lines(lists):
            name = _file_name(line)
            place = f"{table.name} line {number}"
            stem = name.rsplit(".", 1)[0]
            labels: dict[str, str | float] = {"list": table.stem}
            if match := _NAME.fullmatch(stem):
                labels |= {key: float(match[key]) for key in ("width", "height", "fps")}
            clip = make_clip(
                source,
                videos,
                name=name or place,
                caption=next(iter(captions.get(name, ())), None),
                group=match["id"] if match else stem,
                labels=labels,
                seen=seen,
                problem=None if "." in name else f"{place} is not a video's URL",
            )
            yield _one_caption(clip, captions, name)


def _lines(lists: tuple[Path, ...]) -> Iterator[tuple[Path, int, str]]:
    for path in lists:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield path, number, line.strip()


def _file_name(url: str) -> str:
    try:
        return urlparse(url).path.rsplit("/", 1)[-1]
    except ValueError:  # brackets that are no IPv6 address
        return ""


def _one_caption(clip: Clip, captions: Mapping[str, tuple[str, ...]], name: str) -> Clip:
    count = len(captions.get(name, ()))
    if clip.problem or count < 2:
        return clip
    message = f"the caption file gives {count} different captions for {name!r}"
    return replace(clip, problem=("ambiguous_caption", message))
