"""OUT/report/index.html: one self-contained page, made from OUT's files alone.

Captions are hostile text: everything passes through jinja2's escaping, and the page's policy allows
no script and no outside address.
"""

import base64
import difflib
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape
from PIL import Image

from colibri.core.captions.content import nouns
from colibri.core.errors import UserError
from colibri.core.hashing import hash_text
from colibri.core.shards import read_rows, write_text_whole

EXAMPLES = 9
"""Rows shown of each kind."""

TERMS = 12
SHOWN_CHARACTERS = 1200

RULE_NAMES = {
    "R1": "starts with the subject or scene",
    "R2": "keeps the main subject",
    "R3": "no cinematography",
    "R4": "nothing new",
    "R5": "no analysis or instructions",
    "R6": "no first person",
    "X-cutoff": "whole sentences",
    "X-language": "English",
    "X-length": "length",
    "X-quoted": "not quoted as a whole",
    "X-repetition": "no repetition",
}


@dataclass
class _Seen:
    """What is gathered in one pass over the rows."""

    lengths_before: list[int] = field(default_factory=list)
    lengths_after: list[int] = field(default_factory=list)
    terms_before: Counter[str] = field(default_factory=Counter)
    terms_after: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Counter[str]] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    verdicts: dict[str, Counter[str]] = field(default_factory=dict)
    tries: Counter[int] = field(default_factory=Counter)
    example_of: dict[str, Markup] = field(default_factory=dict)
    examples: dict[str, list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)


def write_report(out: Path) -> Path:
    """Write the page for a finished run. UserError when `out` holds no manifest."""
    manifest_path = out / "manifest.json"
    if not manifest_path.exists():
        raise UserError(f"{out} holds no manifest.json", hint="finish `curate run` first")
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    seen = _look(out, manifest)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = shown
    template = environment.from_string(
        (files("colibri.curate.report") / "page.html").read_text(encoding="utf-8")
    )
    page = template.render(
        manifest=manifest,
        counts=manifest["counts"],
        flow=_funnel(manifest["counts"]),
        reasons=_reasons(manifest["counts"]),
        lengths=_histogram(seen.lengths_before, seen.lengths_after),
        judging=_judging(seen, manifest),
        terms=(_bars(seen.terms_before), _bars(seen.terms_after)),
        rules=_rule_table(seen),
        groups=[
            (title, [_card(row) for _, row in sorted(seen.examples.get(kind, []))])
            for kind, title in (
                ("kept", "Kept"),
                ("borderline", "Borderline: kept with the lowest scores or an open question"),
                ("rejected", "Rejected"),
                ("quarantine", "Quarantined"),
            )
        ],
        config=json.dumps(manifest["config"], indent=2, ensure_ascii=False),
    )
    target = out / "report" / "index.html"
    write_text_whole(target, page)
    return target


def shown(text: str | None, limit: int = SHOWN_CHARACTERS) -> str:
    """Text that is safe to look at: no control or direction marks, cut at `limit` characters."""
    plain = "".join(
        char if unicodedata.category(char)[0] != "C" or char == "\n" else "\u2423"
        for char in (text or "")[: limit + 1]
    )
    return plain[:limit] + " \u2026" if len(plain) > limit else plain


# ---- one pass over the rows ----


def _look(out: Path, manifest: dict[str, Any]) -> _Seen:
    seen = _Seen()
    for row in _rows(out, "data"):
        seen.lengths_before.append(len(row["caption_original"].split()))
        seen.lengths_after.append(len(row["caption"].split()))
        seen.terms_before.update(set(nouns(row["caption_original"][:SHOWN_CHARACTERS])))
        seen.terms_after.update(set(nouns(row["caption"])))
        _note_findings(seen, row, "kept")
        _note_judge(seen, row)
        open_question = any(finding["ambiguous"] for finding in row["findings"] or ())
        _offer(seen, "borderline", f"{0 if open_question else 1}{row['score']:.6f}{row['id']}", row)
        _offer(seen, "kept", hash_text("kept", row["id"]), row)
    for row in _rows(out, "rejected"):
        _note_findings(seen, row, "rejected")
        _note_judge(seen, row)
        _offer(seen, "rejected", hash_text("rejected", row["id"]), row)
    for row in _rows(out, "quarantine"):
        _note_findings(seen, row, "quarantined")
        seen.tries[len(json.loads(row["attempts"] or "[]"))] += 1
        _offer(seen, "quarantine", hash_text(row["reason"], row["id"]), row)
    return seen


