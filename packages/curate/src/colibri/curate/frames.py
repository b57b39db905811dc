"""The first frame of a clip as a training image, and how many frames the clip really has.

Reads as little of a file as it can: its index and the first key frame. Never squashes: a clip is
scaled evenly, then cropped or padded.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image

from colibri.core.clip import VideoRef
from colibri.core.config import Size
from colibri.core.errors import RowError
from colibri.core.video import (
    Frame,
    VideoProbe,
    count_frames,
    open_ref,
    probe,
    read_frames,
    upright,
)

DARK_LUMA = 20.0
"""Mean luma, of 255, below which a frame counts as dark (limited-range black decodes near 0)."""

DARK_SEARCH_S = 3.0
"""How far into a clip a frame that is not dark is looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameConfig:
    """How first frames are read and fitted."""

    reader: Literal["pyav", "decord", "none"] = "pyav"
    """Decoder. pyav reads a fraction of a megabyte a clip; decord reads the whole file; none reads
    no video at all: captions alone, e.g. to choose rows before their videos are fetched."""
    geometry: Literal["crop", "pad", "bucket"] = "bucket"
    """crop or pad to --frame.size; bucket: crop to whichever shape of that area is nearest."""
    size: Size = (704, 1280)
    """Size of the training image."""
    min_frames: int = 121
    """Clips with fewer real frames are rejected as too_short."""
    dark: Literal["skip", "warn"] = "skip"
    """A clip that begins in the dark: take the first frame that is not, or only note it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstFrame:
    """A fitted first frame and the facts that were found on the way."""

    image: bytes
    """JPEG, quality 95 without chroma subsampling: a fifth of a PNG and equal bytes every time."""
    width: int
    """Display width of the clip in pixels, before fitting."""
    height: int
    fps: float
    num_frames: int
    """Frames that are really in the file."""
    notes: tuple[str, ...]
    bytes_read: int


def first_frame(ref: VideoRef, root: Path, config: FrameConfig) -> FirstFrame:
    """Read, turn upright, fit. RowError: unreadable_video, no_video_stream, missing_file,
    empty_file, unsafe_path, missing_member, too_short."""
    with Counted(open_ref(ref, root)) as file:
        layout = probe(file)
        notes = _notes(layout)
        frames = count_frames(file)
        header = layout.num_frames_header
        if header and header != frames:
            notes.append(f"header_lies:{header}>{frames}")
        if ref.start_s:
            frames = max(0, frames - math.floor(ref.start_s * layout.fps))
        if frames < config.min_frames:
            found = f"{frames} real frames"
            raise RowError("too_short", f"{found}, at least {config.min_frames} are needed")
        limit = max(1, math.ceil(DARK_SEARCH_S * layout.fps))
        shots = READERS[config.reader](file, layout, ref.start_s, limit)
        image, dark = _past_the_dark(shots, skip=config.dark == "skip")
        notes += dark
        fitted, scale = fit(image, bucket(image.shape[:2], config), pad=config.geometry == "pad")
        if scale > 1:
            notes.append(f"enlarged:{scale:.2f}")
        return FirstFrame(
            image=_jpeg(fitted),
            width=layout.width,
            height=layout.height,
            fps=layout.fps,
            num_frames=frames,
            notes=tuple(notes),
            bytes_read=file.bytes_read,
        )


def bucket(shape: tuple[int, ...], config: FrameConfig) -> tuple[int, int]:
    """(height, width) for a clip of `shape`: the size, or the bucket nearest in aspect."""
    if config.geometry != "bucket":
        return config.size
    aspect = math.log(shape[1] / shape[0])
    return min(
        buckets(config.size), key=lambda size: (abs(math.log(size[1] / size[0]) - aspect), size)
    )


def buckets(size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Shapes of about the area of `size`: itself, 4:3, square, and their upright twins.

    Sides are multiples of 32, as a codec of 16 pixels and a patch of 2 need.
    """
    area = size[0] * size[1]
    shapes = {size, size[::-1]}
    for aspect in (4 / 3, 1.0):
        height = round(math.sqrt(area / aspect) / 32) * 32
        width = round(math.sqrt(area * aspect) / 32) * 32
        shapes |= {(height, width), (width, height)}
    return tuple(sorted((height, width) for height, width in shapes))


