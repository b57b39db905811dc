"""The nouns of curation: where a video lies, a clip with its caption, a finding about a caption."""

from dataclasses import dataclass

from colibri.core.hashing import hash_text


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoRef:
    """Where one clip's bytes lie. Only `core.video.open_ref(ref, root)` turns it into a file."""

    video: str
    """Path relative to the data root, with forward slashes: a video file or an archive.
    A split archive is named by its first part."""
    member: str | None = None
    """Name inside the archive, or None for a plain file."""
    start_s: float | None = None
    """Start of the segment in seconds, or None for the whole file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One row of a source, before anything was decoded."""

    id: str
    source: str
    ref: VideoRef
    caption: str | None
    """The source's own caption; None where the source has none."""
    licence: str
    group: str
    """The source video this clip was cut from; clips of one group share a split and a cap."""
    labels: dict[str, str | float]
    """What the source says beside the caption, e.g. motion score, camera motion, seconds."""
    problem: tuple[str, str] | None = None
    """(reason code, message) when the reader already knows the row cannot be used."""


def clip_id(source: str, path_in_source: str, segment: str = "") -> str:
    """Row id, the same on every machine: 24 hex digits of a hash over where the clip comes from."""
    return hash_text(source, path_in_source, segment)[:24]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one rule says about one caption."""

    rule: str
    """R1..R6, or X-... for an extra check."""
    start: int | None
    """First code point of the span in the caption; None for something the caption lost."""
    end: int | None
    """One past the last code point; None like `start`."""
    text: str
    """The span itself, or the lost words as the original has them."""
    message: str
    """What is wrong and what to do, for a person."""
    ambiguous: bool = False
    """True where code cannot decide and a judge must."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A judge's opinion of one caption. Scores lie in [0, 1], higher is better."""

    score: float
    fluency: float
    faithfulness: float
    coverage: float
    band: float
    """1 inside the length band, falling to 0 outside."""
