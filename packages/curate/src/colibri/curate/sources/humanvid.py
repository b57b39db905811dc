"""HumanVid's Pexels part: URL lists, downloaded clips, and no captions at all.

Layout after zhenzhiwang/HumanVid@28ff734. A clip's size and rate stand in its file name. Captions
come from the user's file, or every row is refused with that reason.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

from colibri.core.clip import Clip
from colibri.core.errors import UserError
from colibri.curate.sources.base import (
    Source,
    SourceConfig,
    SourceLayout,
    Videos,
    find_root,
    make_clip,
    read_captions,
)

LISTS = "pexels-*-urls*.txt"
_NAME = re.compile(r"^(?P<id>\d+)-\w+_(?P<width>\d+)_(?P<height>\d+)_(?P<fps>[\d.]+)fps$")


class HumanVid:
    """HumanVid rows: a URL each; the video is the file of that name on disk."""

    name = "humanvid"
    licence = "pexels"

    def find(self, data_root: Path, config: SourceConfig) -> SourceLayout | None:
        """Look for the URL lists."""
        root = find_root(data_root, config, self.name, LISTS)
        if root is None:
            return None
        tables = tuple(sorted(root.glob(LISTS)))
        if any("-new" in path.name for path in tables):
            tables = tuple(path for path in tables if "-new" in path.name)
        loose = tuple(
            folder
            for name in ("videos", "pexels-my-h", "pexels-my-v")
            if (folder := root / name).is_dir()
        )
        facts = [f"clips from {', '.join(path.name for path in tables)}"]
        if config.captions is None:
            facts.append("HumanVid has no captions; pass --humanvid.captions FILE to use it")
        else:
            if not Path(config.captions).is_file():
                raise UserError(
                    f"there is no caption file {config.captions}", hint="check --humanvid.captions"
                )
            facts.append(f"captions from {Path(config.captions).name}")
            tables = (*tables, Path(config.captions))
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
        videos, seen = Videos(layout), set[str]()
        for table in layout.tables:
            if table.suffix != ".txt":
                continue
            for number, line in enumerate(
                table.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
            ):
                if not line.strip():
                    continue
                name = urlparse(line.strip()).path.rsplit("/", 1)[-1]
                place = f"{table.name} line {number}"
                problem = None if "." in name else f"{place} is not a video's URL"
                stem = name.rsplit(".", 1)[0]
                match = _NAME.match(stem)
                labels: dict[str, str | float] = {"list": table.stem}
                if match:
                    labels |= {key: float(match[key]) for key in ("width", "height", "fps")}
                yield make_clip(
                    source,
                    videos,
                    name=name or place,
                    caption=captions.get(name),
                    group=match["id"] if match else stem,
                    labels=labels,
                    seen=seen,
                    problem=problem,
                )
