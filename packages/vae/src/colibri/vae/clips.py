"""Training and test clips: a folder of videos, curated shards, or the rendered small world.

A clip that cannot be used is refused with a reason and another one is drawn: the run goes on. Which
clip and which crop follow from the seed alone, so that a resumed run sees the same ones.
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colibri.core.clip import VideoRef
from colibri.core.errors import RowError, UserError
from colibri.core.shards import read_rows
from colibri.core.video import count_frames, open_ref, probe, read_frames

Frames = NDArray[np.uint8]  # (frames, height, width, 3), RGB
Part = Literal["train", "held-out"]

SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v"}
DRAWS = 100
"""Refused clips in a row before a run gives up."""
TICK_S = 1e-3
"""Matroska's clock: a frame's time there may be half a tick before it is due."""


class Source(Protocol):
    """Clips by number."""

    def __len__(self) -> int:
        """How many there are."""

    def id(self, index: int) -> str:
        """What the clip is known by wherever its number may change."""

    def find(self, clip: str) -> int | None:
        """The number of the clip with this id; None where there is none."""

    def name(self, index: int) -> str:
        """What a person knows the clip by."""

    def read(self, index: int, frames: int, place: float) -> Frames:
        """`frames` consecutive frames, starting at `place` in [0, 1] of what is possible. RowError
        where they cannot be had."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    id: str
    ref: VideoRef
    num_frames: int | None = None


@dataclass(frozen=True)
class Files:
    """Videos below a root."""

    root: Path
    entries: tuple[_Entry, ...]
    counted: dict[int, int] = field(default_factory=dict, repr=False, compare=False)
    """Frames of files whose header does not tell, by number."""

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {entry.id: index for index, entry in enumerate(self.entries)}

    def id(self, index: int) -> str:
        """Id of a curated clip; of a plain file its path below the root."""
        return self.entries[index].id

    def find(self, clip: str) -> int | None:
        """The number of the clip with this id; None where there is none."""
        return self._numbers.get(clip)

    def name(self, index: int) -> str:
        """Path below the root, and member of an archive."""
        ref = self.entries[index].ref
        return ref.video if ref.member is None else f"{ref.video}::{ref.member}"

    def read(self, index: int, frames: int, place: float) -> Frames:
        """RowError: missing_file, unreadable_video, too_short."""
        entry = self.entries[index]
        with open_ref(entry.ref, self.root) as file:
            header = probe(file)
            count = entry.num_frames or header.num_frames_header
            if count is None:
                count = self.counted[index] = self.counted.get(index) or count_frames(file)
            spare = max(count - frames, 0)
            start = int(place * (spare + 1)) if spare else 0
            start_s = entry.ref.start_s or 0.0
            if start and header.fps:
                start_s += start / header.fps - TICK_S
            found = list(read_frames(file, start_s=start_s, limit=frames))
        if len(found) < frames:
            raise RowError("too_short", f"{len(found)} of {frames} frames")
        return np.stack(found)


@dataclass(frozen=True, slots=True)
class SmallWorld:
    """Rendered clips of the testbed; endless, so a number is a seed."""

    part: Part
    count: int = 1_000_000

    def __len__(self) -> int:
        return self.count

    def id(self, index: int) -> str:
        """Its number."""
        return str(index)

    def find(self, clip: str) -> int | None:
        """The number that an id is, where it is one."""
        try:
            index = int(clip)
        except ValueError:
            return None
        return index if 0 <= index < self.count else None

    def name(self, index: int) -> str:
        """Its number, for people."""
        return f"small world {index}"

    def read(self, index: int, frames: int, place: float) -> Frames:
        """Square, as wide as the small world is."""
        from colibri.testbed.small import small_clip, small_scene

        rng = np.random.default_rng([index, self.part == "train"])
        return small_clip(small_scene(rng, part=self.part, free=True), frames=frames)


def open_source(clips: Path | None, data_root: Path | None, part: Part) -> Source:
    """Videos of a folder, of curated shards (`data/*.parquet` in it), or the small world.

    UserError for a folder that is missing or holds neither.
    """
    if clips is None:
        return SmallWorld(part)
    if not clips.is_dir():
        raise UserError(f"there is no folder {str(clips)!r}")
    shards = sorted((clips / "data").glob("*.parquet"))
    if shards:
        columns = ["id", "video", "member", "start_s", "num_frames", "split"]
        rows = list(itertools.chain.from_iterable(read_rows(path, columns) for path in shards))
        wanted = [row for row in rows if row["split"] == part] or (
            rows if part == "held-out" else []
        )
        entries = tuple(
            _Entry(
                id=row["id"],
                ref=VideoRef(video=row["video"], member=row["member"], start_s=row["start_s"]),
                num_frames=row["num_frames"],
            )
            for row in wanted
        )
        root = data_root or _recorded_root(clips)
    else:
        files = sorted(path for path in clips.rglob("*") if path.suffix.lower() in SUFFIXES)
        paths = [path.relative_to(clips).as_posix() for path in files]
        entries = tuple(_Entry(id=path, ref=VideoRef(video=path)) for path in paths)
        root = clips
    if not entries:
        raise UserError(
            f"{clips} holds no clips", hint=f"videos ({', '.join(sorted(SUFFIXES))}) or shards"
        )
    return Files(root, entries)


