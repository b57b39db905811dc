"""Colours, materials and opposites: new ones, and those that belong to another thing."""

from functools import lru_cache
from typing import NamedTuple

from colibri.core.captions import lexicon
from colibri.core.captions.language import Token
from colibri.core.captions.surface import new_detail
from colibri.core.captions.text import Text
from colibri.core.captions.vocabulary import COLOURS, MATERIALS, OPPOSITES
from colibri.core.clip import Finding


def new_colour(token: Token, word: str, original: Text) -> Finding | None:
    """A colour that the original has in no shade."""
    if COLOURS[word] in colours(original) or word in original.lemmas:
        return None
    return new_detail(token, f"colour {word!r} is not in the original")


@lru_cache(maxsize=64)
def colours(text: Text) -> frozenset[str]:
    """The colours of a text."""
    return frozenset(COLOURS[lemma] for lemma in COLOURS.keys() & text.lemmas)


def opposed(token: Token, original: Text) -> Finding | None:
    """A word whose opposite is all that the original has."""
    against = OPPOSITES.get(token.lower)
    if not against or token.pos == "VERB" or token.lower in original.lemmas:
        return None
    said = against & _sides(original)
    if not said or not lexicon.peers(token.lower).isdisjoint(original.lemmas):
        return None
    return new_detail(token, f"{token.lower!r} where the original says {min(said)!r}")


@lru_cache(maxsize=64)
def _sides(text: Text) -> frozenset[str]:
    """Words that have an opposite: not the light of `lights`, not the verb `opens`."""
    return frozenset(
        token.lower for token in text.tokens if token.lower in OPPOSITES and token.pos != "VERB"
    )


def misattached(token: Token, original: Text, caption: Text) -> Finding | None:
    """A colour, number or opposite that the original gives to another noun than the caption."""
    there = _attached(original)
    claimed = _attached(caption).of.get(token.lemma)
    said = there.of.get(token.lemma)
    if not claimed or not said:
        return None
    for mark in claimed - said - there.loose:
        against = said & _rivals(mark, said)
        if against and (
            mark in _STUFF or mark in colours(original) | original.lemmas | original.numbers
        ):
            return new_detail(token, f"{mark} {token.lower!r} is {min(against)} in the original")
    return None


_HUES = frozenset(COLOURS.values())
_STUFF = frozenset(MATERIALS.values())


def _rivals(mark: str, said: frozenset[str]) -> frozenset[str]:
    """Marks that a thing with this mark cannot have as well."""
    for rivals in (_HUES, _STUFF):
        if mark in rivals:
            return rivals
    if mark in OPPOSITES:
        return OPPOSITES[mark]
    if not mark.isdigit() or mark == "1":
        return frozenset()
    return frozenset(other for other in said if other.isdigit() and other not in ("1", mark))


# ---- what a text says of its things ----


class _Attached(NamedTuple):
    """Marks: colours, materials, numbers and words that have an opposite."""

    of: dict[str, frozenset[str]]
    """Marks of each noun."""
    loose: frozenset[str]
    """Marks that stand before no noun."""


_MARKS = {word: word for word in OPPOSITES} | MATERIALS | COLOURS


@lru_cache(maxsize=64)
def _attached(text: Text) -> _Attached:
    of_noun: dict[str, set[str]] = {}
    loose: set[str] = set()
    waiting: list[str] = []
    tokens = text.tokens
    for index, (word, lower, lemma, pos, _, _) in enumerate(tokens):
        mark = lemma if pos == "NUM" else _MARKS.get(lower)
        if not mark and not waiting:
            continue
        following = tokens[index + 1].pos if index + 1 < len(tokens) else "PUNCT"
        describes = lower not in MATERIALS and (lower != "left" or pos != "VERB")
        if mark and (describes or following == "NOUN"):
            waiting.append(mark)
        elif waiting:
            if pos in ("NOUN", "PROPN"):
                of_noun.setdefault(lemma, set()).update(waiting)
                if following != "NOUN":
                    waiting = []
            elif pos not in ("ADJ", "CONJ") and word not in (",", "-"):
                loose.update(waiting)
                waiting = []
    loose.update(waiting)
    return _Attached({noun: frozenset(marks) for noun, marks in of_noun.items()}, frozenset(loose))
