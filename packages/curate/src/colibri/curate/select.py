"""Choose rows for training, evenly over strata. Pure: knows nothing of files, models or Ray.

The best scores alone would favour easy, still clips; so the target is shared out over strata of
source, motion, caption length and people, by their size in the pool. For each candidate one small
tuple is held, and for near-duplicate search 64 hash values; about 1 KB a row.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from colibri.core.captions.surface import words_of
from colibri.core.hashing import hash_text

SHINGLE_WORDS = 3
PERMUTATIONS = 64
REPEAT_ALARM = 5
"""One caption on more rows than this raises an alarm."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Kept ids, sorted, and a reason for each of the others."""

    kept: tuple[str, ...]
    rejected: dict[str, str]
    alarms: tuple[str, ...]


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
    ranked = sorted(candidates, key=lambda c: (-c.score, hash_text(str(seed), c.id)))
    rejected: dict[str, str] = {}
    alarms = _repeats(ranked)
    if near_duplicate is not None:
        ranked = _without_near_duplicates(ranked, near_duplicate, rejected)
    if group_cap is not None:
        ranked = _capped(ranked, group_cap, rejected)
    kept = ranked if keep is None or len(ranked) <= keep else _stratified(ranked, keep)
    chosen = {candidate.id for candidate in kept}
    for candidate in ranked:
        if candidate.id not in chosen:
            rejected[candidate.id] = "not_selected"
    return Selection(kept=tuple(sorted(chosen)), rejected=rejected, alarms=tuple(alarms))


def _repeats(candidates: Sequence[Candidate]) -> list[str]:
    counts = Counter(" ".join(words_of(candidate.caption)) for candidate in candidates)
    return [
        f"{count} rows have the caption {text[:80]!r}; look whether an engine repeats itself"
        for text, count in sorted(counts.items())
        if count > REPEAT_ALARM
    ]


def _without_near_duplicates(
    ranked: list[Candidate], threshold: float, rejected: dict[str, str]
) -> list[Candidate]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    signatures: dict[str, MinHash] = {}
    kept = []
    for candidate in ranked:
        signature = MinHash(num_perm=PERMUTATIONS, seed=1)
        signature.update_batch([part.encode() for part in sorted(_shingles(candidate.caption))])
        near = index.query(signature)
        if any(signature.jaccard(signatures[other]) >= threshold for other in near):
            rejected[candidate.id] = "duplicate_caption"
            continue
        index.insert(candidate.id, signature)
        signatures[candidate.id] = signature
        kept.append(candidate)
    return kept


def _shingles(caption: str) -> set[str]:
    words = list(words_of(caption))
    if len(words) <= SHINGLE_WORDS:
        return {" ".join(words)}
    return {
        " ".join(words[index : index + SHINGLE_WORDS])
        for index in range(len(words) - SHINGLE_WORDS + 1)
    }


def _capped(ranked: list[Candidate], cap: int, rejected: dict[str, str]) -> list[Candidate]:
    counts: Counter[str] = Counter()
    kept = []
    for candidate in ranked:
        counts[candidate.group] += 1
        if counts[candidate.group] > cap:
            rejected[candidate.id] = "group_cap"
        else:
            kept.append(candidate)
    return kept


def _stratified(ranked: list[Candidate], keep: int) -> list[Candidate]:
    """`keep` of `ranked`: each stratum's share by largest remainder, its best first."""
    strata: dict[tuple[str, int, int, int], list[Candidate]] = defaultdict(list)
    motion = _terciles([c.motion for c in ranked if c.motion is not None])
    words = _terciles([float(c.words) for c in ranked])
    for candidate in ranked:
        slow = -1 if candidate.motion is None else _tercile(candidate.motion, motion)
        short = _tercile(float(candidate.words), words)
        strata[candidate.source, slow, short, candidate.people].append(candidate)
    exact = {name: keep * len(rows) / len(ranked) for name, rows in strata.items()}
    share = {name: math.floor(value) for name, value in exact.items()}
    left = keep - sum(share.values())
    by_remainder = sorted(strata, key=lambda name: (share[name] - exact[name], name))
    for name in by_remainder[:left]:
        share[name] += 1
    return [candidate for name, rows in strata.items() for candidate in rows[: share[name]]]


def _terciles(values: list[float]) -> tuple[float, float]:
    if not values:
        return (0.0, 0.0)
    ordered = sorted(values)
    return ordered[len(ordered) // 3], ordered[2 * len(ordered) // 3]


def _tercile(value: float, bounds: tuple[float, float]) -> int:
    return (value >= bounds[0]) + (value >= bounds[1])
