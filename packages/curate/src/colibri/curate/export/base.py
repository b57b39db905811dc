"""What an export is told, what it makes of a row, and what a format has to say for itself."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import tyro

from colibri.core.clip import VideoRef
from colibri.core.config import Size
from colibri.core.errors import RowError, UserError

FormatName = Literal["hummingbird", "videox-fun", "fastvideo", "webdataset", "folder", "hub"]
VideoMode = Literal["copy", "link", "reference"]
SplitName = Literal["train", "held-out", "all"]

_ID = re.compile(r"[0-9A-Za-z_-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Curated shards in, what a trainer reads out."""

    out: tyro.conf.Positional[Path] = Path("out/curate")
    """Output folder of a finished curate run."""
    format: FormatName = "hummingbird"
    """Whose reader the export is for."""
    to: Path = Path("out/export")
    """Folder to write, new or of an earlier export in the same format, which is then gone on
    with."""
    data_root: Path | None = None
    """Folder that holds the data sets. Without it: the one that the run had on this machine."""
    videos: VideoMode | None = None
    """copy: into DIR/videos. link: a symbolic link there. reference: by absolute path. Videos
    inside archives are always extracted. Without it: as the format's trainer expects."""
    split: SplitName | None = None
    """Rows to export. Without it: train; for the hub all, which has a column for it."""
    frames: int | None = None
    """Frames that the trainer samples from a clip; shorter clips are refused. Without it: the
    trainer's own number."""
    stride: int | None = None
    """videox-fun: its --video_sample_stride."""
    train_fps: float | None = None
    """fastvideo: its preprocess.train_fps."""
    size: Size | None = None
    """hummingbird, fastvideo: the size that the trainer makes of a clip."""
    max_stretch: float | None = None
    """Clips whose picture the trainer would stretch by more than this factor are refused."""
    decode: bool = False
    """Decode the frames instead of counting them. Certain, and some 20 times slower."""
    shard_rows: int = 100
    """webdataset: clips in one tar."""
    repo: str | None = None
    """hub: OWNER/NAME of the data set repository; made if it is not there."""
    public: bool = False
    """hub: make the repository public. Rows whose licence is flagged are then refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """What a trainer takes from one clip."""

    frames: int = 1
    stride: int = 1
    train_fps: float = 24.0
    size: tuple[int, int] = (704, 1280)
    """(height, width) in pixels."""
    max_stretch: float = 1.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What a shard says about one clip."""

    id: str
    ref: VideoRef
    source: str
    caption: str
    licence: str
    split: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry(Row):
    """One row on its way out, with what its file really holds."""

    width: int
    """Pixels as a decoder delivers them: turned upright, not made square."""
    height: int
    fps: float
    num_frames: int
    """Frames counted in the file now."""
    size_bytes: int
    rotated: bool
    """True when the picture stands upright only by a note in the file's header."""
    aspect: float
    """Width over height as the picture should be seen; other than width / height where pixels are
    not square, which decoders leave to the player."""
    path: Path | None = None
    """Where the trainer finds the video: below DIR, or absolute. None inside a tar."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """One trainer's contract and how its files are written."""

    name: FormatName
    modes: tuple[VideoMode, ...]
    """How videos may be given to it, the default first; none when they go into tars."""
    endings: tuple[str, ...]
    """File endings that its reader takes for a video; none given: any."""
    sampling: Sampling
    honours: tuple[str, ...]
    """Fields of Sampling that mean something to it."""
    check: Callable[[Entry, Sampling], None]
    """RowError for an entry that the trainer would turn into something else."""
    write: Callable[[Iterator[Entry], ExportConfig, Path], set[str]]
    """(entries, config, data root) -> names that belong in DIR beside the videos."""
    table: str = ""
    """Name of the file that the trainer is given; empty where it is given DIR itself."""
    videos_folder: str = "videos"
    """Folder of the videos below DIR."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportCounts:
    """Where the rows went: rows = exported + refused."""

    rows: int
    exported: int
    refused: dict[str, int] = field(default_factory=dict)
    """Reason -> rows."""
    other_split: int = 0
    """Rows that were not asked for, beside `rows`."""
    where: str = ""
    """What to give to the trainer: a file, a folder, or the address on the hub."""

    def __str__(self) -> str:
        refused = sum(self.refused.values())
        reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(self.refused.items()))
        text = f"{self.rows:,} rows = {self.exported:,} exported + {refused:,} refused"
        text += f" ({reasons})" if reasons else ""
        if self.other_split:
            text += f"; {self.other_split:,} of the other split left out"
        return f"{text}\n{self.where}"


def counted(
    rows: int, refusals: list[dict[str, str | None]], other_split: int, where: str
) -> ExportCounts:
    """Counts from the list of refusals."""
    reasons = Counter(str(refusal["reason"]) for refusal in refusals)
    return ExportCounts(
        rows=rows,
        exported=rows - len(refusals),
        refused=dict(sorted(reasons.items())),
        other_split=other_split,
        where=where,
    )


def sampling_of(config: ExportConfig, kind: Format) -> Sampling:
    """The format's own sampling with what the config says. UserError for what means nothing."""
    given = {
        "frames": config.frames,
        "stride": config.stride,
        "train_fps": config.train_fps,
        "size": config.size,
        "max_stretch": config.max_stretch,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    for name, value in chosen.items():
        flag = f"--{name.replace('_', '-')}"
        if name not in kind.honours:
            raise UserError(f"{flag} has no meaning for --format {kind.name}", hint="leave it out")
        if isinstance(value, int | float) and value < (1 if name == "max_stretch" else 1e-9):
            raise UserError(f"{flag} {value} is too small", hint="give a larger number")
    return replace(kind.sampling, **chosen)  # type: ignore[arg-type]


def check_text(name: str, caption: str | None) -> str:
    """The caption. RowError: no_caption, bad_text, bad_id."""
    if not _ID.fullmatch(name):
        raise RowError("bad_id", f"the id {name!r} cannot be a file name")
    if caption is None or not caption.strip():
        raise RowError("no_caption", "the caption is empty")
    if "\0" in caption:
        raise RowError("bad_text", "the caption holds a NUL character, at which readers stop")
    return caption


def check_frames(entry: Entry, needed: int) -> None:
    """RowError too_short when the file holds fewer frames than the trainer samples."""
    if entry.num_frames < needed:
        raise RowError(
            "too_short", f"{entry.num_frames} frames are there and the trainer samples {needed}"
        )


def check_stretch(entry: Entry, shown: float, sampling: Sampling) -> None:
    """RowError stretched when the trainer, which shows the picture in width over height `shown`,
    makes it too wide or too tall."""
    stretch = max(entry.aspect / shown, shown / entry.aspect)
    if stretch > sampling.max_stretch:
        raise RowError(
            "stretched",
            f"the trainer would stretch the picture {stretch:.2f} times, "
            f"more than {sampling.max_stretch:g}",
        )
