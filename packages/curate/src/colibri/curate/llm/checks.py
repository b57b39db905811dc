"""Can the judge be trusted? Known answers, the captions in the other order, a second opinion.

Each check is asked in every run, so that a judge that drifts is seen; again where the checked rows,
the threshold or the second judge are others.
"""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from colibri.core.errors import RowError
from colibri.core.hashing import hash_json, hash_text
from colibri.curate.config import RunConfig
from colibri.curate.llm import conversations
from colibri.curate.llm.conversations import Ask, Model

Row = dict[str, Any]

_KITCHEN = (
    "The video shows a woman in a green apron who is chopping carrots on a wooden board. The "
    "camera slowly zooms in on her hands. A pot of soup is steaming on the stove behind her."
)
_HARBOUR = (
    "In this clip, two fishermen pull a blue net into a small boat. Gulls circle above them. The "
    "shot is taken from a low angle, and the harbour lies in morning fog."
)

ANCHORS: tuple[tuple[str, str, frozenset[str]], ...] = (
    (_KITCHEN, "A woman in a green apron chops carrots on a wooden board.", frozenset()),
    (_KITCHEN, "A woman chops carrots while a pot of soup steams on the stove.", frozenset()),
    (_KITCHEN, "The video shows a woman chopping carrots on a board.", frozenset({"R1"})),
    (_KITCHEN, "A pot of soup steams on a stove.", frozenset({"R2"})),
    (_KITCHEN, "A woman chops carrots in a close-up shot of her hands.", frozenset({"R3"})),
    (_KITCHEN, "A woman in a green apron and her daughter chop carrots.", frozenset({"R4"})),
    (_KITCHEN, "A woman chops carrots, which suggests that she loves cooking.", frozenset({"R5"})),
    (_HARBOUR, "Two fishermen pull a blue net into a small boat in a foggy harbour.", frozenset()),
    (_HARBOUR, "Gulls circle above two fishermen who pull a net into a boat.", frozenset()),
    (_HARBOUR, "We see two fishermen pulling a net into a boat.", frozenset({"R6"})),
    (_HARBOUR, "Three fishermen pull a red net into a small boat.", frozenset({"R4"})),
    (_HARBOUR, "Two fishermen pull a net into a boat, filmed from a low angle.", frozenset({"R3"})),
)
"""Original, caption, and the rules that this caption breaks: every judge has to see that."""


def path(config: RunConfig, phase_hash: str, second: Model | None, checked: Sequence[Row]) -> Path:
    """Where the checks lie that a judge's settings, a second judge and these rows have led to."""
    identity = {
        "judge": phase_hash,
        "second_judge": None if second is None else second.record(),
        "min_score": config.min_score,
        "rows": [row["key"] for row in checked],
    }
    return config.out / "state" / f"checks-{hash_json(identity)[:16]}.json"


def is_checked(row: Row, config: RunConfig) -> bool:
    """True for the seeded share of rows that are judged twice."""
    if row["reason"] is not None:
        return False
    position = int(hash_text("check", str(config.seed), row["id"])[:13], 16) / 16**13
    return position < config.judge_check


async def anchors(ask: Ask, model: Model) -> dict[str, Any]:
    """How many known answers the judge gives, and which it misses."""
    rows = [
        {"id": str(index), "caption_original": original, "caption": caption, "findings": []}
        for index, (original, caption, _) in enumerate(ANCHORS)
    ]
    found = await verdicts(rows, ask, model)
    missed = []
    for index, (_, caption, broken) in enumerate(ANCHORS):
        verdict = found.get(str(index))
        said = None if verdict is None else _broken(verdict)
        right = said is not None and (broken <= said if broken else not said)
        if not right:
            said_text = "unreadable" if said is None else ", ".join(sorted(said)) or "none"
            expected = ", ".join(sorted(broken)) or "none"
            missed.append({"caption": caption, "broken": expected, "said": said_text})
    return {"known": len(ANCHORS), "right": len(ANCHORS) - len(missed), "missed": missed}


async def verdicts(
    rows: Iterable[Row], ask: Ask, model: Model, *, swapped: bool = False
) -> dict[str, Row]:
    """Verdicts by row id; unreadable ones are left out."""
    found: dict[str, Row] = {}

    async def one(row: Row) -> None:
        try:
            found[row["id"]] = await conversations.judge(row, ask, model, swapped=swapped)
        except RowError:
            return

    await asyncio.gather(*(one(row) for row in rows))
    return found


def agreement(
    first: dict[str, Row], second: dict[str, Row], min_score: float
) -> dict[str, float | int | None]:
    """Rows that both judged, the share with the same decision at `min_score`, and Cohen's kappa.

    Kappa is None where one side decides everything alike, for then it is not defined.
    """
    both = sorted(first.keys() & second.keys())
    pairs = [(first[i]["score"] >= min_score, second[i]["score"] >= min_score) for i in both]
    same_rules = [_broken(first[i]) == _broken(second[i]) for i in both]
    return {
        "rows": len(both),
        "same_decision": _share([a == b for a, b in pairs]),
        "same_rules": _share(same_rules),
        "kappa": cohen_kappa(pairs),
    }


def cohen_kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Agreement beyond chance of two raters, in [-1, 1] (Cohen 1960)."""
    if not pairs:
        return None
    total = len(pairs)
    observed = sum(a == b for a, b in pairs) / total
    yes = (sum(a for a, _ in pairs) / total, sum(b for _, b in pairs) / total)
    chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
    if chance == 1:
        return None
    return round((observed - chance) / (1 - chance), 4)


def _broken(verdict: Row) -> set[str]:
    return {entry["rule"] for entry in verdict["judge"]["rules"] if entry["verdict"] == "broken"}


def _share(values: Sequence[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
