"""What is there, missing, extra, damaged and too short, per data set. Changes nothing."""

import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated

import tyro

from colibri.core.clip import Clip, VideoRef
from colibri.core.config import Names
from colibri.core.errors import RowError, UserError
from colibri.core.progress import Progress
from colibri.core.video import count_frames, open_ref, probe
from colibri.curate.sources import get_source
from colibri.curate.sources.base import LICENCES, SourceConfig, Videos, base_name


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig:
    """Which data sets to look at."""

    sources: Names = ("magicmotion", "openvid", "humanvid")
    """Data sets to look for."""
    data_root: Path = Path(".")
    """Folder that holds the data sets."""
    min_frames: int = 121
    """Clips with fewer real frames count as too short."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON instead of a table."""
    magicmotion: SourceConfig = field(default_factory=SourceConfig)
    openvid: SourceConfig = field(default_factory=SourceConfig)
    humanvid: SourceConfig = field(default_factory=SourceConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceReport:
    """One data set. Lists name rows or files; `extra` are videos that no row names, and `other`
    are rows with another problem, which follows in brackets."""

    name: str
    root: str | None
    facts: tuple[str, ...] = ()
    licence: str = ""
    """Licence of its rows, and whether it clearly allows training."""
    rows: int = 0
    good: int = 0
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    too_short: tuple[str, ...] = ()
    duplicate: tuple[str, ...] = ()
    no_caption: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorReport:
    """All data sets that were asked for."""

    sources: tuple[SourceReport, ...]

    @property
    def usable(self) -> bool:
        """True when at least one clip of every data set can be used."""
        return all(source.good for source in self.sources)

    def text(self) -> str:
        """The table that a person reads."""
        lines = []
        for source in self.sources:
            lines.append(f"{source.name}: {source.root or 'not found'}")
            lines += [f"    {fact}" for fact in source.facts]
            if source.licence:
                lines.append(f"    licence {source.licence}")
            if source.error:
                lines.append(f"    error: {source.error}")
                continue
            lines.append(f"    {source.rows:,} rows, {source.good:,} clips that can be used")
            for kind in _KINDS:
                names: tuple[str, ...] = getattr(source, kind)
                if names:
                    shown = ", ".join(_printable(name) for name in names[:4])
                    more = f", and {len(names) - 4:,} more" if len(names) > 4 else ""
                    lines.append(f"    {len(names):>6,} {kind.replace('_', ' '):<11}{shown}{more}")
        return "\n".join(lines)


_READERS = 8
"""Files looked at together: most of the time goes into waiting for the disk."""

_KINDS = ("missing", "extra", "damaged", "too_short", "duplicate", "no_caption", "other")
_KIND_OF = {
    "missing_file": "missing",
    "missing_member": "missing",
    "duplicate_row": "duplicate",
    "no_caption": "no_caption",
    "empty_file": "damaged",
    "truncated": "damaged",
    "too_short": "too_short",
    "unreadable_video": "damaged",
    "no_video_stream": "damaged",
}


def examine(config: DoctorConfig) -> DoctorReport:
    """Look at every row and count every clip's frames from its index."""
    if not config.data_root.is_dir():
        raise UserError(f"--data-root {config.data_root} is not a folder")
    settings = {
        "magicmotion": config.magicmotion,
        "openvid": config.openvid,
        "humanvid": config.humanvid,
    }
    reports = []
    for name in config.sources:
        try:
            reports.append(
                _examine(name, config.data_root, settings.get(name, SourceConfig()), config)
            )
        except UserError as error:
            if name not in settings and ":" not in name:
                raise
            reports.append(SourceReport(name=name, root=None, error=str(error)))
    return DoctorReport(sources=tuple(reports))


def _examine(name: str, root: Path, settings: SourceConfig, config: DoctorConfig) -> SourceReport:
    source = get_source(name)
    layout = source.find(root, settings)
    if layout is None:
        return SourceReport(name=source.name, root=None, error=f"no {name} data below {root}")
    found: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    videos = Videos(layout)
    found["damaged"] += [f"{path}: {why}" for path, why in videos.damaged.items()]
    named: set[str] = set()
    rows = good = 0
    progress = Progress(source.name, None)
    for clip, reason in _looked_at(source.clips(layout, settings), root, config.min_frames):
        rows += 1
        progress.add(refused=reason is not None)
        name = base_name(clip.ref.member or clip.ref.video)
        named.add(name)
        if reason is None:
            good += 1
        elif reason in _KIND_OF:
            found[_KIND_OF[reason]].append(name)
        else:
            message = clip.problem[1] if clip.problem and reason == "bad_row" else name
            found["other"].append(f"{message} ({reason})")
    progress.close()
    return SourceReport(
        name=source.name,
        root=str(layout.root),
        facts=layout.facts,
        licence=_licence(source.licence),
        rows=rows,
        good=good,
        missing=tuple(found["missing"]),
        extra=tuple(sorted(videos.names() - named)),
        damaged=tuple(found["damaged"]),
        too_short=tuple(found["too_short"]),
        duplicate=tuple(found["duplicate"]),
        no_caption=tuple(found["no_caption"]),
        other=tuple(found["other"]),
    )


def _licence(name: str) -> str:
    licence = LICENCES.get(name)
    clear = licence is not None and not licence.flagged
    return name if clear else f"{name} (does not clearly allow training)"


def _looked_at(
    clips: Iterator[Clip], root: Path, min_frames: int
) -> Iterator[tuple[Clip, str | None]]:
    """Clips in their order, each with the reason why it cannot be used, or None."""

    def look(clip: Clip) -> str | None:
        reason = clip.problem[0] if clip.problem else None
        if reason in (None, "no_caption"):  # a clip that only lacks its text may be broken as well
            return _look(clip.ref, root, min_frames) or reason
        return reason

    with ThreadPoolExecutor(_READERS) as pool:
        while batch := list(islice(clips, 64 * _READERS)):
            yield from zip(batch, pool.map(look, batch), strict=True)


def _look(ref: VideoRef, root: Path, min_frames: int) -> str | None:
    try:
        with open_ref(ref, root) as file:
            frames = count_frames(file)
            if frames >= min_frames:
                return None
            if not frames:
                return "unreadable_video"
            promised = probe(file).num_frames_header
            return "truncated" if promised and promised > frames else "too_short"
    except RowError as error:
        return error.reason
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
        return "unreadable_video"


def _printable(name: str) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in name)[:60]
