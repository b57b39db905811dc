"""What a source is, and what its readers share: finding a folder, reading tables, placing videos.

A reader looks at what is on disk, says what it chose, and never guesses between two candidates.
"""

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Protocol, TextIO

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
    """OpenVid: hd, 1m or both; without it, hd where its table is there. HumanVid: pexels only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceLayout:
    """What was found on disk."""

    name: str
    data_root: Path
    root: Path
    tables: tuple[Path, ...]
    """Files whose rows become clips."""
    guides: tuple[Path, ...] = ()
    """Files that only decide where a clip is looked for; hashed into the manifest like tables."""
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
    if not data_root.is_dir():
        raise UserError(f"there is no folder {data_root}", hint="check --data-root")
    if config.root is not None:
        try:
            folder = archive.resolve_inside(data_root, config.root)
        except RowError as error:
            raise UserError(f"{name}: {error.message}", hint=f"mend --{name}.root") from None
        if not folder.is_dir():
            raise UserError(f"{name}: there is no folder {folder}", hint=f"mend --{name}.root")
        if not next(folder.glob(pattern), None):
            raise UserError(f"{name}: {folder} holds no {pattern}", hint=f"mend --{name}.root")
        return folder
    folders = [data_root, *sorted(path for path in data_root.iterdir() if path.is_dir())]
    found = [folder for folder in folders if next(folder.glob(pattern), None)]
    if len(found) > 1:
        raise UserError(
            f"{name} could be {' or '.join(map(str, found))}",
            hint=f"say which with --{name}.root",
        )
    if found and not found[0].resolve().is_relative_to(data_root.resolve()):
        raise UserError(
            f"{name}: {found[0]} is a link that leads out of --data-root, so no video is opened",
            hint="give the folder that really holds the data sets, or mount it there",
        )
    return found[0] if found else None


def refuse(config: SourceConfig, name: str, *unused: str) -> None:
    """UserError for a setting that this source would not honour."""
    given = {
        "caption_column": config.caption_column,
        "captions": config.captions,
        "subset": config.subset,
    }
    for setting in unused:
        if given[setting] is not None:
            flag = f"--{name}.{setting.replace('_', '-')}"
            raise UserError(f"{flag} has no meaning for {name}", hint="leave it out")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One row of a CSV table; `problem` instead of values where it cannot be read."""

    line: int
    values: dict[str, str]
    problem: str | None = None


def read_csv(path: Path) -> Iterator[TableRow]:
    """Rows of a CSV file under a header. UserError when it has no header or is not UTF-8.

    A quote that is never closed spoils the line it opens in, not the lines that it swallows.
    """
    with _open_table(path) as file:
        lines = _Lines(file)
        header = _header(path, lines)
        while True:
            lines.record.clear()
            first = lines.number + 1
            values: dict[str, str] = {}
            problem: str | None = None
            try:
                cells = next(csv.reader(lines, strict=True), None)
            except csv.Error as error:
                problem = f"{path.name} line {first}: {error}"
                lines.again()
            else:
                if cells is None:
                    return
                if not cells:
                    continue
                values = dict(zip(header, cells, strict=False))
                if len(cells) != len(header):
                    problem = f"{len(cells)} cells under {len(header)} column names"
                    problem = f"{path.name} line {first}: {problem}"
            yield TableRow(line=first, values=values, problem=problem)


def columns_of(path: Path) -> list[str]:
    """Column names of a CSV file."""
    with _open_table(path) as file:
        return _header(path, _Lines(file))


def one_column(
    path: Path, candidates: Iterable[str], wanted: str | None, flag: str, what: str
) -> str:
    """The one column of `path` among `candidates`, or `wanted`. Never a guess between two."""
    names = columns_of(path)
    if wanted is not None:
        found = [name for name in names if name == wanted]
        if not found:
            raise UserError(f"{path} has no column {wanted!r}", hint=f"it has {', '.join(names)}")
        hint = "rename one of them"
    else:
        found = [name for word in candidates for name in names if name.lower() == word]
        hint = f"say which with {flag}"
    if len(found) > 1:
        raise UserError(f"{path.name}: {what} could be {' or '.join(map(repr, found))}", hint=hint)
    if not found:
        raise UserError(
            f"{path.name} has no {what} column among {', '.join(names)}",
            hint=f"name it with {flag}",
        )
    return found[0]


