"""How well the rules agree with labelled pairs, and how fast they are on one core.

Prints precision, recall and F1 a rule, false alarms on clean pairs and traps, and pairs a second
for 130-word originals and 50-word captions: all rules, and rules 1, 3, 5 and 6 alone.
"""

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from colibri.core.captions.rules import RULES, check, violates
from colibri.core.shards import write_json_whole

PAIRS = Path(__file__).parents[1] / "tests" / "data" / "caption_rules.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A labelled pair."""

    original: str
    caption: str
    rules: frozenset[str]
    kind: str


def main() -> None:
    """Score, time, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, default=PAIRS)
    parser.add_argument("--show-errors", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/caption_rules.json"))
    arguments = parser.parse_args()
    pairs = read_pairs(arguments.pairs)
    scores, alarms = score(pairs, show_errors=arguments.show_errors)
    print(f"{len(pairs)} pairs, {sum(pair.kind != 'violation' for pair in pairs)} clean or traps")
    print(f"{'rule':<6}{'precision':>10}{'recall':>10}{'F1':>10}{'labelled':>10}")
    for rule, entry in scores.items():
        print(
            f"{rule:<6}{entry['precision']:>10.3f}{entry['recall']:>10.3f}{entry['f1']:>10.3f}"
            f"{entry['labelled']:>10.0f}"
        )
    print(f"false alarms on clean pairs and traps: {alarms:.1%}")
    original, caption = _text(pairs, 130), _text(pairs[::-1], 50)
    speed = {
        "all rules": _rate(lambda text: check(original + text, caption)),
        "rules 1, 3, 5, 6": _rate(
            lambda text: [
                RULES[rule](original=original, caption=caption + text)
                for rule in ("R1", "R3", "R5", "R6")
            ]
        ),
    }
    for name, rate in speed.items():
        print(f"{name}: {rate:,.0f} pairs/s on one core")
    write_json_whole(
        arguments.out,
        {
            "date": time.strftime("%Y-%m-%d"),
            "machine": platform.platform(),
            "pairs": len(pairs),
            "rules": scores,
            "false_alarms": alarms,
            "pairs_per_s": speed,
        },
    )


def read_pairs(path: Path) -> list[Pair]:
    """Pairs of a file in the form of tests/data/caption_rules.txt."""
    pairs: list[Pair] = []
    original = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("= "):
            original = line[2:]
        elif line and not line.startswith("#"):
            rules, kind, caption = line.split(" | ", 2)
            named = frozenset(rules.split()) - {"-"}
            pairs.append(Pair(original=original, caption=caption, rules=named, kind=kind))
    return pairs


def score(
    pairs: list[Pair], *, show_errors: bool = False
) -> tuple[dict[str, dict[str, float]], float]:
    """Scores a rule, and the share of clean pairs and traps with any violation."""
    found = [frozenset(violates(check(pair.original, pair.caption))) for pair in pairs]
    scores = {}
    for rule in RULES:
        hits = sum(
            rule in got and rule in pair.rules for got, pair in zip(found, pairs, strict=True)
        )
        said = sum(rule in got for got in found)
        labelled = sum(rule in pair.rules for pair in pairs)
        precision = hits / said if said else 1.0
        recall = hits / labelled if labelled else 1.0
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        scores[rule] = {"precision": precision, "recall": recall, "f1": f1, "labelled": labelled}
    harmless = [got for got, pair in zip(found, pairs, strict=True) if not pair.rules]
    if show_errors:
        for got, pair in zip(found, pairs, strict=True):
            if got != pair.rules:
                print(f"want {sorted(pair.rules)} got {sorted(got)}: {pair.caption}")
    return scores, sum(map(bool, harmless)) / len(harmless)


def _text(pairs: list[Pair], words: int) -> str:
    collected: list[str] = []
    for pair in pairs:
        if not pair.rules:
            collected += pair.caption.split()
    return " ".join(collected[:words])


def _rate(call: Callable[[str], object], *, seconds: float = 2.0) -> float:
    call(" warm")
    start = time.perf_counter()
    count = 0
    while time.perf_counter() - start < seconds:
        call(f" {count}")
        count += 1
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
