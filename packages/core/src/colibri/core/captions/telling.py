"""Which words no paraphrase brings along by the way, whatever the texts."""

from functools import lru_cache

from colibri.core.captions import lexicon, tables
from colibri.core.captions.language import Token
from colibri.core.captions.vocabulary import BODY, MATERIALS

_LISTS = tables.lists("telling")
TEMPERS = _LISTS["tempers"]


def is_telling(token: Token, pos: str) -> bool:
    """Whether a word that the original does not imply is surely a new detail.

    Things, people, places, weather, telltale looks are; what a paraphrase may bring along (acts of
    handling and moving, events, abstractions, parts of a body) is left to a judge.
    """
    lemma = token.lemma
    if pos == "VERB":
        return False
    if pos == "ADJ":
        return token.lower in _LISTS["looks"] or token.lower in MATERIALS
    if pos == "PROPN":
        return True
    listed = lemma in _LISTS["things"] or lemma in MATERIALS
    return listed or not lexicon.known(lemma) or is_concrete(lemma)


def is_listed(lemma: str) -> bool:
    """Whether a lemma is on the lists of telling things and looks."""
    return lemma in _LISTS["looks"] or lemma in _LISTS["things"] or lemma in MATERIALS


@lru_cache(maxsize=20_000)
def is_telling_act(lemma: str) -> bool:
    """Whether a lemma is an act too telling for a paraphrase to bring in."""
    return lemma in _LISTS["acts"] or any(
        lexicon.is_first(lemma, kind, pos="VERB") for kind in _LISTS["kinds"]
    )


@lru_cache(maxsize=20_000)
def is_everyday_act(lemma: str) -> bool:
    """Whether a verb is of the kinds that a paraphrase brings along."""
    return any(lexicon.is_first(lemma, kind, pos="VERB") for kind in _EVERYDAY)


_EVERYDAY = (
    "move travel change touch be have stand put show use express happen communicate announce learn"
).split()


@lru_cache(maxsize=20_000)
def is_concrete(lemma: str) -> bool:
    """Whether a noun names something that can be seen, and no part of a body."""
    if lemma in BODY:
        return False
    return any(lexicon.is_first(lemma, kind) for kind in _FIRST) or any(
        lexicon.kind_of(lemma, kind) for kind in _KINDS
    )


_FIRST = "object matter nutrient weather storm athletics organization fire sea lake stream".split()
_KINDS = "container structure weapon decoration vehicle garment furniture animal".split()