class _Lines:
    """Lines of a file, with a way back to the second line of a record that cannot be read."""

    def __init__(self, file: TextIO) -> None:
        self._file = iter(file)
        self._waiting: list[str] = []
        """Lines to read again, the next one last."""
        self.record: list[str] = []
        """Lines of the record that is being read."""
        self.number = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._waiting.pop() if self._waiting else next(self._file)
        self.number += 1
        self.record.append(line)
        return line

    def again(self) -> None:
        """Go back to the second line of the record."""
        self._waiting += reversed(self.record[1:])
        self.number -= len(self.record) - 1


def _open_table(path: Path) -> TextIO:
    csv.field_size_limit(sys.maxsize)
    try:
        file = path.open(encoding="utf-8-sig", errors="replace", newline="")
        if file.read(2) == "\ufffd\ufffd":
            file.close()
            raise UserError(f"{path} is not UTF-8 text", hint="save it again as UTF-8")
        file.seek(0)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return file


def _header(path: Path, lines: _Lines) -> list[str]:
    try:
        for cells in csv.reader(lines, strict=True):
            if cells:
                return [cell.strip() for cell in cells]
    except csv.Error as error:
        raise UserError(f"{path} has no readable first line: {error}") from None
    raise UserError(f"{path} is empty", hint="its first line has to name the columns")


class Videos:
    """Where each video of a source lies: plain files in folders, members of archives."""

    def __init__(self, layout: SourceLayout) -> None:
        self._root = layout.data_root
        self._places: dict[str, list[tuple[VideoRef, int | None]]] = {}
        """File name, as on disk -> where files of that name lie, plain files first; and the size in
        bytes of those in archives."""
        self.damaged: dict[str, str] = {}
        """Archive -> why it cannot be read."""
        for folder in layout.loose:
            for path in sorted(folder.rglob("*")):
                if _is_video(path.name):
                    self._add(path.name, VideoRef(video=self._relative(path)), None)
        for first in layout.archives:
            archived = self._relative(first)
            try:
                members = archive.members(first)
            except UserError as error:
                self.damaged[archived] = str(error)
                continue
            for name, member in members.items():
                if _is_video(name):
                    self._add(base_name(name), VideoRef(video=archived, member=name), member.size)
        for folder in sorted({path.parent for path in layout.archives} | {layout.root}):
            for path in orphan_parts(folder):
                self.damaged[self._relative(path)] = f"{path.name} has no first part (..aa)"

    def places(self, name: str) -> list[VideoRef]:
        """Every place of the video called `name`. Copies of one size count as one place.

        Where several folders hold that name, those at the path that `name` gives come alone.
        """
        places = self._places.get(base_name(name), [])
        if len(places) == 1:
            return [places[0][0]]
        tail = "/" + name.replace("\\", "/")
        exact = [
            place for place in places if f"/{place[0].member or place[0].video}".endswith(tail)
        ]
        by_size: dict[int, VideoRef] = {}
        for ref, size in exact or places:
            by_size.setdefault(self._file_size(ref) if size is None else size, ref)
        return list(by_size.values())

    def names(self) -> set[str]:
        """File names of all videos that are there."""
        return set(self._places)

    def archived(self) -> Iterator[VideoRef]:
        """All members of archives."""
        return (ref for places in self._places.values() for ref, _ in places if ref.member)

    def _add(self, name: str, ref: VideoRef, size: int | None) -> None:
        self._places.setdefault(name, []).append((ref, size))

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _file_size(self, ref: VideoRef) -> int:
        try:
            return (self._root / ref.video).stat().st_size
        except OSError:  # a link to nowhere
            return -1


