"""Draw the rows that a person labels, from the shards of a finished run.

Knows columns and strata; knows nothing of labels or figures.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from colibri.core.hashing import hash_text
from colibri.core.shards import read_rows

DECILES = 10

Stratum = tuple[str, int]
"""(fate, decile of the score among all scored rows, 0 is the lowest)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A row that has a score. `fate` is kept, below_score, or rejected for another reason."""

    id: str
    score: float
    fate: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRow:
    """What a person looks at, without the score and the fate."""

    id: str
    original: str
    caption: str
    frame: bytes | None
    """First frame as it lies in the shard, JPEG or PNG."""
    rule_verdicts: dict[str, str]
    """The judge's verdict by rule id, for the figures only: ok, broken or unsure; often empty."""

    @property
    def caption_hash(self) -> str:
        """Hash of original and caption: a label holds for this pair and no other."""
        return hash_text(self.original, self.caption)


def read_scored(out: Path) -> list[Scored]:
    """All rows of `out`, kept or rejected, that a judge scored."""
    kept = (
        Scored(id=row["id"], score=row["score"], fate="kept")
        for path in sorted((out / "data").glob("*.parquet"))
        for row in read_rows(path, ["id", "score"])
    )
    rejected = (
        Scored(
            id=row["id"],
            score=row["score"],
            fate="below_score" if row["reason"] == "below_score" else "rejected",
        )
        for path in sorted((out / "rejected").glob("*.parquet"))
        for row in read_rows(path, ["id", "score", "reason"])
    )
    return [row for rows in (kept, rejected) for row in rows if row.score is not None]


def stratify(scored: Sequence[Scored]) -> dict[str, Stratum]:
    """Each row's stratum, by id. Equal scores share a decile, so that some may be empty."""
    if not scored:
        return {}
    scores = np.array([row.score for row in scored])
    bounds = np.quantile(scores, np.arange(1, DECILES) / DECILES)
    deciles = np.searchsorted(bounds, scores, side="right")
    return {row.id: (row.fate, int(decile)) for row, decile in zip(scored, deciles, strict=True)}


def draw(strata: dict[str, Stratum], *, rows: int, seed: int) -> list[str]:
    """Ids of `rows` rows (fewer if there are no more) in shuffled order.

    All strata get the same number as far as they reach: rare fates are seen often enough, and
    `weights` sets the proportions right again. More rows with the same seed keep the rows drawn.
    """
    members: dict[Stratum, list[str]] = defaultdict(list)
    for row_id in sorted(strata, key=lambda row_id: hash_text(str(seed), row_id)):
        members[strata[row_id]].append(row_id)
    shares = _shares({name: len(ids) for name, ids in members.items()}, rows)
    drawn = [row_id for name, ids in members.items() for row_id in ids[: shares[name]]]
    return sorted(drawn, key=lambda row_id: hash_text("order", str(seed), row_id))


def weights(strata: dict[str, Stratum], labelled: Collection[str]) -> dict[str, float]:
    """For how many scored rows each labelled row stands: stratum size over labels in it."""
    sizes = Counter(strata.values())
    counts = Counter(strata[row_id] for row_id in labelled)
    return {row_id: sizes[strata[row_id]] / counts[strata[row_id]] for row_id in labelled}


def read_label_rows(out: Path, ids: Collection[str]) -> dict[str, LabelRow]:
    """The rows of `ids` that `out` holds, by id; only row groups that hold one are decoded."""
    wanted = pa.array(sorted(ids), pa.string())
    found: dict[str, LabelRow] = {}
    for folder in ("data", "rejected"):
        for path in sorted((out / folder).glob("*.parquet")):
            for row in _rows_of(path, wanted):
                if row["score"] is not None:
                    found[row["id"]] = _label_row(row)
    return found


def _shares(sizes: dict[Stratum, int], rows: int) -> dict[Stratum, int]:
    shares = dict.fromkeys(sorted(sizes), 0)
    while rows > 0 and (short := [name for name in shares if shares[name] < sizes[name]]):
        for name in short[:rows]:
            shares[name] += 1
        rows -= len(short)
    return shares


def _rows_of(path: Path, wanted: pa.Array) -> Iterator[dict[str, Any]]:
    columns = ["id", "caption_original", "caption", "image", "judge", "score"]
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            mask = pc.is_in(file.read_row_group(group, columns=["id"])["id"], value_set=wanted)
            if pc.any(mask).as_py():
                yield from file.read_row_group(group, columns=columns).filter(mask).to_pylist()


def _label_row(row: dict[str, Any]) -> LabelRow:
    verdicts = (row["judge"] or {}).get("rules") or ()
    return LabelRow(
        id=row["id"],
        original=row["caption_original"] or "",
        caption=row["caption"] or "",
        frame=row["image"]["bytes"] if row["image"] else None,
        rule_verdicts={entry["rule"]: entry["verdict"] for entry in verdicts},
    )
