"""`colibri world`: a data set of the small rendered world, so that the whole chain can be run
without a download; and its reader, `curate run --sources colibri.umbrella.world:World`."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colibri.core.clip import Clip, VideoRef
from colibri.core.errors import UserError
from colibri.core.shards import write_text_whole
from colibri.core.video import write_video
from colibri.curate.sources.base import (
    SourceConfig,
    SourceLayout,
    Videos,
    find_root,
    make_clip,
    read_csv,
)
from colibri.testbed import captions
from colibri.testbed.small import FPS, small_clip, small_scene

TABLE = "world.csv"

STYLES = (
    *(captions.terse, captions.terse, captions.terse, captions.plain, captions.plain),
    *(captions.short, captions.long, captions.camera_heavy, captions.first_person),
)
"""Most captions are as a person types them; some are in the manner of a captioning model, some
about the camera, some in the first person: what curation is there for."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """How many clips of the small world, and where."""

    out: Path = Path("out/world")
    """Folder of the data set: what `curate run --data-root` takes."""
    clips: int = 256
    """Clips of the training part of the world."""
    seed: int = 0
    """Decides every scene and caption."""


def write_world(config: WorldConfig) -> Path:
    """Write videos and table of `config.clips` clips; the same bytes for the same settings."""
    if config.clips < 1:
        raise UserError(f"--clips has to be at least 1, found {config.clips}")
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("video", "caption"))
    for index in range(config.clips):
        rng = np.random.default_rng([config.seed, 29, index])
        scene = small_scene(rng, part="train")
        text = STYLES[int(rng.integers(len(STYLES)))](scene, rng)
        name = f"videos/{config.seed:03d}-{index:05d}.mp4"
        path = config.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, small_clip(scene), fps=int(FPS), crf=8, exact=True)
        rows.writerow((name, text))
    write_text_whole(config.out / TABLE, table.getvalue())
    return config.out


class World:
    """Rows of `world.csv`: a rendered clip and its caption."""

    name = "small-world"
    licence = "apache-2.0"

    def find(self, data_root: Path, config: SourceConfig) -> SourceLayout | None:
        """Look for world.csv."""
        root = find_root(data_root, config, self.name, TABLE)
        if root is None:
            return None
        return SourceLayout(
            name=self.name,
            data_root=data_root,
            root=root,
            tables=(root / TABLE,),
            loose=(root / "videos",),
            facts=(f"captions and videos from {TABLE}",),
        )

    def clips(self, layout: SourceLayout, config: SourceConfig) -> Iterator[Clip]:
        """Every row of the table."""
        videos, seen = Videos(layout), set[VideoRef]()
        for row in read_csv(layout.tables[0]):
            name = row.values.get("video") or f"{TABLE} line {row.line}"
            yield make_clip(
                self,
                videos,
                name=name,
                caption=row.values.get("caption"),
                group=name,
                labels={},
                seen=seen,
                problem=row.problem,
            )
