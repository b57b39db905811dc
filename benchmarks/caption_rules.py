"""How well the rules agree with labelled pairs, and how fast they are on one core.

Prints precision, recall and F1 a rule, false alarms on clean pairs and traps, and pairs a second
for 130-word originals and 50-word captions of the same scenes: all rules, and rules 1, 3, 5, 6.
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
    texts = _texts(pairs)
    speed = {
        "all rules": _rate(texts, check),
        "rules 1, 3, 5, 6": _rate(
            texts,
            lambda original, caption: [
                RULES[rule](original=original, caption=caption) for rule in ("R1", "R3", "R5", "R6")
            ],
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


def _texts(pairs: list[Pair]) -> list[tuple[str, str]]:
    """An original of 130 words and a caption of 50 for each scene, of its own clean captions."""
    clean: dict[str, list[str]] = {}
    for pair in pairs:
        if not pair.rules:
            clean.setdefault(pair.original, []).append(pair.caption)
    return [
        (_words(130, original, *captions, *captions), _words(50, *captions[::-1]))
        for original, captions in clean.items()
    ]


def _words(count: int, *texts: str) -> str:
    return " ".join(" ".join(texts).split()[:count])


_DIGITS = "here there now then also again together slowly quickly gently".split()


def _rate(
    texts: list[tuple[str, str]], call: Callable[[str, str], object], *, seconds: float = 3.0
) -> float:
    """Pairs a second of processor time, after one round; words at the end make each text new."""
    for original, caption in texts:
        call(original, caption)
    start = time.process_time()
    count = 0
    while time.process_time() - start < seconds:
        original, caption = texts[count % len(texts)]
        tail = " ".join(_DIGITS[int(digit)] for digit in str(count))
        call(f"{original} {tail}", f"{caption} {tail}")
        count += 1
    return count / (time.process_time() - start)


if __name__ == "__main__":
    main()