def usual_crop(clips: Path | None) -> tuple[int, int]:
    """Height and width of cuts where none are asked for: the small world's own without `clips`,
    else 256x256."""
    if clips is not None:
        return 256, 256
    from colibri.testbed.small import SIDE

    return SIDE, SIDE


def _recorded_root(clips: Path) -> Path:
    """The data root that `curate run` noted; manifests hold no absolute paths."""
    try:
        saved = json.loads((clips / "state" / "run.json").read_text(encoding="utf-8"))
        root: Path | None = Path(saved["data_root"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        root = None
    if root is None or not root.is_dir():
        raise UserError(f"{clips} does not tell where its videos lie", hint="pass --data-root DATA")
    return root


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A part of a clip; places are shares in [0, 1) of what is possible."""

    clip: str
    """Its id in the source."""
    place: float
    """Of the first frame."""
    top: float
    left: float
    mirror: bool

    @classmethod
    def random(cls, clip: str, rng: np.random.Generator) -> "Cut":
        """Anywhere, mirrored half of the time."""
        place, top, left, mirror = rng.random(4).tolist()
        return cls(clip=clip, place=place, top=top, left=left, mirror=mirror < 0.5)


def read_cut(source: Source, cut: Cut, frames: int, size: tuple[int, int]) -> Frames:
    """(frames, height, width, 3) at the video's own scale. RowError as `Source.read`, or where the
    picture is smaller than `size`: too_small."""
    height, width = size
    index = source.find(cut.clip)
    assert index is not None, cut.clip
    found = source.read(index, frames, cut.place)
    rows, columns = found.shape[1:3]
    if rows < height or columns < width:
        raise RowError("too_small", f"{columns}x{rows} pixels for a crop of {width}x{height}")
    top = int(cut.top * (rows - height + 1))
    left = int(cut.left * (columns - width + 1))
    found = found[:, top : top + height, left : left + width]
    return np.ascontiguousarray(found[:, :, ::-1] if cut.mirror else found)


class Sampler:
    """Random crops of random clips; `draw(step, slot)` is a pure function of the seed."""

    def __init__(
        self,
        source: Source,
        *,
        frames: int,
        crop: tuple[int, int],
        seed: int,
        refused: Callable[[str, RowError], None],
    ) -> None:
        self.source, self.frames, self.crop, self.seed = source, frames, crop, seed
        self.refused = refused

    def draw(self, step: int, slot: int) -> Frames:
        """A clip (frames, height, width, 3). UserError after many refusals in a row."""
        rng = np.random.default_rng([self.seed, step, slot])
        last: RowError | None = None
        for _ in range(DRAWS):
            index = int(rng.integers(len(self.source)))
            cut = Cut.random(self.source.id(index), rng)
            try:
                return read_cut(self.source, cut, self.frames, self.crop)
            except RowError as error:
                self.refused(self.source.name(index), error)
                last = error
        assert last is not None
        raise UserError(f"{DRAWS} clips in a row cannot be used; the last: {last.message}")


class RefusalLog:
    """Remembers each refused clip once, as JSON lines in `path` where there is one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.reasons: dict[str, str] = {}
        """Of each refused clip."""

    def __call__(self, name: str, error: RowError) -> None:
        if name in self.reasons:
            return
        self.reasons[name] = error.reason
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                entry = {"clip": name, "reason": error.reason, "error": error.message}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def centre_clip(frames: Frames, size: tuple[int, int]) -> Frames:
    """Short side scaled to the crop (Lanczos), then its middle; (frames, height, width, 3)."""
    height, width = size
    rows, columns = frames.shape[1:3]
    factor = max(height / rows, width / columns)
    if factor != 1:
        scaled = (max(round(columns * factor), width), max(round(rows * factor), height))
        frames = np.stack(
            [
                np.asarray(Image.fromarray(frame).resize(scaled, Image.Resampling.LANCZOS))
                for frame in frames
            ]
        )
        rows, columns = frames.shape[1:3]
    top, left = (rows - height) // 2, (columns - width) // 2
    return frames[:, top : top + height, left : left + width]
