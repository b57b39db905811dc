"""VideoX-Fun's JSON: `file_path`, `text`, `type`, `width`, `height`.

Its loader takes an entry without `type` for an image, and answers a failure with another random
row (aigc-apps/VideoX-Fun videox_fun/data/dataset_image_video.py@fda54ed, ImageVideoDataset).
"""

from collections.abc import Iterator
from pathlib import Path

from colibri.curate.export.base import (
    Entry,
    ExportConfig,
    Format,
    Sampling,
    check_frames,
    check_stretch,
)
from colibri.curate.export.jsonlist import write_json_list

TABLE = "metadata.json"


def check(entry: Entry, sampling: Sampling) -> None:
    """RowError: too_short, stretched."""
    # It samples min(frames, length // stride): a shorter clip would silently be a shorter sample.
    check_frames(entry, sampling.frames * sampling.stride)
    check_stretch(entry, entry.width / entry.height, sampling)


def write(entries: Iterator[Entry], config: ExportConfig, root: Path) -> set[str]:
    """Write DIR/metadata.json; paths are relative to DIR, or absolute where referenced."""
    write_json_list(
        config.to / TABLE,
        (
            {
                "file_path": entry.path.as_posix() if entry.path else "",
                "text": entry.caption,
                "type": "video",
                "width": entry.width,
                "height": entry.height,
            }
            for entry in entries
        ),
    )
    return {TABLE}


FORMAT = Format(
    name="videox-fun",
    modes=("link", "copy", "reference"),
    endings=(),
    sampling=Sampling(frames=81, stride=1),
    honours=("frames", "stride", "max_stretch"),
    check=check,
    write=write,
    table=TABLE,
)
