"""Zips that lie on a server, whole or in parts: their directories and the bytes of single members.

`zipfile` reads the directory, ZIP64 included, from a file whose reads are range requests.
"""

import bisect
import io
import logging
import re
import threading
import zipfile
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import BinaryIO, cast

from colibri.core.errors import UserError
from colibri.curate.fetch.hub import HubFile
from colibri.curate.fetch.web import Web
from colibri.curate.sources.base import base_name

_PART = re.compile(r"(?P<head>.*?[._]?part_?)(?P<suffix>[a-z]{2})")
_TAIL_BYTES = 1 << 16
_LARGEST_DIRECTORY_BYTES = 1 << 30
_LOCAL_HEADER_BYTES = 30 + 2 * 0xFFFF
_log = logging.getLogger(__name__)


def group_parts(files: Iterable[HubFile]) -> list[tuple[HubFile, ...]]:
    """Whole zips and complete sets of parts, sorted by path. UserError when a part is missing."""
    groups: dict[str, dict[str, HubFile]] = {}
    for file in files:
        match = _PART.fullmatch(file.path)
        if match:
            groups.setdefault(match["head"], {})[match["suffix"]] = file
        elif file.path.lower().endswith(".zip"):
            groups[file.path] = {"": file}
    found = []
    for head, parts in sorted(groups.items()):
        if "" not in parts:
            for index in range(len(parts)):
                suffix = chr(97 + index // 26) + chr(97 + index % 26)
                if suffix not in parts:
                    raise UserError(f"the repository has no {head}{suffix} among its parts")
        found.append(tuple(parts[suffix] for suffix in sorted(parts)))
    return found


class RemoteZip:
    """One zip. Its directory is read when it is first needed, with two or three requests."""

    def __init__(self, web: Web, parts: tuple[HubFile, ...]) -> None:
        self.parts = parts
        self.path = parts[0].path
        self.size_bytes = sum(part.size_bytes for part in parts)
        self._web = web
        self._etags: dict[str, str] = {}
        self._lock = threading.Lock()

    @cached_property
    def members(self) -> dict[str, list[zipfile.ZipInfo]]:
        """Last part of a member's name -> the members that end in it; none in a damaged zip."""
        try:
            with zipfile.ZipFile(cast(BinaryIO, self._directory_file)) as directory:
                entries = directory.infolist()
                self._directory_start = directory.start_dir
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
            _log.warning("%s on the hub cannot be read as a zip archive: %s", self.path, error)
            self._directory_start = 0
            return {}
        found: dict[str, list[zipfile.ZipInfo]] = {}
        for entry in entries:
            if not entry.is_dir():
                found.setdefault(base_name(entry.orig_filename), []).append(entry)
        return found

    def span(self, entry: zipfile.ZipInfo) -> tuple[int, int]:
        """Positions in the joined parts that hold a member with its local header.

        The local header's length stands in itself, so the end is that of the next member.
        """
        start = entry.header_offset
        index = bisect.bisect_right(self._starts, start)
        following = self._starts[index] if index < len(self._starts) else self.size_bytes
        return start, min(following, start + _LOCAL_HEADER_BYTES + entry.compress_size)

    def read(
        self,
        start: int,
        end: int,
        sink: Callable[[bytes], object],
        *,
        etags: dict[str, str] | None = None,
        on_etag: Callable[[str, str | None], None] | None = None,
    ) -> None:
        """Hand bytes [start, end) of the joined parts to `sink`.

        `etags` are versions (path of a part -> ETag) that earlier bytes came from. Raises Changed
        when a part has another one now, and what `Web.read` raises.
        """
        offset = 0
        for part in self.parts:
            first, last = max(start - offset, 0), min(end - offset, part.size_bytes)
            offset += part.size_bytes
            if first >= last:
                continue
            with self._lock:
                known = self._etags.get(part.path)
            expected = (etags or {}).get(part.path, known)
            if expected and on_etag:
                on_etag(part.path, expected)

            def heard(etag: str | None, path: str = part.path) -> None:
                if etag:
                    with self._lock:
                        self._etags.setdefault(path, etag)
                if on_etag:
                    on_etag(path, etag)

            self._web.read(part.url, first, last, sink, etag=expected, on_etag=heard)

    @cached_property
    def _starts(self) -> list[int]:
        starts = [entry.header_offset for entries in self.members.values() for entry in entries]
        return [*sorted(starts), self._directory_start]

    @property
    def _directory_file(self) -> io.RawIOBase:
        return _Reader(self)


class _Reader(io.RawIOBase):
    """The joined parts as a file. Short reads near the end are served from one request."""

    def __init__(self, remote: RemoteZip) -> None:
        self._remote = remote
        self._position = 0
        self._tail_start = max(0, remote.size_bytes - _TAIL_BYTES)
        self._tail: bytes | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        size = self._remote.size_bytes
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: size}[whence]
        if base + offset < 0:
            raise OSError(22, "negative seek")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._remote.size_bytes - self._position)
        count = left if size is None or size < 0 else min(size, left)
        if count > _LARGEST_DIRECTORY_BYTES:
            raise OSError(f"its directory claims {count:,} bytes")
        start = self._position
        self._position += count
        if start < self._tail_start:
            return self._fetched(start, start + count)
        if self._tail is None:
            self._tail = self._fetched(self._tail_start, self._remote.size_bytes)
        return self._tail[start - self._tail_start :][:count]

    def _fetched(self, start: int, end: int) -> bytes:
        pieces: list[bytes] = []
        self._remote.read(start, end, pieces.append)
        return b"".join(pieces)
