"""Figures on how a judge agrees with a person. Pure: numbers in, numbers out.

Every labelled row has a weight, the number of scored rows it stands for; figures are thus about
all scored rows, not about the sample.
"""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 2000
BOOTSTRAP_SEED = 0
Z_95 = 1.959964
"""Standard normal quantile for a two-sided 95 % interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A person's answer beside the judge's score in [0, 1]."""

    score: float
    good: bool
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Person and judge at one threshold. `kappa` is None where one of them uses one class only."""

    threshold: float
    raw: float
    """Share of rows, in [0, 1], on which both say the same."""
    kappa: float | None
    interval: tuple[float, float] | None
    """95 %, percentile bootstrap over labelled rows."""
    rows: dict[str, int]
    """Labelled rows, unweighted: both_good, judge_only, person_only, both_bad."""
    note: str | None
    """Why there is no kappa or why its interval says little."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What `min_score = threshold` would do."""

    threshold: float
    precision: float | None
    """Share of good rows among those that pass; None where no labelled row passes."""
    interval: tuple[float, float] | None
    """95 % of the precision: Wilson, with Kish's effective number of rows."""
    recall: float | None
    """Share of the good rows that pass; None where no row is good."""
    passes: float
    """Share of all scored rows that reach the threshold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleAgreement:
    """Labelled rows, unweighted, on which both person and judge have said something of a rule."""

    rule: str
    rows: int
    person: int
    """Rows on which the person calls the rule broken."""
    judge: int
    both: int
    raw: float
    kappa: float | None


def agree(judged: Sequence[Judged], *, threshold: float) -> Agreement:
    """Cohen's kappa with its interval, and raw agreement; `judged` is not empty."""
    cells = _cells(judged, threshold)
    rows = (cells > 0).sum(axis=0)
    total = cells.sum(axis=0)
    value = float(kappa(total))
    interval = None if math.isnan(value) else _bootstrap(cells)
    return Agreement(
        threshold=threshold,
        raw=round(float((total[0] + total[3]) / total.sum()), 6),
        kappa=None if math.isnan(value) else round(value, 6),
        interval=interval,
        rows=dict(zip(CELLS, map(int, rows), strict=True)),
        note=_note(rows, threshold, interval),
    )


CELLS = ("both_good", "judge_only", "person_only", "both_bad")


def kappa(table: Floats) -> Floats:
    """Cohen's kappa (Educ. Psychol. Meas. 20, 1960) of tables whose last axis is `CELLS`.

    NaN where person or judge uses one class only: chance then explains everything.
    """
    both, judge_only, person_only, neither = np.moveaxis(np.asarray(table, dtype=float), -1, 0)
    total = both + judge_only + person_only + neither
    with np.errstate(divide="ignore", invalid="ignore"):
        judge, person = (both + judge_only) / total, (both + person_only) / total
        expected = judge * person + (1 - judge) * (1 - person)
        value = ((both + neither) / total - expected) / (1 - expected)
    mixed = (
        (both + judge_only > 0)
        & (person_only + neither > 0)
        & (both + person_only > 0)
        & (judge_only + neither > 0)
    )
    result: Floats = np.where(mixed, value, np.nan)
    return result


def curve(judged: Sequence[Judged], scores: Sequence[float]) -> tuple[Point, ...]:
    """A point for every score that a labelled row has, rising. `scores` are all scored rows'."""
    return tuple(
        point(judged, scores, threshold=threshold)
        for threshold in sorted({row.score for row in judged})
    )