def _rows(out: Path, name: str) -> Iterator[dict[str, Any]]:
    for path in sorted((out / name).glob("*.parquet")):
        yield from read_rows(path)


def _note_findings(seen: _Seen, row: dict[str, Any], where: str) -> None:
    for finding in row["findings"] or ():
        rule = finding["rule"]
        kind = "open" if finding["ambiguous"] else where
        seen.findings.setdefault(rule, Counter())[kind] += 1
        if rule not in seen.example_of and finding["start"] is not None:
            seen.example_of[rule] = _marked(row["caption"], finding["start"], finding["end"])
        elif rule not in seen.example_of:
            seen.example_of[rule] = Markup("lost: <mark>{}</mark>").format(shown(finding["text"]))


def _note_judge(seen: _Seen, row: dict[str, Any]) -> None:
    facts = json.loads(row["provenance"] or "{}")
    seen.tries[len(facts.get("attempts", ()))] += 1
    if row["score"] is not None:
        seen.scores.append(row["score"])
    for entry in (row["judge"] or {}).get("rules") or ():
        seen.verdicts.setdefault(entry["rule"], Counter())[entry["verdict"]] += 1


def _offer(seen: _Seen, kind: str, rank: str, row: dict[str, Any]) -> None:
    """Keep the `EXAMPLES` rows of the lowest rank."""
    best = seen.examples.setdefault(kind, [])
    best.append((rank, row))
    if len(best) > EXAMPLES:
        best.remove(max(best, key=lambda entry: entry[0]))


# ---- parts of the page ----


def _funnel(counts: dict[str, Any]) -> list[tuple[str, int, float]]:
    total = max(1, counts["in"])
    usable = counts["in"] - counts["quarantined"]
    steps = (("rows in", counts["in"]), ("usable", usable), ("kept", counts["kept"]))
    return [(name, count, 100 * count / total) for name, count in steps]


def _reasons(counts: dict[str, Any]) -> list[tuple[str, str, list[tuple[str, int]], int]]:
    sources = sorted(counts["by_source"])
    table: dict[tuple[str, str], dict[str, int]] = {}
    for source in sources:
        for kind in ("rejected", "quarantined"):
            for reason, count in counts["by_source"][source][kind].items():
                table.setdefault((kind, reason), {})[source] = count
    return [
        (kind, reason, [(source, row.get(source, 0)) for source in sources], sum(row.values()))
        for (kind, reason), row in sorted(
            table.items(), key=lambda item: (item[0][0], -sum(item[1].values()), item[0][1])
        )
    ]


