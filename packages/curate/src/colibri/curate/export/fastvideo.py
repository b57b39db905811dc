"""FastVideo's merged data set: `videos/` and `videos2caption.json` for its preprocessing.

Its validator drops entries without `fps`, `num_frames` or `resolution`, of a far shape or too long,
without saying which (hao-ai-lab/FastVideo fastvideo/workflow/preprocess/components.py@8b55e97 and
docs/training/data_preprocess.md@4117696); they are refused here by name.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from colibri.core.errors import RowError
from colibri.curate.export.base import Entry, ExportConfig, Format, Sampling, check_stretch
from colibri.curate.export.jsonlist import write_json_list

TABLE = "videos2caption.json"

TOLERANCE = 5.0
"""preprocess.video_length_tolerance_range of the documented recipe: a clip longer than this many
samples is dropped."""
SHAPES = (8 / 16, 17 / 16)
"""Height over width that the validator lets pass, whatever the size."""
SHAPE_FACTOR = 1.5
"""How far height over width may be from that of the size."""


def check(entry: Entry, sampling: Sampling) -> None:
    """RowError: no_fps, too_short, too_long, bad_shape, rotated, stretched."""
    if entry.fps <= 0:
        raise RowError("no_fps", "the file does not say its frame rate")
    sampled = math.ceil(entry.num_frames * sampling.train_fps / entry.fps)
    if sampled < sampling.frames:
        raise RowError(
            "too_short",
            f"{entry.num_frames} frames at {entry.fps:g} fps give {sampled} at "
            f"{sampling.train_fps:g} fps and the trainer samples {sampling.frames}",
        )
    longest_s = TOLERANCE * sampling.frames / sampling.train_fps
    if entry.num_frames / entry.fps > longest_s:
        raise RowError("too_long", f"the clip is longer than the {longest_s:g} s that are let pass")
    shape, wanted = entry.height / entry.width, sampling.size[0] / sampling.size[1]
    lowest = max(SHAPES[0], wanted / SHAPE_FACTOR)
    highest = min(SHAPES[1], wanted * SHAPE_FACTOR)
    if not lowest <= shape <= highest:
        raise RowError(
            "bad_shape",
            f"height over width is {shape:.2f}, let pass are {lowest:.2f} to {highest:.2f}",
        )
    if entry.rotated:
        raise RowError("rotated", "torchvision does not turn the picture upright")
    check_stretch(entry, entry.width / entry.height, sampling)


def write(entries: Iterator[Entry], config: ExportConfig, root: Path) -> set[str]:
    """Write DIR/videos2caption.json; `path` is a name in DIR/videos."""
    write_json_list(
        config.to / TABLE,
        (
            {
                "path": entry.path.name if entry.path else "",
                "cap": entry.caption,
                "resolution": {"width": entry.width, "height": entry.height},
                "fps": entry.fps,
                "num_frames": entry.num_frames,
                "duration": entry.num_frames / entry.fps,
            }
            for entry in entries
        ),
    )
    return {TABLE}


FORMAT = Format(
    name="fastvideo",
    modes=("link", "copy"),
    endings=(".mp4",),
    sampling=Sampling(frames=77, train_fps=16.0, size=(480, 832)),
    honours=("frames", "train_fps", "size", "max_stretch"),
    check=check,
    write=write,
    table=TABLE,
)
