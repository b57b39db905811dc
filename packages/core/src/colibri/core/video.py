"""Video files in and out, by PyAV. Pixels are uint8 RGB in [0, 255], upright, with square pixels.

The only module that opens a `VideoRef`. Decides nothing about which clips are wanted.
"""

import contextlib
import itertools
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colibri.core.archive import open_member, resolve_inside
from colibri.core.clip import VideoRef
from colibri.core.errors import RowError, UserError
from colibri.core.shards import write_whole

DAMAGE = (av.error.FFmpegError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
"""What a damaged file or archive member may raise while it is read."""

EXACT = "rc-lookahead=0:sync-lookahead=0:mbtree=0:weightp=0:weightb=0:bframes=0:scenecut=0"
"""x264 settings that look at no other frame than the last."""

Frame = NDArray[np.uint8]  # (height, width, 3)

av.logging.set_level(av.logging.PANIC)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoProbe:
    """What a file's header says, before any frame is decoded."""

    width: int
    """Display width in pixels, after rotation and sample aspect."""
    height: int
    coded_width: int
    coded_height: int
    rotation: int
    """Degrees to turn clockwise for display: 0, 90, 180 or 270."""
    sample_aspect: Fraction
    """Width of a pixel over its height, as coded."""
    fps: float
    num_frames_header: int | None
    bit_depth: int
    full_range: bool
    variable_rate: bool
    """Frames of clearly different length; False as well where the file has no index."""
    codec: str


def open_ref(ref: VideoRef, root: Path) -> BinaryIO:
    """The clip's bytes as a seekable file. RowError: missing_file, missing_member, empty_file,
    unsafe_path, unreadable_video."""
    path = resolve_inside(root, ref.video)
    if not path.is_file():
        raise RowError("missing_file", f"there is no file {ref.video!r}")
    try:
        file = path.open("rb") if ref.member is None else open_member(path, ref.member)
        size = file.seek(0, 2)
        file.seek(0)
    except UserError as error:  # a damaged archive condemns the row, not the run
        raise RowError("unreadable_video", str(error)) from None
    except (NotImplementedError, *DAMAGE) as error:  # the first: a compression of other programs
        raise RowError(
            "unreadable_video", f"{ref.member or ref.video!r} cannot be read: {_said(error)}"
        ) from None
    if not size:
        file.close()
        raise RowError("empty_file", f"{ref.member or ref.video!r} is empty")
    return file


def probe(file: BinaryIO) -> VideoProbe:
    """Read the header. RowError: unreadable_video, no_video_stream."""
    with _container(file) as (_, stream):
        return _probe(stream, _rotation_of_header(file))


def count_frames(file: BinaryIO) -> int:
    """Frames that are really in the file, without decoding them.

    With a header that tells their number (MP4) the sample table is counted as far as the file
    reaches; else every packet is read: Matroska's index has key frames only.
    """
    size = file.seek(0, 2)
    with _container(file) as (container, stream):
        entries = stream.index_entries
        if stream.frames and len(entries) > 1:
            return sum(entry.pos + entry.size <= size for entry in entries)
        count = 0
        with contextlib.suppress(*DAMAGE):
            for packet in container.demux(stream):
                count += packet.size > 0
        return count


def read_frames(
    file: BinaryIO, *, start_s: float | None = None, limit: int | None = None
) -> Iterator[Frame]:
    """Decoded frames from `start_s` on, upright and with square pixels, (height, width, 3)."""
    with _container(file) as (container, stream):
        stream.thread_type = "NONE"
        seen = 0
        try:
            if start_s:
                assert stream.time_base is not None
                container.seek(int(start_s / stream.time_base), stream=stream)
            layout: VideoProbe | None = None
            for decoded in container.decode(stream):
                if start_s and decoded.time is not None and decoded.time < start_s - 1e-6:
                    continue
                if layout is None:
                    layout = _probe(stream, decoded.rotation)
                yield upright(_rgb(decoded), layout)
                seen += 1
                if seen == limit:
                    return
        except DAMAGE as error:
            if not seen:
                message = f"no frame can be decoded: {_said(error)}"
                raise RowError("unreadable_video", message) from None
        if not seen:
            raise RowError("unreadable_video", "no frame can be decoded")


def upright(frame: Frame, layout: VideoProbe) -> Frame:
    """Turn a coded frame and stretch its pixels square, as a player shows it."""
    if layout.rotation:
        frame = np.ascontiguousarray(np.rot90(frame, k=-layout.rotation // 90))
    if frame.shape[:2] != (layout.height, layout.width):
        size = (layout.width, layout.height)
        frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
    return frame


def write_video(
    path: Path,
    frames: Iterable[Frame],
    *,
    fps: Fraction | int,
    crf: int = 18,
    metadata: dict[str, str] | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    sample_aspect: Fraction | None = None,
    timestamps: Iterable[Fraction] | None = None,
    faststart: bool = True,
    preset: str = "medium",
    exact: bool = False,
) -> None:
    """H.264 MP4, limited range BT.709. The file appears whole or not at all.

    `timestamps` in seconds make a variable rate. `exact` gives equal bytes for equal frames every
    time, for a larger file: x264's lookahead was seen to decide differently once in 300 clips.
    """

    def encode(temporary: Path) -> None:
        options = {"movflags": "+faststart" if faststart else "+use_metadata_tags"}
        with av.open(str(temporary), "w", format="mp4", options=options) as container:
            container.metadata.update(metadata or {})
            _encode(container)

    def _encode(container: Any) -> None:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.pix_fmt = pixel_format
        stream.options = {"crf": str(crf), "preset": preset, "threads": "1"}
        if exact:
            stream.options = stream.options | {"x264-params": EXACT}
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 90_000)
        stream.codec_context.color_range = 1
        for name in ("colorspace", "color_primaries", "color_trc"):
            setattr(stream.codec_context, name, 1)
        times = iter(timestamps) if timestamps is not None else None
        empty = True
        for index, pixels in enumerate(frames):
            if empty:
                stream.height, stream.width = pixels.shape[:2]
                if sample_aspect:
                    stream.codec_context.sample_aspect_ratio = sample_aspect
                empty = False
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(format=pixel_format, dst_colorspace="ITU709")
            frame.time_base = Fraction(1, 90_000)
            seconds = next(times) if times else index / Fraction(fps)
            frame.pts = int(seconds * 90_000)
            container.mux(stream.encode(frame))
        if empty:
            raise UserError("a video needs at least one frame")
        container.mux(stream.encode())

    write_whole(path, encode)


# ---- below: what PyAV does not say plainly ----


def _said(error: BaseException) -> str:
    """An error in a few words, without FFmpeg's log."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0][:200]


@contextlib.contextmanager
def _container(file: BinaryIO) -> Iterator[tuple[Any, Any]]:
    file.seek(0)
    try:
        container = av.open(file, mode="r", buffer_size=65_536)
    except DAMAGE as error:
        raise RowError(
            "unreadable_video", f"not a video that can be read: {_said(error)}"
        ) from None
    with container:
        if not container.streams.video:
            raise RowError("no_video_stream", "the file holds no video stream")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise RowError("unreadable_video", "no decoder knows this video stream")
        try:
            yield container, stream
        except DAMAGE as error:
            raise RowError("unreadable_video", _said(error)) from None


def _variable_rate(stream: Any) -> bool:
    """True when the index has frames of clearly different length; False where there is no index."""
    times = sorted(entry.timestamp for entry in stream.index_entries)
    steps = [later - earlier for earlier, later in itertools.pairwise(times)][:-1]
    # A rate that its clock cannot divide evenly gives steps that differ by one tick.
    return bool(steps) and max(steps) - min(steps) > max(1, min(steps) // 10)


def _probe(stream: Any, rotation: int) -> VideoProbe:
    context = stream.codec_context
    width, height = context.width, context.height
    if not width or not height:
        raise RowError("unreadable_video", "the header has no frame size")
    aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
    shown_width, shown_height = round(width * aspect), height
    turn = -rotation % 360  # FFmpeg counts counterclockwise
    turn = round(turn / 90) * 90 % 360
    if turn in (90, 270):
        shown_width, shown_height = shown_height, shown_width
    depth = max((part.bits for part in context.format.components), default=8)
    rate = stream.average_rate or stream.guessed_rate or 0
    return VideoProbe(
        width=shown_width,
        height=shown_height,
        coded_width=width,
        coded_height=height,
        rotation=turn,
        sample_aspect=aspect,
        fps=float(rate),
        num_frames_header=stream.frames or None,
        bit_depth=depth,
        full_range=context.color_range == 2,
        variable_rate=_variable_rate(stream),
        codec=context.name,
    )


def _rotation_of_header(file: BinaryIO) -> int:
    """The display matrix reaches PyAV only with a decoded frame; one is decoded for it."""
    with _container(file) as (container, stream):
        stream.thread_type = "NONE"
        with contextlib.suppress(*DAMAGE):
            for frame in container.decode(stream):
                rotation: int = frame.rotation
                return rotation
    return 0


def _rgb(frame: Any) -> Frame:
    """RGB by the file's own matrix and range; BT.709 from 720 rows on, BT.601 below, if unsaid."""
    matrix = {1: "ITU709", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M", 9: "BT2020"}.get(
        frame.colorspace, "ITU709" if frame.height >= 720 else "ITU601"
    )
    with contextlib.suppress(KeyError, ValueError):
        converted = frame.reformat(format="rgb24", src_colorspace=matrix, dst_colorspace="ITU709")
        pixels: Frame = converted.to_ndarray()
        return pixels
    fallback: Frame = frame.to_ndarray(format="rgb24")
    return fallback
