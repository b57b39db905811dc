"""Choose rows of a data set, and find the archive member that each one needs."""

import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from colibri.core.archive import resolve_inside
from colibri.core.clip import Clip
from colibri.core.errors import RowError, UserError
from colibri.core.hashing import hash_text
from colibri.curate.fetch.layouts import part_number
from colibri.curate.fetch.remote_zip import RemoteZip
from colibri.curate.sources.base import base_name

_LONGEST_NAME_BYTES = 240  # 255, less what a .part adds


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A row's video."""

    id: str
    name: str
    """What the table calls it; its name on disk or in an archive if it is there."""
    place: str | None = None
    """The plain file or archive on disk, relative to the data root, if it is there."""
    archived: bool = False
    """True when `place` is an archive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """Where a row's video comes from: a member, a URL, or neither when it is on disk already."""

    wanted: Wanted
    target: Path
    archive: RemoteZip | None = None
    entry: zipfile.ZipInfo | None = None
    url: str | None = None


@dataclass(kw_only=True, slots=True)
class Choice:
    """The rows that will be there after the fetch, and why others cannot be."""

    rows: int = 0
    """Rows in the tables."""
    located: list[Located] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    """Reason -> rows that were wanted or drawn and cannot be had."""
    unknown: set[str] = field(default_factory=set)
    """Lines of --ids that name no row."""


def wanted_rows(clips: Iterable[Clip], *, need_caption: bool, choice: Choice) -> list[Wanted]:
    """Rows whose video could be used, each video once. Counts the others in `choice`."""
    found: dict[str, Wanted] = {}
    for clip in clips:
        choice.rows += 1
        reason = clip.problem[0] if clip.problem else None
        if reason not in (None, "missing_file", "no_caption"):
            choice.refused[str(reason)] += 1
        elif need_caption and not (clip.caption or "").strip():
            choice.refused["no_caption"] += 1
        elif clip.id in found:
            choice.refused["duplicate_row"] += 1
        else:
            found[clip.id] = Wanted(
                id=clip.id,
                name=(clip.ref.member or clip.ref.video).replace("\\", "/"),
                place=None if reason == "missing_file" else clip.ref.video,
                archived=clip.ref.member is not None,
            )
    return list(found.values())


def draw(rows: Sequence[Wanted], seed: int) -> list[Wanted]:
    """All rows in an order that depends on their ids and the seed only."""
    return sorted(rows, key=lambda row: hash_text("fetch", str(seed), row.id))


def named(rows: Sequence[Wanted], path: Path, *, choice: Choice) -> list[Wanted]:
    """The rows that a file of ids or video names lists."""
    try:
        lines = {line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()} - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--ids {path} cannot be read: {error}") from None
    hits: set[str] = set()
    chosen = []
    for row in rows:
        keys = lines & {row.id, row.name, base_name(row.name)}
        hits |= keys
        if keys:
            chosen.append(row)
    choice.unknown = lines - hits
    return chosen


class Finder:
    """Finds members by file name, through OpenVidHD.json's map where there is one."""

    def __init__(self, archives: Sequence[RemoteZip], parts: Mapping[str, int] | None) -> None:
        self._parts = parts
        self._by_number: dict[int, list[RemoteZip]] = {}
        self._others: list[RemoteZip] = []
        for archive in archives:
            number = part_number(archive.path)
            if parts is None or number is None:
                self._others.append(archive)
            else:
                self._by_number.setdefault(number, []).append(archive)

    def find(self, name: str) -> tuple[RemoteZip, zipfile.ZipInfo]:
        """The member for a table's name. RowError tells why there is none."""
        base = base_name(name)
        number = (self._parts or {}).get(base, -1)
        unsafe: str | None = None
        for archive in self._holding(base, number):
            entries = []
            for entry in archive.members.get(base, ()):
                if _is_safe(entry.orig_filename):
                    entries.append(entry)
                else:
                    unsafe = f"{archive.path} names it {entry.orig_filename!r}"
            tail = "/" + name
            exact = [entry for entry in entries if f"/{entry.orig_filename}".endswith(tail)]
            entries = exact or entries
            if len({(entry.file_size, entry.CRC) for entry in entries}) > 1:
                raise RowError("ambiguous_file", f"{archive.path} holds two different {name!r}")
            if entries:
                return archive, entries[0]
        if unsafe:
            raise RowError("unsafe_path", unsafe)
        raise RowError("missing_file", f"{name!r} is in no archive of the repository")

    def _holding(self, base: str, number: int) -> Iterator[RemoteZip]:
        """Archives that could hold a file name, the mapped one first."""
        yield from self._by_number.get(number, ())
        yield from self._unmapped.get(base, ())

    @cached_property
    def _unmapped(self) -> dict[str, list[RemoteZip]]:
        """File name -> the archives without a map that hold it. Reads all their directories."""
        found: dict[str, list[RemoteZip]] = {}
        for archive in self._others:
            for base in archive.members:
                found.setdefault(base, []).append(archive)
        return found


def locate(
    order: Iterable[Wanted],
    limit: int | None,
    *,
    data_root: Path,
    folder: Path,
    loose: str,
    finder: Finder | None,
    urls: Mapping[str, str],
    choice: Choice,
) -> None:
    """Go through `order` until `limit` rows are found; what is found and refused is in `choice`."""
    targets: set[Path] = set()
    for row in order:
        if len(choice.located) == limit:
            return
        try:
            found = _located(row, data_root, folder, loose, finder, urls)
            if not row.archived and found.target in targets:
                raise RowError("duplicate_row", f"{row.name!r} is another row's video as well")
        except RowError as error:
            choice.refused[error.reason] += 1
        else:
            targets.add(found.target)
            choice.located.append(found)


def needed_archives(located: Iterable[Located]) -> Iterator[RemoteZip]:
    """The archives that hold the rows, each once."""
    seen: dict[str, RemoteZip] = {}
    for row in located:
        if row.archive is not None:
            seen.setdefault(row.archive.path, row.archive)
    yield from seen.values()


def _located(
    row: Wanted,
    data_root: Path,
    folder: Path,
    loose: str,
    finder: Finder | None,
    urls: Mapping[str, str],
) -> Located:
    home = folder / loose
    if row.place is not None:
        place = data_root / row.place
        if row.archived or not place.is_relative_to(home):
            return Located(wanted=row, target=place)
        name = place.relative_to(home).as_posix()
    else:
        name = row.name.removeprefix(loose + "/")
    if any(len(part.encode()) > _LONGEST_NAME_BYTES for part in name.split("/")):
        raise RowError("unsafe_path", f"{name[:60]!r}... is too long for a file name")
    target = resolve_inside(home, name)
    if finder is None:
        url = urls.get(base_name(name))
        if url is None:
            raise RowError("missing_file", f"no list gives a URL for {name!r}")
        return Located(wanted=row, target=target, url=url)
    try:
        archive, entry = finder.find(name)
    except RowError:
        if row.place is not None:
            return Located(wanted=row, target=target)
        raise
    return Located(wanted=row, target=target, archive=archive, entry=entry)


def _is_safe(member: str) -> bool:
    try:
        resolve_inside(Path("/"), member.replace("\\", "/"))
    except RowError:
        return False
    return ":" not in member.split("/")[0]