def _histogram(before: list[int], after: list[int], bins: int = 20) -> dict[str, Any]:
    """Two histograms of words over the same bins, as SVG rectangles of a 600 by 160 drawing."""
    top = max([*(min(count, 240) for count in before), *after, 20])
    width = max(1, -(-top // bins))
    series = []
    for values in (before, after):
        heights = Counter(min(value // width, bins - 1) for value in values)
        highest = max(heights.values(), default=1)
        series.append(
            [
                (round(30 * index + 2), round(150 - 140 * heights[index] / highest, 1),
                 round(140 * heights[index] / highest, 1), heights[index], index * width)
                for index in range(bins)
            ]
        )  # fmt: skip
    ticks = [(30 * index, index * width) for index in range(0, bins + 1, 4)]
    means = [round(sum(values) / len(values), 1) if values else 0 for values in (before, after)]
    return {"before": series[0], "after": series[1], "ticks": ticks, "means": means}


def _judging(seen: _Seen, manifest: dict[str, Any]) -> dict[str, Any]:
    """Scores against the threshold, verdicts by rule, tries, and the judge's checks."""
    threshold = manifest["config"]["min_score"]
    bins = Counter(min(int(score * 20), 19) for score in seen.scores)
    highest = max(bins.values(), default=1)
    return {
        "threshold": threshold,
        "threshold_x": 600 * threshold,
        "bars": [
            (30 * index + 2, round(150 - 140 * bins[index] / highest, 1),
             round(140 * bins[index] / highest, 1), bins[index], index / 20)
            for index in range(20)
        ],
        "passed": sum(score >= threshold for score in seen.scores),
        "scored": len(seen.scores),
        "verdicts": [(rule, seen.verdicts[rule]) for rule in sorted(seen.verdicts)],
        "tries": sorted((tries, count) for tries, count in seen.tries.items() if tries),
        "checks": manifest["judge_checks"],
        "engines": [
            (role, manifest[role]["name"], manifest[role]["reproducibility"])
            for role in ("describer", "captioner", "judge")
            if role in manifest
        ],
    }  # fmt: skip


def _bars(terms: Counter[str]) -> list[tuple[str, int, float]]:
    top = sorted(terms.items(), key=lambda item: (-item[1], item[0]))[:TERMS]
    highest = top[0][1] if top else 1
    return [(term, count, 100 * count / highest) for term, count in top]


def _rule_table(seen: _Seen) -> list[dict[str, Any]]:
    return [
        {
            "rule": rule,
            "name": name,
            "kept": seen.findings.get(rule, Counter())["kept"],
            "open": seen.findings.get(rule, Counter())["open"],
            "refused": seen.findings.get(rule, Counter())["rejected"]
            + seen.findings.get(rule, Counter())["quarantined"],
            "example": seen.example_of.get(rule, ""),
        }
        for rule, name in RULE_NAMES.items()
    ]


def _card(row: dict[str, Any]) -> dict[str, Any]:
    before, after = diff(shown(row["caption_original"]), shown(row["caption"]))
    size = ""
    if row.get("width"):
        size = f"{row['width']}x{row['height']}, {row['fps']:.2f} fps, {row['num_frames']} frames"
    place = row["video"] + (f" / {row['member']}" if row["member"] else "")
    score = row.get("score")
    return {
        "thumbnail": _thumbnail(row.get("image")),
        "before": before,
        "after": after if row["caption"] else "",
        "reason": row.get("reason") or "",
        "error": row.get("error") or "",
        "score": "" if score is None else f"{score:.2f}",
        "where": f"{row['source']}: {place}",
        "size": size,
    }


def diff(before: str, after: str) -> tuple[Markup, Markup]:
    """Both texts, escaped, with the words that differ marked as deleted and inserted."""
    first, second = re.findall(r"\s+|\S+", before), re.findall(r"\s+|\S+", after)
    left, right = Markup(), Markup()
    matcher = difflib.SequenceMatcher(a=first, b=second, autojunk=False)
    for tag, i, j, k, m in matcher.get_opcodes():
        gone, come = "".join(first[i:j]), "".join(second[k:m])
        left += escape(gone) if tag == "equal" or not gone else Markup("<del>{}</del>").format(gone)
        right += (
            escape(come) if tag == "equal" or not come else Markup("<ins>{}</ins>").format(come)
        )
    return left, right


def _marked(text: str, start: int, end: int) -> Markup:
    before, after = text[max(0, start - 50) : start], text[end : end + 50]
    return Markup("{}<mark>{}</mark>{}").format(
        ("\u2026" if start > 50 else "") + shown(before), shown(text[start:end], 120), shown(after)
    )


def _thumbnail(image: dict[str, Any] | None) -> str:
    if not image or not image["bytes"]:
        return ""
    with Image.open(io.BytesIO(image["bytes"])) as opened:
        picture = opened.convert("RGB")
        picture.thumbnail((360, 240))
        target = io.BytesIO()
        picture.save(target, "JPEG", quality=78)
    return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode()
