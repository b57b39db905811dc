"""Choose rows for training, evenly over strata. Pure: knows nothing of files, models or Ray.

The best scores alone would favour easy, still clips; so the target is shared out over strata of
source, motion, caption length and people, by their size in the pool. Candidates come one by one and
are held as a few numbers each, about 0.4 KB a row with the MinHash signature and its index.
"""

import functools
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colibri.core.captions.surface import words_of
from colibri.core.hashing import hash_text
from colibri.core.shards import chunked

SHINGLE_WORDS = 3
PERMUTATIONS = 64
BANDS = 16
"""Signatures are compared where four values in a row agree: at a similarity of 0.8 one pair in
5,000 is missed."""
REPEAT_ALARM = 5
"""One caption on more rows than this raises an alarm."""

REASONS = (None, "duplicate_caption", "group_cap", "not_selected")
_KEPT, _DUPLICATE, _CAPPED, _NOT_SELECTED = range(len(REASONS))


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A row that passed everything, with what the choice depends on."""

    id: str
    source: str
    group: str
    caption: str
    score: float
    motion: float | None
    words: int
    people: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selection:
    """What became of each candidate. Held as arrays: a run may choose among a million."""

    ids: NDArray[np.bytes_]
    """Sorted."""
    reasons: NDArray[np.uint8]
    """Index into `REASONS` for each id."""
    alarms: tuple[str, ...]

    def reason_of(self, id_: str) -> str | None:
        """Why a candidate was rejected; None when it was kept. KeyError for what was none."""
        index = int(np.searchsorted(self.ids, id_.encode()))
        if index == len(self.ids) or self.ids[index] != id_.encode():
            raise KeyError(id_)
        return REASONS[self.reasons[index]]

    def digest(self) -> str:
        """SHA-256 of the whole choice."""
        return hashlib.sha256(self.ids.tobytes() + self.reasons.tobytes()).hexdigest()

    @property
    def kept(self) -> tuple[str, ...]:
        """Kept ids, sorted."""
        return tuple(id_.decode() for id_ in self.ids[self.reasons == _KEPT])

    @property
    def rejected(self) -> dict[str, str]:
        """The others, with their reasons."""
        return {
            id_.decode(): REASONS[reason] or ""
            for id_, reason in zip(self.ids, self.reasons, strict=True)
            if reason != _KEPT
        }


def select(
    candidates: Iterable[Candidate],
    *,
    keep: int | None,
    seed: int,
    group_cap: int | None = None,
    near_duplicate: float | None = 0.8,
) -> Selection:
    """Keep at most `keep` candidates; the order in which they come does not matter.

    Reasons: duplicate_caption, group_cap, not_selected. Best score first, ties by a seeded hash.
    """
    pool = _Pool(candidates, seed, sign=near_duplicate is not None)
    rows = pool.rows
    reasons = np.full(len(rows), _KEPT, np.uint8)
    ranked = np.lexsort((rows["id"], rows["lot"], -rows["score"]))
    if near_duplicate is not None:
        _mark_near_duplicates(ranked, pool.signatures, near_duplicate, reasons)
    ranked = ranked[reasons[ranked] == _KEPT]
    if group_cap is not None:
        _mark_capped(ranked, rows["group"], group_cap, reasons)
        ranked = ranked[reasons[ranked] == _KEPT]
    if keep is not None and len(ranked) > keep:
        reasons[ranked] = _NOT_SELECTED
        reasons[_stratified(ranked, pool, keep)] = _KEPT
    order = np.argsort(rows["id"], kind="stable")
    return Selection(ids=rows["id"][order], reasons=reasons[order], alarms=pool.alarms())


ROW = np.dtype(
    [
        ("id", "S48"),
        ("lot", np.uint64),
        ("score", np.float64),
        ("group", np.uint64),
        ("motion", np.float32),
        ("words", np.int32),
        ("people", np.uint8),
        ("source", np.uint16),
    ]
)
"""A candidate in numbers; `lot` decides ties, `motion` may be NaN."""

CHUNK = 4096


class _Pool:
    """Candidates as numbers, and which captions repeat."""

    def __init__(self, candidates: Iterable[Candidate], seed: int, *, sign: bool) -> None:
        self.sources: list[str] = []
        self._seen: set[int] = set()
        self._repeated: dict[int, tuple[str, int]] = {}
        rows, signatures = [np.zeros(0, ROW)], [np.zeros((0, PERMUTATIONS), np.uint16)]
        for chunk in chunked(candidates, CHUNK):
            rows.append(np.array([self._row(candidate, seed) for candidate in chunk], ROW))
            if sign:
                signatures.append(np.stack([signature(c.caption) for c in chunk]))
        self.rows: NDArray[np.void] = np.concatenate(rows)
        self.signatures = np.concatenate(signatures)

    def alarms(self) -> tuple[str, ...]:
        """One sentence for each caption that many rows share."""
        return tuple(
            f"{count} rows have the caption {text[:80]!r}; look whether an engine repeats itself"
            for text, count in sorted(self._repeated.values())
            if count > REPEAT_ALARM
        )

    def _row(self, candidate: Candidate, seed: int) -> tuple[object, ...]:
        self._note(" ".join(words_of(candidate.caption)))
        if candidate.source not in self.sources:
            self.sources.append(candidate.source)
        return (
            candidate.id.encode(),
            _number(str(seed), candidate.id),
            candidate.score,
            _number(candidate.group),
            math.nan if candidate.motion is None else candidate.motion,
            candidate.words,
            candidate.people,
            self.sources.index(candidate.source),
        )

    def _note(self, text: str) -> None:
        number = _number(text)
        if number in self._seen:
            self._repeated[number] = (text, self._repeated.get(number, (text, 1))[1] + 1)
        self._seen.add(number)


def _number(*parts: str) -> int:
    return int(hash_text(*parts)[:15], 16)


def signature(caption: str) -> NDArray[np.uint16]:
    """MinHash of a caption's word shingles: the low 16 bits of PERMUTATIONS values, which agree by
    chance once in 65,536 times."""
    minhash = _empty().copy()
    minhash.update_batch([part.encode() for part in sorted(_shingles(caption))])
    return (minhash.hashvalues & 0xFFFF).astype(np.uint16)


@functools.cache
def _empty() -> Any:
    """Drawing the permutations takes longer than using them."""
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=1)


def _shingles(caption: str) -> set[str]:
    words = list(words_of(caption))
    if len(words) <= SHINGLE_WORDS:
        return {" ".join(words)}
    return {
        " ".join(words[index : index + SHINGLE_WORDS])
        for index in range(len(words) - SHINGLE_WORDS + 1)
    }


def _mark_near_duplicates(
    ranked: NDArray[np.intp],
    signatures: NDArray[np.uint16],
    threshold: float,
    reasons: NDArray[np.uint8],
) -> None:
    """In the order of rank, mark whoever is too like one that was kept before."""
    if not len(signatures):
        return
    bands = [_Band(part) for part in np.split(signatures, BANDS, axis=1)]
    crowded = np.stack([band.crowded for band in bands])
    for row in ranked[crowded[:, ranked].any(axis=0)]:
        places = [bands[index] for index in np.flatnonzero(crowded[:, row])]
        near = np.concatenate([band.kept_beside(row) for band in places])
        alike = (signatures[near] == signatures[row]).mean(axis=1)
        if (alike >= threshold).any():
            reasons[row] = _DUPLICATE
        else:
            for band in places:
                band.keep(row)


class _Band:
    """One part of all signatures: for each of its values a place for the rows that have it."""

    def __init__(self, part: NDArray[np.uint16]) -> None:
        values = np.ascontiguousarray(part).view(np.uint64).reshape(-1)
        ordered = np.sort(values)
        self._start = np.searchsorted(ordered, values, "left").astype(np.int32)
        self.crowded = np.searchsorted(ordered, values, "right") - self._start > 1
        """True for each row that agrees with another one here."""
        self._kept = np.zeros(len(values), np.int32)
        self._count = np.zeros(len(values), np.int32)

    def kept_beside(self, row: int) -> NDArray[np.int32]:
        """Kept rows that agree with `row` here."""
        start = self._start[row]
        return self._kept[start : start + self._count[start]]

    def keep(self, row: int) -> None:
        """`row` was kept."""
        start = self._start[row]
        self._kept[start + self._count[start]] = row
        self._count[start] += 1


def _mark_capped(
    ranked: NDArray[np.intp], groups: NDArray[np.uint64], cap: int, reasons: NDArray[np.uint8]
) -> None:
    counts: Counter[int] = Counter()
    for row in ranked:
        counts[int(groups[row])] += 1
        if counts[int(groups[row])] > cap:
            reasons[row] = _CAPPED


def _stratified(ranked: NDArray[np.intp], pool: _Pool, keep: int) -> list[int]:
    """`keep` of `ranked`: each stratum's share by largest remainder, its best first."""
    strata: dict[tuple[str, int, int, int], list[int]] = defaultdict(list)
    moving = pool.rows["motion"][ranked]
    motion = _terciles(moving[~np.isnan(moving)].tolist())
    words = _terciles(pool.rows["words"][ranked].tolist())
    for row in ranked:
        candidate = pool.rows[row]
        slow = -1 if np.isnan(candidate["motion"]) else _tercile(candidate["motion"], motion)
        short = _tercile(candidate["words"], words)
        source = pool.sources[candidate["source"]]
        strata[source, slow, short, int(candidate["people"])].append(int(row))
    exact = {name: keep * len(rows) / len(ranked) for name, rows in strata.items()}
    share = {name: math.floor(value) for name, value in exact.items()}
    left = keep - sum(share.values())
    by_remainder = sorted(strata, key=lambda stratum: (share[stratum] - exact[stratum], stratum))
    for stratum in by_remainder[:left]:
        share[stratum] += 1
    return [row for name, rows in strata.items() for row in rows[: share[name]]]


def _terciles(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return (0.0, 0.0)
    ordered = sorted(values)
    return ordered[len(ordered) // 3], ordered[2 * len(ordered) // 3]


def _tercile(value: float, bounds: tuple[float, float]) -> int:
    return (value >= bounds[0]) + (value >= bounds[1])
