"""From labels to figures, and from figures to text. Touches no files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from colibri.core.errors import UserError
from colibri.curate.calibrate.agreement import (
    BOOTSTRAP_SEED,
    RESAMPLES,
    Agreement,
    Judged,
    Point,
    RuleAgreement,
    agree,
    agree_on_rules,
    curve,
    implied_threshold,
    point,
)
from colibri.curate.calibrate.journal import Journal, Label
from colibri.curate.calibrate.sample import LabelRow, Scored, stratify, weights

TABLE_LINES = 12
"""Most lines of the curve that are printed; calibration.json has them all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The figures, as calibration.json holds them; no times, no paths."""

    judge: str
    min_score: float
    """Threshold of the run."""
    target_precision: float
    scored_rows: int
    sampled_rows: int
    seed: int
    labels: dict[str, int]
    """Rows: good, bad, skipped, unanswered. Ignored labels: changed, unknown, unreadable."""
    represented: float
    """Share of the scored rows, in [0, 1], in strata that have a label; the others are unknown."""
    interval_method: str
    agreement: Agreement
    at_min_score: Point
    curve: tuple[Point, ...]
    threshold: Point | None
    """The lowest whose precision reaches the target."""
    rules: tuple[RuleAgreement, ...]
    notes: tuple[str, ...]


def measure(
    journal: Journal,
    *,
    scored: Sequence[Scored],
    sample: Sequence[str],
    rows: Mapping[str, LabelRow],
    judge: str,
    min_score: float,
    target_precision: float,
    seed: int,
) -> Calibration:
    """All figures, from every label that fits a scored row, in the sample or not.

    `rows` holds the sampled and the labelled rows. UserError when none is labelled good or bad.
    """
    labels = {
        row_id: label
        for (row_id, caption_hash), label in journal.labels.items()
        if row_id in rows and rows[row_id].caption_hash == caption_hash
    }
    decided = {row_id: label for row_id, label in labels.items() if label.label != "skip"}
    if not decided:
        raise UserError(
            f"no row is labelled good or bad in {journal.path}", hint="label with --page"
        )
    strata = stratify(scored)
    weight = weights(strata, decided)
    scores = {row.id: row.score for row in scored}
    judged = [
        Judged(score=scores[row_id], good=label.label == "good", weight=weight[row_id])
        for row_id, label in sorted(decided.items())
    ]
    points = curve(judged, list(scores.values()))
    agreement = agree(judged, threshold=min_score)
    rules, rule_note = _rules(decided, rows)
    known = {row_id for row_id, _ in journal.labels}
    answers = Counter(label.label for label in labels.values())
    return Calibration(
        judge=judge,
        min_score=min_score,
        target_precision=target_precision,
        sampled_rows=len(sample),
        seed=seed,
        scored_rows=len(scored),
        labels={
            "good": answers["good"],
            "bad": answers["bad"],
            "skipped": answers["skip"],
            "unanswered": len(set(sample) - set(labels)),
            "changed": len((known & set(rows)) - set(labels)),
            "unknown": len(known - set(rows)),
            "unreadable": journal.unreadable,
        },
        represented=round(sum(weight.values()) / len(scored), 6),
        interval_method=f"percentile bootstrap over labelled rows, {RESAMPLES} resamples, "
        f"seed {BOOTSTRAP_SEED}",
        agreement=agreement,
        at_min_score=point(judged, list(scores.values()), threshold=min_score),
        curve=points,
        threshold=implied_threshold(points, target_precision),
        rules=rules,
        notes=tuple(note for note in (agreement.note, rule_note) if note),
    )


def as_text(calibration: Calibration, out: Path) -> str:
    """The figures for a person, with the curve in at most `TABLE_LINES` lines."""
    counts, agreement = calibration.labels, calibration.agreement
    kappa = "undefined"
    if agreement.kappa is not None and agreement.interval is not None:
        low, high = agreement.interval
        kappa = f"{agreement.kappa:.2f}, 95 % interval {low:.2f} to {high:.2f}"
    lines = [
        f"judge      {calibration.judge}, min_score {calibration.min_score:g}, "
        f"{calibration.scored_rows:,} scored rows",
        f"labels     {counts['good']} good, {counts['bad']} bad, {counts['skipped']} skipped, "
        f"{counts['unanswered']} not answered",
        *_ignored(counts),
        f"agreement  {agreement.raw:.0%}, kappa {kappa}",
    ]
    if agreement.kappa is not None:
        lines.append(f"           ({calibration.interval_method})")
    if calibration.represented < 1:
        lines.append(
            f"           the labels stand for {calibration.represented:.0%} of the scored rows; "
            "label more to reach the others"
        )
    lines += [f"note       {note}" for note in calibration.notes]
    lines += ["", f"{'min_score':>10}{'precision':>11}  95 % interval{'recall':>9}{'passes':>9}"]
    lines += [_line(entry) for entry in _thinned(calibration)]
    if calibration.rules:
        lines += ["", f"{'rule':<6}{'rows':>6}{'person':>8}{'judge':>7}{'agree':>7}{'kappa':>7}"]
    lines += [
        f"{rule.rule:<6}{rule.rows:>6}{rule.person:>8}{rule.judge:>7}{rule.raw:>7.0%}"
        f"{'-' if rule.kappa is None else format(rule.kappa, '.2f'):>7}"
        for rule in calibration.rules
    ]
    lines += ["", _verdict(calibration), "", f"figures    {out / 'calibration.json'}"]
    if calibration.threshold is not None:
        lines.append(f"threshold  curate run --config {out / 'calibration.toml'}")
    return "\n".join(lines)


def _rules(
    decided: Mapping[str, Label], rows: Mapping[str, LabelRow]
) -> tuple[tuple[RuleAgreement, ...], str | None]:
    """Rows that are good break no rule; bad ones of which none was named say nothing of rules."""
    if not any(label.rules for label in decided.values()):
        return (), None
    if not any(rows[row_id].rule_verdicts for row_id in decided):
        return (), "Rules were named, but the judge gave no verdict by rule to compare them with."
    pairs = [
        (set(label.rules), rows[row_id].rule_verdicts)
        for row_id, label in decided.items()
        if label.label == "good" or label.rules
    ]
    return agree_on_rules(pairs), None


def _ignored(counts: Mapping[str, int]) -> list[str]:
    reasons = (
        ("changed", "the caption changed since"),
        ("unknown", "no scored row has this id"),
        ("unreadable", "the line cannot be read"),
    )
    return [f"ignored    {counts[name]}: {why}" for name, why in reasons if counts[name]]


def _line(entry: Point) -> str:
    interval = "-"
    if entry.interval is not None:
        interval = f"{entry.interval[0]:.2f} to {entry.interval[1]:.2f}"
    precision, recall = (
        "-" if value is None else f"{value:.2f}" for value in (entry.precision, entry.recall)
    )
    return f"{entry.threshold:>10.4g}{precision:>11}{interval:>15}{recall:>9}{entry.passes:>9.0%}"


def _thinned(calibration: Calibration) -> list[Point]:
    """Evenly chosen points, and always those at the run's and at the implied threshold."""
    points = calibration.curve
    step = max(1, -(-len(points) // (TABLE_LINES - 2)))
    chosen = {entry.threshold: entry for entry in points[::step]}
    for entry in (calibration.at_min_score, calibration.threshold):
        if entry is not None:
            chosen[entry.threshold] = entry
    return [chosen[threshold] for threshold in sorted(chosen)]


def _verdict(calibration: Calibration) -> str:
    target, reached = calibration.target_precision, calibration.threshold
    if reached is not None:
        return (
            f"min_score {reached.threshold:g} is the lowest with a precision of at least "
            f"{target:g}; {reached.passes:.0%} of the scored rows reach it."
        )
    best = max(calibration.curve, key=lambda entry: entry.precision or 0.0)
    return (
        f"No threshold has a precision of {target:g}: the best, {best.precision or 0:.2f}, is at "
        f"{best.threshold:g}, so that no calibration.toml is written."
    )
