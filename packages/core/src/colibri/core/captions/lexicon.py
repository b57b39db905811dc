"""Which word follows from which: synonyms, kinds of kinds, derivations. Derived from WordNet.

`entails("woman", "person")` holds, `entails("person", "woman")` does not.
"""

import functools
from collections.abc import Iterable

from colibri.core.captions import tables

Senses = frozenset[str]


class _Table:
    def __init__(self) -> None:
        self.senses: dict[str, dict[str, tuple[str, ...]]] = {}
        self.parents: dict[str, tuple[str, ...]] = {}
        self.derived: dict[str, tuple[str, ...]] = {}
        for line in tables.lines("wordnet.txt.gz"):
            kind, head, *rest = line.split(" ")
            if kind == "w":
                self.senses.setdefault(rest[0], {})[head] = tuple(rest[1:])
            elif kind == "s":
                self.parents[head] = tuple(rest)
            else:
                self.derived[head] = tuple(rest)


@functools.lru_cache(maxsize=1)
def _table() -> _Table:
    return _Table()


@functools.lru_cache(maxsize=100_000)
def senses(lemma: str, pos: str = "") -> Senses:
    """All common senses of a lemma, or those for `pos` (NOUN, VERB) where it has any."""
    return frozenset(sense for group in _groups(lemma, pos) for sense in group)


@functools.lru_cache(maxsize=100_000)
def main_senses(lemma: str, pos: str = "") -> Senses:
    """The two commonest senses of a lemma for each part of speech, or for `pos` if it has any."""
    return frozenset(sense for group in _groups(lemma, pos) for sense in group[:2])


def _groups(lemma: str, pos: str) -> Iterable[tuple[str, ...]]:
    found = _table().senses.get(lemma, {})
    letter = _LETTERS.get(pos, "")
    return (found[letter],) if letter in found else found.values()


@functools.lru_cache(maxsize=100_000)
def implied(lemma: str) -> Senses:
    """Senses that hold wherever `lemma` is said: its own, derived ones, and all kinds above."""
    table = _table()
    found = table.senses.get(lemma, {})
    near = {sense for group in found.values() for sense in group[:3]}
    for group in found.values():
        near.update(table.derived.get(group[0], ()))
    return frozenset(near | _above(senses(lemma) & near))


@functools.lru_cache(maxsize=100_000)
def narrower_verb(lemma: str) -> Senses:
    """Senses of a verb and their direct parents: `stroll` reaches `walk`."""
    table = _table()
    own = table.senses.get(lemma, {}).get("v", ())
    return frozenset(own) | {up for sense in own[:2] for up in table.parents.get(sense, ())}


@functools.lru_cache(maxsize=300_000)
def entails(said: str, claimed: str) -> bool:
    """Whether a text that says `said` also says `claimed`, both lemmas."""
    if said == claimed or stem(said) == stem(claimed):
        return True
    return not senses(claimed).isdisjoint(implied(said))


@functools.lru_cache(maxsize=100_000)
def is_first(lemma: str, kind: str, *, pos: str = "NOUN") -> bool:
    """Whether the commonest sense of `lemma` as a noun or verb lies under the first of `kind`."""
    table = _table()
    letter = _LETTERS[pos]
    top = table.senses[kind][letter][0]
    own = table.senses.get(lemma, {}).get(letter, ())[:1]
    return any(top == sense or top in _above(frozenset((sense,))) for sense in own)


_LETTERS = {"NOUN": "n", "VERB": "v"}


@functools.lru_cache(maxsize=100_000)
def kind_of(lemma: str, kind: str) -> bool:
    """Whether one of the two commonest noun senses of `lemma` is or lies under one of `kind`."""
    table = _table()
    tops = frozenset(table.senses.get(kind, {}).get("n", ())[:2])
    own = frozenset(table.senses.get(lemma, {}).get("n", ())[:2])
    return not tops.isdisjoint(own | _above(own))


@functools.lru_cache(maxsize=100_000)
def may_be(lemma: str, kind: str) -> bool:
    """Whether any common noun sense of `lemma` lies under the first sense of `kind`."""
    table = _table()
    top = table.senses[kind]["n"][0]
    return any(
        top in _above(frozenset((sense,))) for sense in table.senses.get(lemma, {}).get("n", ())
    )


@functools.lru_cache(maxsize=100_000)
def mainly_noun(lemma: str) -> bool:
    """Whether a lemma has clearly more noun senses than verb senses."""
    found = _table().senses.get(lemma, {})
    return len(found.get("n", ())) > len(found.get("v", ())) * 1.5


@functools.lru_cache(maxsize=100_000)
def mainly_adjective(lemma: str) -> bool:
    """Whether a lemma has as many senses as an adjective as it has as a noun."""
    found = _table().senses.get(lemma, {})
    return len(found.get("a", ())) >= max(2, len(found.get("n", ())))


def never_adjective(lemma: str) -> bool:
    """Whether a lemma is a noun and no adjective."""
    found = _table().senses.get(lemma, {})
    return "n" in found and "a" not in found


@functools.lru_cache(maxsize=1)
def _thesaurus() -> tuple[dict[str, Senses], dict[str, Senses]]:
    peers_of: dict[str, Senses] = {}
    grounds_of: dict[str, Senses] = {}
    for claimed, words in tables.entries("synonyms"):
        group = frozenset(words)
        if claimed:
            grounds_of[claimed] = grounds_of.get(claimed, _NOTHING) | group
        else:
            peers_of.update({word: peers_of.get(word, _NOTHING) | group for word in words})
    return peers_of, grounds_of


def peers(lemma: str) -> Senses:
    """Words that captions use for a lemma and the other way round, itself included."""
    return _thesaurus()[0].get(lemma, _NOTHING)


def grounds(lemma: str) -> Senses:
    """Words from which a lemma follows though WordNet does not say so."""
    return _thesaurus()[1].get(lemma, _NOTHING)


_NOTHING: Senses = frozenset()


@functools.lru_cache(maxsize=1)
def _glosses() -> dict[str, dict[str, str]]:
    """Explanations (`g`) and rarer kinds (`k`) by lemma."""
    found: dict[str, dict[str, str]] = {"g": {}, "k": {}}
    for line in tables.lines("glosses.txt.gz"):
        kind, head, rest = line.split(" ", 2)
        found[kind][head] = rest
    return found


@functools.lru_cache(maxsize=100_000)
def glossed(lemma: str) -> Senses:
    """Words by which a dictionary explains a lemma, as they stand there."""
    return frozenset(_glosses()["g"].get(lemma, "").split())


@functools.lru_cache(maxsize=100_000)
def rarer_kinds(lemma: str) -> Senses:
    """Kinds of animals, things, food and plants of which a lemma is one in a rarer sense."""
    return frozenset(_glosses()["k"].get(lemma, "").split())


@functools.lru_cache(maxsize=100_000)
def known(lemma: str) -> bool:
    """Whether the table has the lemma at all."""
    return lemma in _table().senses


@functools.lru_cache(maxsize=100_000)
def _above(start: Senses) -> Senses:
    parents = _table().parents
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        for parent in parents.get(waiting.pop(), ()):
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return frozenset(found)


@functools.lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """A word without a common ending."""
    for ending in ("ness", "ing", "ish", "ful", "ed", "en", "er", "ly", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word.removesuffix(ending).rstrip("e")
    return word.rstrip("e") if len(word) > 4 else word
