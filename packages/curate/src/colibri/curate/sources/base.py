"""What a source is, and what its readers share: finding a folder, reading tables, placing videos.

A reader looks at what is on disk, says what it chose, and never guesses between two candidates.
"""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from colibri.core import archive
from colibri.core.clip import Clip, VideoRef, clip_id
from colibri.core.errors import RowError, UserError

VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".mov", ".avi")


@dataclass(frozen=True, kw_only=True, slots=True)
class Licence:
    """A licence's name, and whether it is flagged as not clearly allowing training."""

    name: str
    flagged: bool


LICENCES = {
    "apache-2.0": Licence(name="Apache 2.0", flagged=False),
    "cc-by-4.0": Licence(name="CC BY 4.0 (annotations only)", flagged=False),
    "pexels": Licence(name="Pexels licence (forbids bulk use for training)", flagged=True),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """How one data set is read; everything is found by looking unless it is said here."""

    root: str | None = None
    """Folder of the data set below --data-root."""
    caption_column: str | None = None
    """Column that holds the caption."""
    captions: str | None = None
    """File with a caption per video: CSV with columns file, text, or JSON lines."""
    subset: str | None = None
    """OpenVid: hd, 1m or both. Without it: hd where its table is there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceLayout:
    """What was found on disk."""

    name: str
    data_root: Path
    root: Path
    tables: tuple[Path, ...]
    """Files whose rows become clips."""
    archives: tuple[Path, ...] = ()
    """Whole zips, and the first part of each split one."""
    loose: tuple[Path, ...] = ()
    """Folders that hold videos as plain files."""
    caption_column: str | None = None
    facts: tuple[str, ...] = ()


class Source(Protocol):
    """A published data set. `find` looks for it; `clips` yields every row of its tables."""

    name: str
    licence: str

    def find(self, data_root: Path, config: SourceConfig) -> SourceLayout | None: ...

    def clips(self, layout: SourceLayout, config: SourceConfig) -> Iterator[Clip]: ...


def find_root(data_root: Path, config: SourceConfig, name: str, pattern: str) -> Path | None:
    """The one folder at or below `data_root` in which `pattern` matches something."""
    if config.root is not None:
        folder = data_root / config.root
        if not folder.is_dir():
            raise UserError(f"{name}: there is no folder {folder}", hint=f"mend --{name}.root")
        return folder
    folders = [data_root, *sorted(path for path in data_root.iterdir() if path.is_dir())]
    found = [folder for folder in folders if next(folder.glob(pattern), None)]
    if len(found) > 1:
        raise UserError(
            f"{name} could be {' or '.join(folder.name or str(folder) for folder in found)}",
            hint=f"say which with --{name}.root",
        )
    return found[0] if found else None


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One row of a CSV table; `problem` instead of values where it cannot be read."""

    line: int
    values: dict[str, str]
    problem: str | None = None


def read_csv(path: Path) -> Iterator[TableRow]:
    """Rows of a CSV file with a header. UserError when there is no header or it is not UTF-8."""
    csv.field_size_limit(sys.maxsize)
    header: list[str] | None = None
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(line.replace("\0", "\ufffd") for line in file)
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield TableRow(line=reader.line_num, values={}, problem=str(error))
                continue
            if cells is None:
                break
            if not cells:
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                continue
            values = dict(zip(header, cells, strict=False))
            problem = None
            if len(cells) != len(header):
                problem = f"{len(cells)} cells under {len(header)} column names"
            yield TableRow(line=reader.line_num, values=values, problem=problem)
    if header is None:
        raise UserError(f"{path} is empty", hint="its first line has to name the columns")


def columns_of(path: Path) -> list[str]:
    """Column names of a CSV file."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        names = next(csv.reader(file), None)
    if not names:
        raise UserError(f"{path} is empty", hint="its first line has to name the columns")
    return [name.strip() for name in names]


def one_column(
    path: Path, candidates: Iterable[str], wanted: str | None, flag: str, what: str
) -> str:
    """The one column of `path` among `candidates`, or `wanted`. Never a guess between two."""
    names = columns_of(path)
    if wanted is not None:
        if wanted not in names:
            raise UserError(f"{path} has no column {wanted!r}", hint=f"it has {', '.join(names)}")
        return wanted
    lowered = {name.lower(): name for name in names}
    found = [lowered[candidate] for candidate in candidates if candidate in lowered]
    if len(found) > 1:
        raise UserError(
            f"{path.name}: {what} could be {' or '.join(map(repr, found))}",
            hint=f"say which with {flag}",
        )
    if not found:
        raise UserError(
            f"{path.name} has no {what} column among {', '.join(names)}",
            hint=f"name it with {flag}",
        )
    return found[0]


class Videos:
    """Where each video of a source lies: plain files in folders, members of archives."""

    def __init__(self, layout: SourceLayout) -> None:
        self._root = layout.data_root
        self.files: dict[str, str] = {}
        """File name (lower-case ending or not, as on disk) -> path relative to the data root."""
        self.members: dict[str, tuple[str, str]] = {}
        """File name -> (archive relative to the data root, member)."""
        self.damaged: dict[str, str] = {}
        """Archive -> why it cannot be read."""
        for folder in layout.loose:
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() in VIDEO_ENDINGS:
                    self.files.setdefault(path.name, path.relative_to(self._root).as_posix())
        for first in layout.archives:
            relative = first.relative_to(self._root).as_posix()
            try:
                names = archive.members(first)
            except UserError as error:
                self.damaged[relative] = str(error)
                continue
            for name in names:
                if name.lower().endswith(VIDEO_ENDINGS):
                    self.members.setdefault(name.rsplit("/", 1)[-1], (relative, name))

    def place(self, name: str) -> VideoRef | None:
        """Where the video called `name` lies (its folder does not matter), or None."""
        base = name.replace("\\", "/").rsplit("/", 1)[-1]
        if base in self.files:
            return VideoRef(video=self.files[base])
        if base in self.members:
            video, member = self.members[base]
            return VideoRef(video=video, member=member)
        return None

    def names(self) -> set[str]:
        """File names of all videos that are there."""
        return self.files.keys() | self.members.keys()


def make_clip(
    source: Source,
    videos: Videos,
    *,
    name: str,
    caption: str | None,
    group: str,
    labels: dict[str, str | float],
    seen: set[str],
    problem: str | None = None,
) -> Clip:
    """A clip from a table's row, with the problem that is plain already: an unsafe name, a missing
    file, no caption, a repeated row."""
    found: tuple[str, str] | None = ("bad_row", problem) if problem else None
    ref = VideoRef(video=name)
    if found is None:
        try:
            archive.resolve_inside(Path("/"), name)
        except RowError as error:
            found = (error.reason, error.message)
        else:
            placed = videos.place(name)
            if placed is None:
                found = ("missing_file", _missing(name, videos))
            else:
                ref = placed
    if found is None and name in seen:
        found = ("duplicate_row", f"{name!r} is listed more than once; the first row counts")
    seen.add(name)
    if found is None and not (caption or "").strip():
        found = ("no_caption", f"{name!r} has no caption")
    return Clip(
        id=clip_id(source.name, name),
        source=source.name,
        ref=ref,
        caption=caption,
        licence=source.licence,
        group=f"{source.name}/{group}",
        labels=labels,
        problem=found,
    )


def read_captions(path: Path) -> dict[str, str]:
    """File name -> caption, from CSV with columns file, text or from JSON lines with those keys."""
    if not path.is_file():
        raise UserError(f"there is no caption file {path}", hint="check --humanvid.captions")
    found: dict[str, str] = {}
    if path.suffix.lower() in (".jsonl", ".json"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                entry = json.loads(line)
                found[Path(entry["file"]).name] = str(entry["text"])
            except (json.JSONDecodeError, KeyError, TypeError):
                raise UserError(
                    f"{path}, line {number} is not an object with file and text"
                ) from None
        return found
    name = one_column(path, ("file", "video", "path"), None, "a column called file", "file name")
    text = one_column(path, ("text", "caption"), None, "a column called text", "caption")
    for row in read_csv(path):
        if row.problem:
            raise UserError(f"{path}, line {row.line}: {row.problem}")
        found[Path(row.values[name]).name] = row.values[text]
    return found


def _missing(name: str, videos: Videos) -> str:
    if videos.damaged:
        return f"{name!r} is not there; perhaps in {', '.join(videos.damaged)}, which is damaged"
    return f"{name!r} is in no folder and no archive of the data set"
