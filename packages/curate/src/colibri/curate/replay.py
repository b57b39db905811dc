"""Ask again about a sample of a finished run's rows, and see whether its promise holds."""

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path
from typing import Any

from colibri.core.errors import UserError
from colibri.core.hashing import hash_file, hash_text
from colibri.curate import stages
from colibri.curate.config import fused_stages
from colibri.curate.export.checks import finished_run
from colibri.curate.llm.phases import PhaseSet
from colibri.curate.llm.trial import try_phase
from colibri.curate.run import saved_config
from colibri.curate.store import DoneRows, exclusive

Row = dict[str, Any]

FIRM = ("deterministic", "batch-invariant")
"""Levels that promise the same answer every time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """One engine's answers compared with the run's."""

    role: str
    level: str
    rows: int
    same: int
    differing: tuple[str, ...]
    """Ids of rows that came out otherwise."""

    @property
    def holds(self) -> bool:
        """False where a promise of equal answers is broken."""
        return self.same == self.rows or not self.level.startswith(FIRM)

    def text(self) -> str:
        """One line."""
        share = f"{self.same}/{self.rows} the same" if self.rows else "no rows"
        verdict = "holds" if self.holds else "BROKEN"
        return f"{self.role:<10}{share:<20}{verdict:<8}{self.level}"


def replay(out: Path, *, sample: int, seed: int = 0) -> tuple[Replayed, ...]:
    """Rewrite and judge `sample` rows of `out` again, with no cache, and compare.

    UserError where the run is not finished or its shards are not the ones that it wrote.
    """
    config = saved_config(out)
    _, manifest = finished_run(out)
    for shard in (*manifest["shards"], *manifest["rejected"], *manifest["quarantine"]):
        path = out / shard["path"]
        if not path.is_file() or hash_file(path) != shard["sha256"]:
            raise UserError(f"{path} is missing or was changed after the run", hint="run it again")
    with exclusive(out):
        phases = PhaseSet(config)
        done = DoneRows(out / "state" / "rows")
        columns = ("caption_original", "caption", "findings", "judge")
        rows = phases.rows(done, done.keys(), columns)
        chosen = _chosen((row for row in rows if row["judge"] is not None), sample, seed)
        found = []
        if fused_stages(config) > 0:
            found.append(_compare("captioner", manifest, chosen, map(stages.recaption, chosen)))
        if fused_stages(config) > 1:
            found.append(_compare("judge", manifest, chosen, map(stages.apply_judge, chosen)))
        for phase in phases.phases:
            if phase.name == "describe":
                continue
            role = "captioner" if phase.name == "recaption" else "judge"
            results = try_phase(config, phase, chosen).results
            found.append(_compare(role, manifest, chosen, (results[row["id"]] for row in chosen)))
    return tuple(found)


def _chosen(rows: Iterable[Row], sample: int, seed: int) -> list[Row]:
    return nsmallest(sample, rows, key=lambda row: hash_text("replay", str(seed), row["id"]))


def _compare(
    role: str, manifest: dict[str, Any], before: list[Row], after: Iterable[Row]
) -> Replayed:
    name = "caption" if role == "captioner" else "judge"
    differing = tuple(
        old["id"]
        for old, new in zip(before, after, strict=True)
        if _plain(new.get(name)) != _plain(old[name])
    )
    return Replayed(
        role=role,
        level=manifest[role]["reproducibility"],
        rows=len(before),
        same=len(before) - len(differing),
        differing=differing,
    )


def _plain(value: Any) -> Any:
    """Absent and null fields are alike."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items() if entry}
    return value
