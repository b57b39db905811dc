"""An MP4 that can be played while it grows: one fragment a block, each encoded on its own.

A fragment depends on its frames, its number and its place in time alone, so a file that is cut
back to its last whole fragment goes on to the same bytes. At the end `finished` makes it a plain
MP4 without encoding again.
"""

import io
import os
import struct
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from colibri.core.errors import UserError
from colibri.core.shards import write_whole
from colibri.core.video import EXACT
from colibri.infer.decode import Frames

CLOCK = 90_000
"""Ticks a second of the file's times."""
FRAGMENT = "+empty_moov+default_base_moof+frag_discont+skip_trailer+use_metadata_tags"
"""How FFmpeg's muxer writes a fragment that may follow others it knows nothing of."""


class GrowingVideo:
    """A fragmented H.264 MP4 on disk, limited range BT.709. Appends whole fragments."""

    def __init__(
        self,
        path: Path,
        *,
        fps: int,
        metadata: Mapping[str, str],
        crf: int = 18,
        preset: str = "veryfast",
    ) -> None:
        self.path = path
        self._fps, self._metadata, self._crf, self._preset = fps, dict(metadata), crf, preset

    def cut(self, size: int) -> None:
        """Cut off what came after `size` bytes; the file may be missing where that is 0.

        UserError where the file is shorter.
        """
        if size == 0:
            self.path.unlink(missing_ok=True)
            return
        found = self.path.stat().st_size if self.path.exists() else 0
        if found < size:
            raise UserError(
                f"{self.path} has {found:,} bytes, {size:,} were written",
                hint="put it back, or remove the folder of its blocks to begin again",
            )
        os.truncate(self.path, size)

    def append(self, frames: Frames, *, index: int, start: int) -> int:
        """Write fragment `index` (from 0), whose first frame is `start`; the file's size after it.

        `frames` are uint8 (frames, height, width, 3). They are on the disk on return.
        """
        header, fragment = self._encode(frames, index, start)
        with self.path.open("r+b" if index else "wb") as file:
            file.seek(0, os.SEEK_END)
            file.write(fragment if index else header + fragment)
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def _encode(self, frames: Frames, index: int, start: int) -> tuple[bytes, bytes]:
        """What stands before all fragments, and this one."""
        file = io.BytesIO()
        options = {
            "movflags": FRAGMENT,
            "fragment_index": str(index + 1),
            "use_editlist": "0",
            "avoid_negative_ts": "disabled",  # else every fragment begins at 0
        }
        with av.open(file, "w", format="mp4", options=options) as container:
            container.metadata.update(self._metadata)
            stream: Any = container.add_stream("libx264", rate=Fraction(self._fps))
            stream.pix_fmt = "yuv420p"
            stream.height, stream.width = frames.shape[1:3]
            stream.options = {
                "crf": str(self._crf),
                "preset": self._preset,
                "threads": "1",
                # No frame is held back, and the first alone is a key frame: one fragment.
                "x264-params": f"{EXACT}:keyint=infinite",
            }
            context = stream.codec_context
            context.thread_count = 1
            context.time_base = Fraction(1, CLOCK)
            context.color_range = 1
            for name in ("colorspace", "color_primaries", "color_trc"):
                setattr(context, name, 1)
            for number, pixels in enumerate(frames, start=start):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
                frame.time_base = Fraction(1, CLOCK)
                frame.pts = number * CLOCK // self._fps
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        written = file.getvalue()
        head = _start_of(written, b"moof")
        return written[:head], written[head:]


def finished(growing: Path, path: Path, *, metadata: Mapping[str, str]) -> None:
    """A plain MP4 with its index in front from a growing one, whole or not at all; no encoding."""

    def copy(temporary: Path) -> None:
        options = {"movflags": "+faststart"}
        with (
            av.open(str(growing)) as source,
            av.open(str(temporary), "w", format="mp4", options=options) as target,
        ):
            target.metadata.update(dict(metadata))
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)

    write_whole(path, copy)


def _start_of(written: bytes, kind: bytes) -> int:
    """Where the first box of this kind begins."""
    at = 0
    while at + 8 <= len(written):
        size, found = struct.unpack(">I4s", written[at : at + 8])
        if found == kind:
            return at
        at += size if size >= 8 else len(written)
    raise AssertionError(f"FFmpeg wrote no {kind!r} box")
