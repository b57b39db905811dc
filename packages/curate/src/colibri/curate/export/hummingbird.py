"""HummingbirdXT's CSV: `path,text,num_frames`.

Its loader answers any failure with an empty prompt and a grey video (AMD-AGI/HummingbirdXT
train/utils/dataset.py@b1d257d, ODERegressionCSVDataset), so everything that fails there is refused.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from colibri.core.errors import RowError
from colibri.core.shards import write_whole
from colibri.curate.export.base import (
    Entry,
    ExportConfig,
    Format,
    Sampling,
    check_frames,
    check_stretch,
)

TABLE = "train.csv"

NOT_TEXT = frozenset(
    "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan"
    "|null".split("|")
)
"""What pandas.read_csv takes for a missing value, quoted or not."""


def check(entry: Entry, sampling: Sampling) -> None:
    """RowError: no_caption, too_short, stretched."""
    if entry.caption in NOT_TEXT:
        raise RowError("no_caption", f"pandas reads {entry.caption!r} as a missing text")
    check_frames(entry, sampling.frames)
    # The loader resizes to the full size and keeps no aspect ratio.
    height, width = sampling.size
    check_stretch(entry, width / height, sampling)


def write(entries: Iterator[Entry], config: ExportConfig, root: Path) -> set[str]:
    """Write DIR/train.csv; every text is quoted, no text is changed."""

    def table(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
            writer.writerow(("path", "text", "num_frames"))
            for entry in entries:
                assert entry.path is not None
                path = (config.to.resolve() / entry.path).as_posix()
                writer.writerow((path, entry.caption, entry.num_frames))

    write_whole(config.to / TABLE, table)
    return {TABLE}


FORMAT = Format(
    name="hummingbird",
    modes=("reference", "link", "copy"),
    endings=(".mp4", ".mkv"),
    sampling=Sampling(frames=121, size=(704, 1280)),
    honours=("frames", "size", "max_stretch"),
    check=check,
    write=write,
    table=TABLE,
)
