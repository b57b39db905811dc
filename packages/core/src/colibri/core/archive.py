"""Files inside zips and split zips, read where they lie: nothing is joined or unpacked on disk."""

import bisect
import errno
import functools
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from colibri.core.errors import RowError, UserError

_PART = re.compile(r"^(?P<stem>.*?)[._]?part_?(?P<suffix>[a-z]{2})$")


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberInfo:
    """One file in an archive."""

    name: str
    size: int
    """Bytes, unpacked."""


def resolve_inside(root: Path, relative: str) -> Path:
    """`root / relative`, refused when it leaves `root` by `..`, by being absolute or by a link."""
    pure = PurePosixPath(relative)
    if not relative or "\0" in relative or pure.is_absolute() or ".." in pure.parts:
        raise RowError("unsafe_path", f"{relative!r} leaves the data root")
    path = root / pure
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a name too long, a loop of links
        inside = False
    if not inside:
        raise RowError("unsafe_path", f"{relative!r} leads out of the data root")
    return path


def parts_of(path: Path) -> tuple[Path, ...]:
    """The parts of a split archive, given the first; `(path,)` for a whole one."""
    match = _PART.match(path.name)
    if not match:
        return (path,)
    head = path.name[: match.start("suffix")]
    found = {
        other.name[len(head) :]: other
        for other in path.parent.iterdir()
        if other.name.startswith(head) and re.fullmatch("[a-z]{2}", other.name[len(head) :])
    }
    if match["suffix"] != "aa":
        raise UserError(f"{path.name} is not the first part", hint=f"name {head}aa")
    expected = [chr(97 + i // 26) + chr(97 + i % 26) for i in range(len(found))]
    for suffix in expected:
        if suffix not in found:
            raise UserError(
                f"{path.parent / (head + suffix)} is missing among {len(found)} parts",
                hint="download that part again",
            )
    return tuple(found[suffix] for suffix in expected)


def first_parts(folder: Path) -> list[Path]:
    """Archives in `folder`: whole zips, and the first parts of split ones. Sorted by name."""
    found = []
    for path in sorted(folder.iterdir()):
        match = _PART.match(path.name)
        if match:
            if match["suffix"] == "aa":
                found.append(path)
        elif path.suffix.lower() == ".zip":
            found.append(path)
    return found


def members(path: Path) -> dict[str, MemberInfo]:
    """Files in an archive, by name. UserError when the archive is damaged or a part is missing."""
    return {
        entry.filename: MemberInfo(name=entry.filename, size=entry.file_size)
        for entry in _directory(path).infolist()
        if not entry.is_dir()
    }


def open_member(path: Path, name: str) -> BinaryIO:
    """A seekable file. A stored member is a window onto the archive; others are inflated."""
    directory = _directory(path)
    try:
        entry = directory.getinfo(name)
    except KeyError:
        raise RowError("missing_member", f"{path.name} holds no {name!r}") from None
    if entry.flag_bits & 1:
        raise RowError("unreadable_video", f"{name!r} in {path.name} is encrypted")
    if entry.compress_type != zipfile.ZIP_STORED:
        return cast(BinaryIO, directory.open(entry))
    stream = _open_parts(parts_of(path))
    stream.seek(entry.header_offset)
    header = stream.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise RowError("unreadable_video", f"{path.name} is damaged at {name!r}")
    start = entry.header_offset + 30 + int.from_bytes(header[26:28], "little")
    start += int.from_bytes(header[28:30], "little")
    return cast(BinaryIO, _Window(stream, start, entry.file_size))


def _directory(path: Path) -> zipfile.ZipFile:
    parts = parts_of(path)
    try:
        stamp = tuple((status.st_size, status.st_mtime_ns) for status in (p.stat() for p in parts))
    except FileNotFoundError:
        raise UserError(f"there is no archive {path}") from None
    return _read_directory(parts, stamp)


@functools.lru_cache(maxsize=32)
def _read_directory(parts: tuple[Path, ...], stamp: tuple[tuple[int, int], ...]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(cast(BinaryIO, _open_parts(parts)))
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise UserError(
            f"{parts[0]} cannot be read as a zip archive ({error})",
            hint="its download is cut short or a part is missing; fetch it again",
        ) from None


def _open_parts(parts: Sequence[Path]) -> io.RawIOBase:
    return _Joined(parts)


class _Sized(io.RawIOBase):
    """A read-only stream of known size, with a position that seeks."""

    def __init__(self, size: int) -> None:
        self._size, self._position = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "negative seek")
        self._position = base + offset
        return self._position


class _Joined(_Sized):
    """Several files seen as one, read-only."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self._files = [part.open("rb", buffering=0) for part in parts]
        self._starts = [0]
        for part in parts:
            self._starts.append(self._starts[-1] + part.stat().st_size)
        super().__init__(self._starts[-1])

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        index = bisect.bisect_right(self._starts, self._position) - 1
        if index >= len(self._files):
            return 0
        file = self._files[index]
        file.seek(self._position - self._starts[index])
        size = min(len(buffer), self._starts[index + 1] - self._position)
        count = file.readinto(memoryview(buffer)[:size]) or 0
        self._position += count
        return count

    def read(self, size: int | None = -1) -> bytes:
        """All `size` bytes, across the seams, unless the end comes first."""
        if size is None or size < 0:
            size = max(0, self._size - self._position)
        pieces = []
        while size > 0:
            piece = super().read(size)
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


class _Window(_Sized):
    """`size` bytes of a stream from `start`, seen as a file of their own."""

    def __init__(self, stream: io.RawIOBase, start: int, size: int) -> None:
        super().__init__(size)
        self._stream, self._start = stream, start

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        count = left if size is None or size < 0 else min(size, left)
        self._stream.seek(self._start + self._position)
        piece = self._stream.read(count) or b""
        self._position += len(piece)
        return piece

    def close(self) -> None:
        self._stream.close()
        super().close()
