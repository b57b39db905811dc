"""Tar shards in webdataset's layout: `<id>.json`, `<id>.mp4`, `<id>.txt` follow each other.

A finished tar is known again by its members' names and sizes and by its captions, so that a stopped
export goes on behind it.
"""

import io
import itertools
import json
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from colibri.core.archive import resolve_inside
from colibri.core.errors import RowError, UserError
from colibri.core.shards import write_whole
from colibri.core.video import open_ref
from colibri.curate.export.base import Entry, ExportConfig, Format, Sampling, check_frames
from colibri.curate.export.videos import changed_ns


def check(entry: Entry, sampling: Sampling) -> None:
    """RowError: too_short."""
    check_frames(entry, sampling.frames)


def write(entries: Iterator[Entry], config: ExportConfig, root: Path) -> set[str]:
    """Write DIR/shard-NNNNNN.tar, `config.shard_rows` clips each."""
    names: set[str] = set()
    while chunk := list(itertools.islice(entries, config.shard_rows)):
        path = config.to / f"shard-{len(names):06d}.tar"
        if not _is_current(path, chunk, root):
            write_whole(path, partial(_write_tar, chunk=chunk, root=root))
        names.add(path.name)
    return names


def _texts(entry: Entry) -> dict[str, bytes]:
    """The members of one clip beside its video."""
    fields = {
        "id": entry.id,
        "source": entry.source,
        "caption": entry.caption,
        "licence": entry.licence,
        "split": entry.split,
        "width": entry.width,
        "height": entry.height,
        "fps": entry.fps,
        "num_frames": entry.num_frames,
    }
    return {
        f"{entry.id}.json": json.dumps(fields, ensure_ascii=False).encode(),
        f"{entry.id}.txt": entry.caption.encode(),
    }


def _write_tar(path: Path, chunk: list[Entry], root: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for entry in chunk:
            texts = _texts(entry)
            _add(tar, f"{entry.id}.json", io.BytesIO(texts[f"{entry.id}.json"]))
            try:
                with open_ref(entry.ref, root) as video:
                    _add(tar, f"{entry.id}.mp4", video)
            except RowError as error:
                raise UserError(
                    f"the video of {entry.id} went away during the export: {error.message}",
                    hint="run the same command again",
                ) from None
            _add(tar, f"{entry.id}.txt", io.BytesIO(texts[f"{entry.id}.txt"]))


def _add(tar: tarfile.TarFile, name: str, content: BinaryIO) -> None:
    info = tarfile.TarInfo(name)
    info.size = content.seek(0, 2)
    content.seek(0)
    tar.addfile(info, content)


def _is_current(path: Path, chunk: list[Entry], root: Path) -> bool:
    if not path.is_file():
        return False
    written_ns = path.stat().st_mtime_ns
    if any(changed_ns(resolve_inside(root, entry.ref.video)) > written_ns for entry in chunk):
        return False
    expected: list[tuple[str, int]] = []
    texts: dict[str, bytes] = {}
    for entry in chunk:
        own = _texts(entry)
        texts |= own
        expected.append((f"{entry.id}.json", len(own[f"{entry.id}.json"])))
        expected.append((f"{entry.id}.mp4", entry.size_bytes))
        expected.append((f"{entry.id}.txt", len(own[f"{entry.id}.txt"])))
    try:
        with tarfile.open(path) as tar:
            if [(member.name, member.size) for member in tar] != expected:
                return False
            return all(_content(tar, name) == text for name, text in texts.items())
    except tarfile.TarError:
        return False


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


FORMAT = Format(
    name="webdataset",
    modes=(),
    endings=(".mp4",),
    sampling=Sampling(),
    honours=("frames",),
    check=check,
    write=write,
)
