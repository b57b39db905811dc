"""Many patterns over one text, fast: a pattern is tried only where a word that it needs is present.

The words are read off the pattern itself, so that gated and ungated scanning find the same.
"""

import functools
import operator
import re
from collections.abc import Iterator
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

MIN_LETTERS = 2
MAX_WORDS = 200_000


class Gated:
    """An alternation of case-insensitive patterns, matched as if each stood alone in turn."""

    def __init__(self, *patterns: str) -> None:
        alone = [part for pattern in patterns for part in alternatives(pattern)]
        self._patterns = {
            _GATES.add(_keys(needed(p)), _keys(_second(p))): re.compile(p, re.IGNORECASE)
            for p in alone
        }
        self._own = sum(self._patterns)

    def finditer(self, text: str) -> Iterator[re.Match[str]]:
        """Matches of all patterns by place; of two that overlap, the one that begins first."""
        open_gates = _gates_in(text) & self._own
        if not open_gates:
            return
        found: list[re.Match[str]] = []
        while open_gates:
            gate = open_gates & -open_gates
            found += self._patterns[gate].finditer(text)
            open_gates ^= gate
        end = 0
        for match in sorted(found, key=lambda match: (match.start(), -match.end())):
            if match.start() >= end:
                end = match.end()
                yield match

    def search(self, text: str) -> re.Match[str] | None:
        """The first match, or None."""
        return next(self.finditer(text), None)


class _Gates(dict[str, int]):
    """What a word opens, for all patterns at once: bit 2 i for what pattern i needs most,
    bit 2 i + 1 for the rest."""

    def __init__(self) -> None:
        self.keys_of: list[tuple[str, int]] = []
        self.always = 0
        """Bits that no word need open."""
        self.all = 0

    def add(self, first: list[str], second: list[str]) -> int:
        """The gate of one more pattern, from one run of letters for each word that it needs."""
        gate = 1 << self.all.bit_count() * 2
        for keys, bit in ((first, gate), (second, gate << 1)):
            self.keys_of += [(key, bit) for key in keys]
            self.always |= 0 if keys else bit
        self.all |= gate
        self.clear()
        _gates_in.cache_clear()
        return gate

    def __missing__(self, word: str) -> int:
        opened = 0
        for key, bit in self.keys_of:
            if key in word:
                opened |= bit
        if len(self) < MAX_WORDS:
            self[word] = opened
        return opened


_GATES = _Gates()


@functools.lru_cache(maxsize=64)
def _gates_in(text: str) -> int:
    """Gates of the patterns that may match in a text; kept for the last texts."""
    if not text.isascii():  # case folding may hide a word: try everything
        return _GATES.all
    opened = functools.reduce(operator.or_, map(_GATES.__getitem__, words_in(text)), _GATES.always)
    return opened & (opened >> 1) & _GATES.all


_ALNUM = re.compile(r"[a-z0-9]+")


@functools.lru_cache(maxsize=64)
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
    for kind, argument in [*sequence, (None, None)]:
        if kind is _constants.LITERAL:
            run += chr(argument).lower()
            continue
        if _is_key(run):
            found.append(frozenset({run}))
        run = ""
        inner: frozenset[str] | None = None
        if kind is _constants.SUBPATTERN:
            inner = _needed(argument[3])
        elif kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT) and argument[0] >= 1:
            inner = _needed(argument[2])
        elif kind is _constants.BRANCH:
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
