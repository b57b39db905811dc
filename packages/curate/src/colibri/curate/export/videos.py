"""A row's video: measured where it lies, then put where the trainer finds it."""

import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from colibri.core.archive import parts_of, resolve_inside
from colibri.core.clip import VideoRef
from colibri.core.errors import RowError
from colibri.core.shards import write_whole
from colibri.core.video import DAMAGE, count_frames, open_ref, probe, read_frames
from colibri.curate.export.base import Entry, Row, VideoMode

BLOCK_BYTES = 1 << 20


def measure(row: Row, root: Path, *, decode: bool) -> Entry:
    """The row with what its file holds now: frames are counted, or with `decode` decoded up to the
    first that cannot be.

    RowError: those of `open_ref`, unreadable_video, no_video_stream.
    """
    with open_ref(row.ref, root) as file:
        if isinstance(file, zipfile.ZipExtFile):
            _read_through(file)  # a compressed member may break off anywhere
        size_bytes = file.seek(0, 2)
        header = probe(file)
        num_frames = sum(1 for _ in read_frames(file)) if decode else count_frames(file)
    width, height = header.coded_width, header.coded_height
    if header.rotation in (90, 270):
        width, height = height, width
    return Entry(
        id=row.id,
        ref=row.ref,
        source=row.source,
        caption=row.caption,
        licence=row.licence,
        split=row.split,
        width=width,
        height=height,
        fps=header.fps,
        num_frames=num_frames,
        size_bytes=size_bytes,
        rotated=header.rotation != 0,
        aspect=header.width / header.height,
    )


def check_ref(ref: VideoRef, endings: tuple[str, ...], mode: VideoMode | None) -> None:
    """RowError: segment, file_ending."""
    if ref.start_s:
        raise RowError(
            "segment",
            f"the clip begins at {ref.start_s:g} s of its file and the trainer reads from the "
            "start; cut it out first",
        )
    name = PurePosixPath(ref.member or ref.video)
    # A file that gets a name of its own gets a lower-case one.
    kept = mode == "reference" and ref.member is None
    ending = name.suffix if kept else name.suffix.lower()
    if endings and ending not in endings:
        hint = "; --videos link mends it" if kept and ending.lower() in endings else ""
        raise RowError("file_ending", f"{name.name!r} does not end in {' or '.join(endings)}{hint}")


def place(entry: Entry, root: Path, to: Path, folder: str, mode: VideoMode) -> Path:
    """Put the video below `to` / `folder`, unless it is there; its path, relative to `to` or,
    where referenced, absolute. RowError when it cannot be read to its end."""
    ref = entry.ref
    source = resolve_inside(root, ref.video)
    if mode == "reference" and ref.member is None:
        return source.absolute()
    ending = PurePosixPath(ref.member or ref.video).suffix.lower()
    relative = Path(folder) / f"{entry.id}{ending}"
    target = to / relative
    if mode == "link" and ref.member is None:
        _link(source.absolute(), target)
    elif not _is_copy(target, entry.size_bytes, changed_ns(source)):
        with open_ref(ref, root) as file:
            write_whole(target, lambda temporary: _copy(file, temporary))
    return relative


def changed_ns(path: Path) -> int:
    """When a file, or a split archive's youngest part, was last written."""
    return max(part.stat().st_mtime_ns for part in parts_of(path))


def _is_copy(target: Path, size_bytes: int, source_ns: int) -> bool:
    if target.is_symlink() or not target.is_file():
        return False
    status = target.stat()
    return status.st_size == size_bytes and status.st_mtime_ns >= source_ns


def _link(source: Path, target: Path) -> None:
    if target.is_symlink() and target.readlink() == source:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(source)
    temporary.replace(target)


def _copy(file: BinaryIO, target: Path) -> None:
    with target.open("wb") as out:
        file.seek(0)
        while block := _read(file):
            out.write(block)


def _read_through(file: BinaryIO) -> None:
    file.seek(0)
    while _read(file):
        pass


def _read(file: BinaryIO) -> bytes:
    try:
        return file.read(BLOCK_BYTES)
    except DAMAGE as error:
        raise RowError("unreadable_video", f"it breaks off while it is read: {error}") from None