def fit(image: Frame, size: tuple[int, int], *, pad: bool) -> tuple[Frame, float]:
    """`image` scaled evenly to (height, width), centre-cropped or padded black; and the scale."""
    height, width = image.shape[:2]
    ratios = (size[0] / height, size[1] / width)
    scale = min(ratios) if pad else max(ratios)
    scaled_size = (max(1, round(width * scale)), max(1, round(height * scale)))
    scaled = np.asarray(Image.fromarray(image).resize(scaled_size, Image.Resampling.LANCZOS))
    canvas = np.zeros((*size, 3), np.uint8)
    rows, columns = min(size[0], scaled.shape[0]), min(size[1], scaled.shape[1])
    to_row, to_column = (size[0] - rows) // 2, (size[1] - columns) // 2
    row, column = (scaled.shape[0] - rows) // 2, (scaled.shape[1] - columns) // 2
    canvas[to_row : to_row + rows, to_column : to_column + columns] = scaled[
        row : row + rows, column : column + columns
    ]
    return canvas, scale


PAGE_BYTES = 32_768


class Counted(io.RawIOBase, BinaryIO):
    """A file that reads each page of 32 KiB once, however often asked, and counts bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END)
        self._position = 0
        self._pages: dict[int, bytes] = {}
        self.bytes_read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        pieces = []
        while wanted:
            number, offset = divmod(self._position, PAGE_BYTES)
            piece = self._page(number)[offset : offset + wanted]
            if not piece:
                break
            pieces.append(piece)
            self._position += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._file.close()
        super().close()

    def _page(self, number: int) -> bytes:
        if number not in self._pages:
            self._file.seek(number * PAGE_BYTES)
            self._pages[number] = self._file.read(PAGE_BYTES)
            self.bytes_read += len(self._pages[number])
        return self._pages[number]


def _pyav(file: Counted, layout: VideoProbe, start_s: float | None, limit: int) -> Iterator[Frame]:
    return read_frames(file, start_s=start_s, limit=limit)


def _decord(
    file: Counted, layout: VideoProbe, start_s: float | None, limit: int
) -> Iterator[Frame]:
    try:
        import decord
    except ImportError:
        raise RowError("no_decord", "decord is not installed; use --frame.reader pyav") from None
    file.seek(0)
    turned = replace(layout, rotation=0)  # decord has turned its frames already
    first = math.ceil((start_s or 0) * layout.fps)
    try:
        reader = decord.VideoReader(io.BytesIO(file.read()), ctx=decord.cpu(0), num_threads=1)
        for index in range(first, min(first + limit, len(reader))):
            yield upright(reader[index].asnumpy(), turned)
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        message = str(error).strip().splitlines()
        raise RowError("unreadable_video", message[-1] if message else "decord failed") from None


READERS = {"pyav": _pyav, "decord": _decord}


def _past_the_dark(frames: Iterator[Frame], *, skip: bool) -> tuple[Frame, list[str]]:
    first = next(frames, None)
    if first is None:
        raise RowError("unreadable_video", "no frame can be decoded")
    if not is_dark(first):
        return first, []
    for index, frame in enumerate(frames, start=1):
        if not is_dark(frame):
            return (frame if skip else first), [f"dark_lead_in:{index}"]
    return first, ["dark"]


def is_dark(frame: Frame) -> bool:
    """True when the mean luma (BT.709) is under `DARK_LUMA`."""
    return bool((frame.mean(axis=(0, 1)) @ (0.2126, 0.7152, 0.0722)) < DARK_LUMA)


def _notes(layout: VideoProbe) -> list[str]:
    notes = []
    if layout.rotation:
        notes.append(f"rotated:{layout.rotation}")
    if layout.sample_aspect != 1:
        notes.append(f"sample_aspect:{layout.sample_aspect}")
    if layout.bit_depth > 8:
        notes.append(f"bit_depth:{layout.bit_depth}")
    if layout.variable_rate:
        notes.append("variable_rate")
    if layout.full_range:
        notes.append("full_range")
    return notes


def _jpeg(frame: Frame) -> bytes:
    target = io.BytesIO()
    Image.fromarray(frame).save(target, "JPEG", quality=95, subsampling=0)
    return target.getvalue()
