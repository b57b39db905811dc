"""A plain folder of `<id>.mp4` and `<id>.txt`."""

from collections.abc import Iterator
from pathlib import Path

from colibri.core.shards import write_whole
from colibri.curate.export.base import Entry, ExportConfig, Format, Sampling, check_frames


def check(entry: Entry, sampling: Sampling) -> None:
    """RowError: too_short."""
    check_frames(entry, sampling.frames)


def write(entries: Iterator[Entry], config: ExportConfig, root: Path) -> set[str]:
    """Write a text beside each video: the caption as it is, UTF-8, no line break behind it."""
    names = set()
    for entry in entries:
        _write_text(config.to / f"{entry.id}.txt", entry.caption.encode())
        names.add(f"{entry.id}.txt")
    return names


def _write_text(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        write_whole(path, lambda temporary: temporary.write_bytes(content))


FORMAT = Format(
    name="folder",
    modes=("copy", "link"),
    endings=(".mp4",),
    sampling=Sampling(),
    honours=("frames",),
    check=check,
    write=write,
    videos_folder=".",
)
