"""Many patterns over one text, fast: a pattern is tried only where a word that it needs is present.

The words are read off the pattern itself, so that gated and ungated scanning find the same.
"""

import functools
import re
from collections.abc import Iterable, Iterator
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

MIN_LETTERS = 2
MAX_IDLE = 100_000


class Gated:
    """An alternation of case-insensitive patterns, matched as if each stood alone in turn."""

    def __init__(self, *patterns: str) -> None:
        alone = [part for pattern in patterns for part in alternatives(pattern)]
        self._patterns = [(re.compile(p, re.IGNORECASE), needed(p)) for p in alone]
        self._always = [i for i, (_, words) in enumerate(self._patterns) if not words]
        keys = [(_keys(words), 2 * i) for i, (_, words) in enumerate(self._patterns)]
        self._second = frozenset(2 * i for i, p in enumerate(alone) if _second(p))
        keys += [(_keys(_second(p)), 2 * i + 1) for i, p in enumerate(alone)]
        self._keys = [(key, gate) for found, gate in keys for key in found]
        self._idle: set[str] = set()
        """Words that open no gate, as far as they were met."""
        self._woken_by = functools.lru_cache(maxsize=100_000)(self._wakes)

    def finditer(self, text: str) -> Iterator[re.Match[str]]:
        """Matches of all patterns by place; of two that overlap, the one that begins first."""
        found: list[re.Match[str]] = []
        for index in self._awake(text):
            found += self._patterns[index][0].finditer(text)
        end = 0
        for match in sorted(found, key=lambda match: (match.start(), -match.end())):
            if match.start() >= end:
                end = match.end()
                yield match

    def search(self, text: str) -> re.Match[str] | None:
        """The first match, or None."""
        return next(self.finditer(text), None)

    def _awake(self, text: str) -> Iterable[int]:
        """Indices of the patterns that may match."""
        if not text.isascii():  # case folding may hide a word: try everything
            return range(len(self._patterns))
        words = words_in(text) - self._idle
        gates: frozenset[int] = frozenset().union(*map(self._woken_by, words))
        if not gates:
            return self._always
        second = self._second
        woken = [
            gate >> 1
            for gate in gates
            if not gate & 1 and (gate not in second or gate + 1 in gates)
        ]
        return sorted([*self._always, *woken])

    def _wakes(self, word: str) -> frozenset[int]:
        """Gates that a word opens: 2 i for what pattern i needs most, 2 i + 1 for the rest."""
        gates = frozenset(gate for key, gate in self._keys if key in word)
        if not gates and len(self._idle) < MAX_IDLE:
            self._idle.add(word)
        return gates


_ALNUM = re.compile(r"[a-z0-9]+")


@functools.lru_cache(maxsize=1024)
def words_in(text: str) -> frozenset[str]:
    """Runs of letters and digits in an ASCII text, in lower case; kept for the last texts."""
    return frozenset(_ALNUM.findall(text.lower()))


def alternatives(pattern: str) -> list[str]:
    """The parts of a pattern between the bars outside all brackets."""
    parts = [""]
    depth = 0
    for piece in re.findall(r"\\.|\[\^?\]?(?:\\.|[^\]])*\]|.", pattern, re.DOTALL):
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if piece == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def needed(pattern: str) -> frozenset[str] | None:
    """Words of which every match of `pattern` contains at least one; None when there are none."""
    return _needed(_parser.parse(pattern, re.IGNORECASE))


def _second(pattern: str) -> frozenset[str] | None:
    """Words of which every match contains one as well, elsewhere; None when there are none."""
    found = sorted(set(_candidates(_parser.parse(pattern, re.IGNORECASE))), key=_cost)
    return found[1] if len(found) > 1 else None


def _keys(words: frozenset[str] | None) -> list[str]:
    """The longest run of letters of each word: it stands inside one word of a text."""
    return [max(_ALNUM.findall(word), key=len) for word in words or ()]


def _needed(sequence: Any) -> frozenset[str] | None:
    return min(_candidates(sequence), key=_cost, default=None)


def _candidates(sequence: Any) -> list[frozenset[str]]:
    """For each place in a sequence, words of which one must stand there."""
    found: list[frozenset[str]] = []
    run = ""
    for operator, argument in [*sequence, (None, None)]:
        if operator is _constants.LITERAL:
            run += chr(argument).lower()
            continue
        if _is_key(run):
            found.append(frozenset({run}))
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
            found.append(inner)
    return found


def _is_key(run: str) -> bool:
    return run.isascii() and any(len(piece) >= MIN_LETTERS for piece in _ALNUM.findall(run))


def _cost(words: frozenset[str]) -> tuple[int, int]:
    """Rarer is better: long words first, then few of them."""
    return -min(map(len, words)), len(words)
