"""What a fetch did, or would do, for a person to read."""

from dataclasses import dataclass, field, replace
from pathlib import Path

PEXELS_CLIP_BYTES = 8.7e6
"""Mean of HumanVid's 19,262 clips: about 167 GB in all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFetch:
    """One data set."""

    name: str
    folder: Path
    repository: str | None
    revision: str | None
    """Commit on the hub."""
    rows: int
    """Rows in its tables."""
    chosen: int
    """Rows that were asked for and can be had."""
    present: int
    """Of these, rows whose video was on disk before, of the right size."""
    to_fetch: int
    parts: int
    """Whole files of archives that were not there before."""
    bytes_to_fetch: int
    """From the hub."""
    urls: tuple[str, ...] = ()
    """HumanVid's clips that are not on disk."""
    listed_only: bool = False
    """True when `urls` were not fetched because the terms were not accepted."""
    refused: dict[str, int] = field(default_factory=dict)
    """Reason -> rows that were wanted and cannot be had."""
    failed: dict[str, str] = field(default_factory=dict)
    """File -> why the server's copy could not be used."""

    def after(self, failed: dict[str, str]) -> "SourceFetch":
        """The same with the files that failed."""
        return replace(self, failed=failed)


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchReport:
    """All data sets of one command."""

    to: Path
    planned: bool
    sources: tuple[SourceFetch, ...]

    @property
    def complete(self) -> bool:
        """True when every file that was asked for is there, or when nothing was to be fetched."""
        return not any(source.failed for source in self.sources)

    def text(self) -> str:
        """The page that a person reads."""
        lines = []
        for source in self.sources:
            lines += _lines(source, self.planned)
        total = sum(source.bytes_to_fetch for source in self.sources)
        rows = sum(source.to_fetch for source in self.sources)
        if self.planned:
            lines.append(f"in all      {rows:,} rows to fetch, {_size(total)} from the hub")
        else:
            lines.append(f"next        curate run --data-root {self.to}")
        return "\n".join(lines)


def _lines(source: SourceFetch, planned: bool) -> list[str]:
    where = (
        f"{source.repository}@{(source.revision or '')[:12]}" if source.repository else "on disk"
    )
    lines = [
        f"{source.name:<12}{where} -> {source.folder}",
        f"{'':12}{source.rows:,} rows in its tables",
    ]
    if source.chosen:
        verb = "to fetch" if planned else "fetched"
        count = source.to_fetch - len(source.failed)
        lines.append(
            f"{'':12}{source.chosen:,} chosen: {source.present:,} there before, {count:,} {verb}"
        )
    if source.parts:
        lines.append(f"{'':12}{source.parts:,} whole files of archives")
    if source.bytes_to_fetch:
        lines.append(f"{'':12}{_size(source.bytes_to_fetch)} from the hub")
    if source.urls:
        lines += _url_lines(source)
    lines += [f"{'':12}{count:,} {reason}" for reason, count in sorted(source.refused.items())]
    for name, why in sorted(source.failed.items())[:20]:
        lines.append(f"{'':12}failed: {name}: {why}")
    if len(source.failed) > 20:
        lines.append(f"{'':12}failed: {len(source.failed) - 20:,} more")
    return lines


def _url_lines(source: SourceFetch) -> list[str]:
    about = _size(round(len(source.urls) * PEXELS_CLIP_BYTES))
    lines = [f"{'':12}{len(source.urls):,} clips at Pexels, about {about} at the set's mean size"]
    if source.listed_only:
        lines.append(
            f"{'':12}not fetched: Pexels' terms forbid bulk downloads for training. With the right "
            "to them: --accept-pexels"
        )
        lines += [f"{'':12}{url}" for url in source.urls[:5]]
        if len(source.urls) > 5:
            lines.append(f"{'':12}and {len(source.urls) - 5:,} more")
    return lines


def _size(size: int) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"
