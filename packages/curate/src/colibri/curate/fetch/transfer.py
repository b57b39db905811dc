"""One file from the server to its place on disk: whole, out of a zip, or from a plain URL.

Each function goes on with the .part it finds, checks what it got, and says in one sentence when it
has to begin again.
"""

import hashlib
import logging
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from colibri.core.errors import RowError, UserError
from colibri.curate.fetch.hub import HubFile
from colibri.curate.fetch.partial import Partial
from colibri.curate.fetch.remote_zip import RemoteZip
from colibri.curate.fetch.web import Changed, HttpRefused, RangeIgnored, Web

_BLOCK_BYTES = 1 << 20
_log = logging.getLogger(__name__)


def _silent(_: int) -> None:
    pass


def fetch_file(
    web: Web, file: HubFile, target: Path, *, progress: Callable[[int], object] = _silent
) -> None:
    """A whole file of the hub, checked by its SHA-256 or git's hash. `progress` hears bytes."""
    with Partial(target, key=f"{file.sha256 or file.blob_id}:{file.size_bytes}") as partial:
        progress(partial.size_bytes)
        for last_try in (False, True):
            resumed = partial.size_bytes > 0
            _read_whole(web, file.url, file.path, file.size_bytes, partial, progress)
            if _digests(partial.synced(), file):
                return partial.finish()
            progress(-partial.size_bytes)
            partial.restart()
            if last_try or not resumed:
                break
            _log.warning("%s does not have the hub's hash; started again", target.name)
    raise UserError(
        f"{file.path} arrives with other bytes than the hub's hash promises",
        hint="run the same command again; if it stays, the hub's copy or a proxy is broken",
    )


def is_whole(path: Path, file: HubFile) -> bool:
    """True when the file on disk has the hub's size and hash."""
    return path.is_file() and path.stat().st_size == file.size_bytes and _digests(path, file)


def fetch_member(archive: RemoteZip, entry: zipfile.ZipInfo, target: Path) -> int:
    """One member as a plain file, checked by its CRC-32. Returns the bytes that came over the line.

    RowError `unreadable_video` when its bytes are damaged on the server.
    """
    name = entry.orig_filename
    if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        how = "encrypted" if entry.flag_bits & 1 else f"packed by method {entry.compress_type}"
        raise RowError("unreadable_video", f"{name!r} in {archive.path} is {how}")
    start, end = archive.span(entry)
    received = 0
    with Partial(target, key=f"{archive.path}:{start}-{end}:{entry.CRC:08x}") as partial:

        def keep(piece: bytes) -> None:
            nonlocal received
            received += len(piece)
            partial.write(piece)

        for last_try in (False, True):
            resumed = partial.size_bytes > 0
            try:
                archive.read(
                    start + partial.size_bytes,
                    end,
                    keep,
                    etags=partial.etags,
                    on_etag=partial.heard,
                )
            except Changed:
                partial.restart()
                if last_try or not resumed:
                    raise UserError(
                        f"{archive.path} changed on the server while it was read",
                        hint="run the same command again",
                    ) from None
                _log.warning("%s changed on the server; %s started again", archive.path, name)
                continue
            unpacked = partial.path.with_name(partial.path.name + "~")
            try:
                _unpack(partial.synced(), entry, unpacked)
                partial.finish(unpacked)
                return received
            except RowError:
                unpacked.unlink(missing_ok=True)
                if last_try or not resumed:
                    partial.discard()
                    raise
                partial.restart()
                _log.warning("%s does not have its CRC-32; started again", target.name)
    raise AssertionError("unreachable")


def is_member(path: Path, entry: zipfile.ZipInfo, *, deep: bool = True) -> bool:
    """True when the file has the member's size and, when looked at `deep`, its CRC-32."""
    if not path.is_file() or path.stat().st_size != entry.file_size:
        return False
    crc = 0
    for block in _blocks(path) if deep else ():
        crc = zlib.crc32(block, crc)
    return not deep or crc == entry.CRC


def fetch_url(web: Web, url: str, target: Path) -> None:
    """A file that has no known hash, as long as its server says it is.

    RowError `missing_file` when the server does not have it or does not give it.
    """
    with Partial(target, key=url) as partial:
        if not partial.etags:
            partial.restart()  # nothing would tell that the rest comes from the same version
        try:
            _read_whole(web, url, target.name, None, partial, _silent)
        except HttpRefused as error:
            partial.discard()
            raise RowError("missing_file", error.message) from None
        if not partial.size_bytes:
            partial.discard()
            raise RowError("empty_file", f"{url} answers with no bytes")
        partial.synced()
        partial.finish()


def _read_whole(
    web: Web,
    url: str,
    name: str,
    size_bytes: int | None,
    partial: Partial,
    progress: Callable[[int], object],
) -> None:
    def keep(piece: bytes) -> None:
        partial.write(piece)
        progress(len(piece))

    while size_bytes is None or partial.size_bytes < size_bytes:
        try:
            web.read(
                url,
                partial.size_bytes,
                None,
                keep,
                etag=partial.etags.get(name),
                on_etag=lambda etag: partial.heard(name, etag),
            )
            break
        except (Changed, RangeIgnored) as error:
            if not partial.size_bytes:
                if isinstance(error, RangeIgnored):
                    raise
                raise UserError(
                    f"{name} changed on the server while it was read",
                    hint="run the same command again",
                ) from None
            why = "changed on the server" if isinstance(error, Changed) else "cannot be continued"
            _log.warning("%s %s; started again", name, why)
            progress(-partial.size_bytes)
            partial.restart()


def _unpack(packed: Path, entry: zipfile.ZipInfo, target: Path) -> None:
    """Write a member from its raw bytes, which begin with its local header."""
    crc = size = 0
    with packed.open("rb") as source, target.open("wb") as out:
        header = source.read(30)
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise RowError("unreadable_video", f"{entry.orig_filename!r} has no local header")
        source.seek(int.from_bytes(header[26:28], "little"), os.SEEK_CUR)
        source.seek(int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
        try:
            for block in _inflated(source, entry):
                size += len(block)
                if size > entry.file_size:
                    break
                crc = zlib.crc32(block, crc)
                out.write(block)
        except zlib.error as error:
            raise RowError("unreadable_video", f"{entry.orig_filename!r}: {error}") from None
        out.flush()
        os.fsync(out.fileno())
    if size != entry.file_size or crc != entry.CRC:
        message = f"{entry.orig_filename!r} does not have the CRC-32 that its archive promises"
        raise RowError("unreadable_video", message)


def _inflated(source: Any, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    left = entry.compress_size
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if entry.compress_type else None
    while left > 0:
        block = source.read(min(left, _BLOCK_BYTES))
        if not block:
            return
        left -= len(block)
        while block:
            yield inflate.decompress(block, _BLOCK_BYTES) if inflate else block
            block = inflate.unconsumed_tail if inflate else b""
    if inflate:
        yield inflate.flush()


def _digests(path: Path, file: HubFile) -> bool:
    if file.sha256 is not None:
        digest, expected = hashlib.sha256(), file.sha256
    elif file.blob_id is not None:
        digest, expected = hashlib.sha1(usedforsecurity=False), file.blob_id
        digest.update(b"blob %d\0" % path.stat().st_size)
    else:
        return stat.S_ISREG(path.stat().st_mode) and path.stat().st_size == file.size_bytes
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest() == expected


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        while block := source.read(_BLOCK_BYTES):
            yield block