def base_name(path: str) -> str:
    """The last part of a path, whichever way its slashes lean."""
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def orphan_parts(folder: Path) -> list[Path]:
    """Parts of split archives in `folder` whose first part is not there."""
    return [
        path
        for path in sorted(folder.iterdir())
        if re.search(r"part_?[a-z]{2}$", path.name)
        and not path.with_name(path.name[:-2] + "aa").exists()
    ]


def make_clip(
    source: Source,
    videos: Videos,
    *,
    name: str,
    caption: str | None,
    group: str,
    labels: dict[str, str | float],
    seen: set[VideoRef],
    problem: str | None = None,
    archive_of: Mapping[str, str] | None = None,
) -> Clip:
    """A clip from a table's row, with the problem that is plain already: an unsafe name, a missing
    file, two files of that name, no caption, a repeated row.

    `archive_of` maps file names to the archive that a data set's own list puts them in.
    """
    ref = VideoRef(video=name)
    found: tuple[str, str] | None = None
    try:
        if problem:
            raise RowError("bad_row", problem)
        ref = _place(videos, name, (archive_of or {}).get(base_name(name)))
        if ref in seen:
            message = f"{name!r} is listed more than once; its first usable row counts"
            raise RowError("duplicate_row", message)
        if not (caption or "").strip():
            raise RowError("no_caption", f"{name!r} has no caption")
        seen.add(ref)
    except RowError as error:
        found = (error.reason, error.message)
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


def read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """File name -> its different captions, from CSV with columns file, text or from JSON lines with
    those keys. UserError for a line that cannot be read."""
    found: dict[str, tuple[str, ...]] = {}
    entries = _json_entries if path.suffix.lower() in (".jsonl", ".json") else _csv_entries
    for file, text in entries(path):
        name = base_name(file)
        if text not in found.get(name, ()):
            found[name] = (*found.get(name, ()), text)
    return found


def _csv_entries(path: Path) -> Iterator[tuple[str, str]]:
    name = one_column(path, ("file", "video", "path"), None, "a column called file", "file name")
    text = one_column(path, ("text", "caption"), None, "a column called text", "caption")
    for row in read_csv(path):
        if row.problem:
            raise UserError(row.problem, hint="mend that line of the caption file")
        yield row.values[name], row.values[text]


def _json_entries(path: Path) -> Iterator[tuple[str, str]]:
    with _open_table(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                file_name, text = entry["file"], entry["text"] or ""
            except (ValueError, KeyError, TypeError, RecursionError):
                file_name = text = None
            if not isinstance(file_name, str) or not isinstance(text, str):
                raise UserError(
                    f"{path}, line {number} is not an object with file and text",
                    hint="one JSON object a line",
                )
            # JSON can spell half a surrogate pair, which no UTF-8 file can hold.
            yield file_name, text.encode("utf-8", "replace").decode("utf-8")


def _is_video(name: str) -> bool:
    # ._name and __MACOSX/ are what macOS leaves in zips beside each file.
    return name.lower().endswith(VIDEO_ENDINGS) and not base_name(name).startswith("._")


def _place(videos: Videos, name: str, listed: str | None) -> VideoRef:
    if PureWindowsPath(name).anchor:
        raise RowError("unsafe_path", f"{name!r} leaves the data root")
    archive.resolve_inside(Path("/"), name.replace("\\", "/"))
    refs = videos.places(name)
    if len(refs) > 1 and listed:
        refs = [ref for ref in refs if ref.video == listed] or refs
    if len(refs) > 1:
        places = " or ".join(ref.video for ref in refs)
        raise RowError("ambiguous_file", f"{name!r} could be in {places}; they differ in size")
    if refs:
        return refs[0]
    if listed:
        raise RowError("missing_file", f"{name!r} is not there; the list puts it in {listed}")
    if videos.damaged:
        damaged = ", ".join(videos.damaged)
        raise RowError("missing_file", f"{name!r} is not there; perhaps in damaged {damaged}")
    raise RowError("missing_file", f"{name!r} is in no folder and no archive of the data set")