def point(judged: Sequence[Judged], scores: Sequence[float], *, threshold: float) -> Point:
    """Precision, recall and share that passes at `threshold`; rows at it pass."""
    weights = np.array([row.weight for row in judged])
    good = np.array([row.good for row in judged], dtype=bool)
    passing = np.array([row.score >= threshold for row in judged], dtype=bool)
    passed, true = weights[passing].sum(), weights[passing & good].sum()
    all_good = weights[good].sum()
    precision = float(true / passed) if passed else None
    return Point(
        threshold=threshold,
        precision=None if precision is None else round(precision, 6),
        interval=None if precision is None else _wilson(precision, weights[passing]),
        recall=round(float(true / all_good), 6) if all_good else None,
        passes=round(float((np.asarray(scores) >= threshold).mean()), 6),
    )


def implied_threshold(points: Sequence[Point], target: float) -> Point | None:
    """The lowest threshold whose precision is at least `target` in (0, 1], or None."""
    reaching = [p for p in points if p.precision is not None and p.precision >= target - 1e-6]
    return min(reaching, key=lambda p: p.threshold, default=None)


def agree_on_rules(
    rows: Sequence[tuple[AbstractSet[str], Mapping[str, str]]],
) -> tuple[RuleAgreement, ...]:
    """By rule, from (rules that the person calls broken, the judge's verdicts by rule).

    The judge says ok or broken; what it is unsure of does not count.
    """
    tables: dict[str, list[int]] = {}
    for broken, verdicts in rows:
        for rule, verdict in verdicts.items():
            if verdict in ("ok", "broken"):
                person, judge = rule in broken, verdict == "broken"
                cell = (0 if person else 1) if judge else (2 if person else 3)
                tables.setdefault(rule, [0, 0, 0, 0])[cell] += 1
    return tuple(_rule(rule, table) for rule, table in sorted(tables.items()))


def _rule(rule: str, table: list[int]) -> RuleAgreement:
    both, judge_only, person_only, neither = table
    value = float(kappa(np.array(table, dtype=float)))
    return RuleAgreement(
        rule=rule,
        rows=sum(table),
        person=both + person_only,
        judge=both + judge_only,
        both=both,
        raw=round((both + neither) / sum(table), 6),
        kappa=None if math.isnan(value) else round(value, 6),
    )


def _cells(judged: Sequence[Judged], threshold: float) -> Floats:
    """Each row's weight in the column of its cell."""
    cells = np.zeros((len(judged), 4))
    for index, row in enumerate(judged):
        passes = row.score >= threshold
        cells[index, (0 if row.good else 1) if passes else (2 if row.good else 3)] = row.weight
    return cells


def _bootstrap(cells: Floats) -> tuple[float, float]:
    """95 % percentile interval of kappa; resamples in which it is undefined are left out."""
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    num_rows = len(cells)
    tables = np.array(
        [
            np.bincount(generator.integers(num_rows, size=num_rows), minlength=num_rows) @ cells
            for _ in range(RESAMPLES)
        ]
    )
    low, high = np.nanpercentile(kappa(tables), [2.5, 97.5])
    return round(float(low), 6), round(float(high), 6)


def _wilson(share: float, weights: Floats) -> tuple[float, float]:
    """Wilson's interval (J. Am. Stat. Assoc. 22, 1927) with n = (sum w)^2 / sum w^2 (Kish)."""
    n = float(weights.sum() ** 2 / (weights**2).sum())
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    return round(max(0.0, centre - half), 6), round(min(1.0, centre + half), 6)


def _note(
    rows: NDArray[np.int_], threshold: float, interval: tuple[float, float] | None
) -> str | None:
    both, judge_only, person_only, neither = map(int, rows)
    for count, who in ((both + judge_only, "fails"), (person_only + neither, "passes")):
        if count == 0:
            return (
                f"Kappa is undefined: at {threshold:g} the judge {who} every labelled row, so "
                "that chance alone would agree as well."
            )
    for count, word in ((both + person_only, "bad"), (judge_only + neither, "good")):
        if count == 0:
            return f"Kappa is undefined: the person calls every labelled row {word}."
    if interval is not None and interval[0] == interval[1]:
        return "No labelled row disagrees, so that the interval of kappa says little."
    return None
