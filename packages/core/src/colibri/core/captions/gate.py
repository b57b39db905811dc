"""Many patterns over one text, fast: a pattern is tried only where a word that it needs is present.

The words are read off the pattern itself, so that gated and ungated scanning find the same.
"""

import re
from collections.abc import Iterator
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

MIN_LETTERS = 3


class Gated:
    """An alternation of case-insensitive patterns, matched as if each stood alone in turn."""

    def __init__(self, *patterns: str) -> None:
        self._patterns = [(re.compile(p, re.IGNORECASE), needed(p)) for p in patterns]

    def finditer(self, text: str) -> Iterator[re.Match[str]]:
        """Matches of all patterns by place; of two that overlap, the one that begins first."""
        lower = text.lower()
        if len(lower) != len(text) or not text.isascii():
            lower = ""  # case folding may hide a word: try everything
        found: list[re.Match[str]] = []
        for pattern, words in self._patterns:
            if not lower or words is None or any(word in lower for word in words):
                found += pattern.finditer(text)
        end = 0
        for match in sorted(found, key=lambda match: (match.start(), -match.end())):
            if match.start() >= end:
                end = match.end()
                yield match

    def search(self, text: str) -> re.Match[str] | None:
        """The first match, or None."""
        return next(self.finditer(text), None)


def needed(pattern: str) -> frozenset[str] | None:
    """Words of which every match of `pattern` contains at least one; None when there are none."""
    return _needed(_parser.parse(pattern, re.IGNORECASE))


def _needed(sequence: Any) -> frozenset[str] | None:
    best: frozenset[str] | None = None
    run = ""
    for operator, argument in [*sequence, (None, None)]:
        if operator is _constants.LITERAL:
            run += chr(argument).lower()
            continue
        candidates = [frozenset({run})] if len(run) >= MIN_LETTERS and run.isascii() else []
        run = ""
        inner: frozenset[str] | None = None
        if operator is _constants.SUBPATTERN:
            inner = _needed(argument[3])
        elif operator in (_constants.MAX_REPEAT, _constants.MIN_REPEAT) and argument[0] >= 1:
            inner = _needed(argument[2])
        elif operator is _constants.BRANCH:
            parts = [_needed(branch) for branch in argument[1]]
            if all(part is not None for part in parts):
                inner = frozenset().union(*(part for part in parts if part is not None))
        if inner:
            candidates.append(inner)
        for candidate in candidates:
            if best is None or _cost(candidate) < _cost(best):
                best = candidate
    return best


def _cost(words: frozenset[str]) -> tuple[int, int]:
    """Rarer is better: long words first, then few of them."""
    return -min(map(len, words)), len(words)
