"""What is there, missing, extra, damaged and too short, per data set. Changes nothing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from colibri.core.clip import VideoRef
from colibri.core.config import Names
from colibri.core.errors import RowError, UserError
from colibri.core.video import count_frames, open_ref
from colibri.curate.sources import get_source
from colibri.curate.sources.base import SourceConfig, Videos


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
    """One data set. Lists name rows or files; `extra` are videos that no row names."""

    name: str
    root: str | None
    facts: tuple[str, ...] = ()
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


_KINDS = ("missing", "extra", "damaged", "too_short", "duplicate", "no_caption", "other")
_KIND_OF = {
    "missing_file": "missing",
    "missing_member": "missing",
    "duplicate_row": "duplicate",
    "no_caption": "no_caption",
    "empty_file": "damaged",
    "unreadable_video": "damaged",
    "no_video_stream": "damaged",
}


def examine(config: DoctorConfig) -> DoctorReport:
    """Look at every row and open every video's header."""
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
        return SourceReport(name=name, root=None, error=f"no {name} data below {root}")
    found: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    videos = Videos(layout)
    found["damaged"] += [f"{path}: {why}" for path, why in videos.damaged.items()]
    named: set[str] = set()
    rows = good = 0
    for clip in source.clips(layout, settings):
        rows += 1
        base = (clip.ref.member or clip.ref.video).rsplit("/", 1)[-1]
        named.add(base)
        reason = clip.problem[0] if clip.problem else _look(clip.ref, root, config.min_frames)
        if reason is None:
            good += 1
        elif reason == "too_short":
            found["too_short"].append(base)
        else:
            found[_KIND_OF.get(reason, "other")].append(base)
    found["extra"] = sorted(videos.names() - named)
    return SourceReport(
        name=name,
        root=str(layout.root),
        facts=layout.facts,
        rows=rows,
        good=good,
        **{kind: tuple(names) for kind, names in found.items()},
    )


def _look(ref: VideoRef, root: Path, min_frames: int) -> str | None:
    try:
        with open_ref(ref, root) as file:
            return None if count_frames(file) >= min_frames else "too_short"
    except RowError as error:
        return error.reason


def _printable(name: str) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in name)[:60]
