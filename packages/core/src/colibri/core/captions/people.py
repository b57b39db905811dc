"""Which words mean people, of what sex and age, and which mean other living things."""

from functools import lru_cache

from colibri.core.captions import lexicon, tables

_LISTS = tables.lists("people")
MALE, FEMALE, GENERIC = _LISTS["male"], _LISTS["female"], _LISTS["generic"]
COLLECTIVES, KIN, ANYONE = _LISTS["collectives"], _LISTS["kin"], _LISTS["anyone"]
_YOUNG, _GROWN = _LISTS["young"], _LISTS["grown"]

HE = frozenset("he him his".split())
SHE = frozenset("she her".split())

PERSONS = {word: said for words, said in tables.lists("persons").items() for word in words.split()}
"""Words for people by sex and age, with the words that imply each."""


@lru_cache(maxsize=20_000)
def is_alive(lemma: str) -> bool:
    """Whether a word means people or animals."""
    return is_person(lemma) or lexicon.is_first(lemma, "animal") or _is_beast(lemma)


@lru_cache(maxsize=20_000)
def is_person(lemma: str) -> bool:
    """Whether a word means people first."""
    return lemma in _LISTS["people"] or lexicon.is_first(lemma, "person")


def _is_beast(lemma: str) -> bool:
    """Whether a word is an animal after its fur or its meat: `otter`, `chicken`."""
    return lexicon.kind_of(lemma, "animal") and not any(
        lexicon.is_first(lemma, kind) for kind in ("device", "structure", "vehicle", "act")
    )


def may_be_same(one: str, other: str) -> bool:
    """Whether two words for people may mean the same person, by sex and age."""
    return not any(
        (one in here and other in there) or (other in here and one in there)
        for here, there in ((MALE, FEMALE), (_YOUNG, _GROWN))
    )


def are_same(one: str, other: str) -> bool:
    """Whether two words for people are likely to mean the same person."""
    if not may_be_same(one, other):
        return False
    if one in GENERIC or other in GENERIC or one in lexicon.peers(other):
        return True
    return lexicon.entails(one, other) or lexicon.entails(other, one)


def is_somebody(word: str, said: frozenset[str]) -> bool:
    """Whether somebody is surely a `word` of `PERSONS`, by the nouns and pronouns of a text."""
    if not PERSONS[word].isdisjoint(said):
        return True
    if word in ("man", "woman") and not said.isdisjoint(_PAIRS):
        return True
    if word in ("man", "men", "woman", "women"):
        suffix = "woman" if word.startswith("w") else "man"
        own = [w for w in said if w.endswith(suffix) and len(w) > len(suffix) + 2]
        if any(suffix == "woman" or not w.endswith("woman") for w in own):
            return True  # a fisherman
    if word in ("man", "woman"):
        pronouns, named = (HE, MALE) if word == "man" else (SHE, FEMALE)
        return not said.isdisjoint(pronouns) and (named - _YOUNG).isdisjoint(said)
    if word in ("boy", "girl"):
        return not said.isdisjoint(_MINORS) and not said.isdisjoint(HE if word == "boy" else SHE)
    if word in ("child", "children", "kid", "kids"):
        return "teenager" in said
    return False


_PAIRS = frozenset("couple bride groom newlywed parent spouse".split())
"""One of them is a man and the other a woman, as a rule."""
_MINORS = frozenset("child kid toddler baby infant teenager teen pupil student".split())
