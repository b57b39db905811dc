"""Whether a caption speaks of a subject, by its name or another."""

import itertools

from colibri.core.captions import lexicon
from colibri.core.captions.entailment import grounding
from colibri.core.captions.first_person import r6
from colibri.core.captions.language import Token, base_forms, lemmas
from colibri.core.captions.people import (
    COLLECTIVES,
    FEMALE,
    GENERIC,
    HE,
    MALE,
    SHE,
    are_same,
    is_person,
    may_be_same,
)
from colibri.core.captions.phrases import first_head, heading, is_plural
from colibri.core.captions.text import Text
from colibri.core.captions.vocabulary import LIGHT


def mentions(caption: Text, subject: str, original: Text, *, named: bool = False) -> bool:
    """Whether the caption speaks of the subject; `named`: by a word that the original implies."""
    if not (lemmas(subject) | {subject}).isdisjoint(caption.lemmas):
        return True
    if subject == "couple" and caption.lemmas >= {"man", "woman"}:
        return True
    if is_human(subject, original):
        return _mentions_person(caption, subject, original, named=named)
    return _mentions_thing(caption, subject, original)


# ---- things and animals ----


def _mentions_thing(caption: Text, subject: str, original: Text) -> bool:
    if any(t.pos == "NOUN" and _is_breed(t.lemma, subject, original) for t in caption.content):
        return True
    up = lexicon.implied(subject)
    return any(
        _names(lemma, subject, up)
        for token in caption.content
        if token.pos in ("NOUN", "PROPN", "ADJ", "VERB")
        for lemma in base_forms(token.lower)
    )


def _is_breed(lemma: str, subject: str, original: Text) -> bool:
    """Whether a word is the kind before the subject: the `retriever` of `a retriever puppy`."""
    return lexicon.is_first(lemma, "animal") and any(
        first.lemma == lemma and second.lemma == subject
        for first, second in itertools.pairwise(original.tokens)
    )


def _names(lemma: str, subject: str, up: frozenset[str]) -> bool:
    """Whether a lemma is a name, a kind or, of the senses `up`, a kind above of the subject."""
    if subject in lexicon.peers(lemma) or subject in lexicon.grounds(lemma):
        return True
    if lexicon.kind_of(lemma, subject):
        return True
    own = lexicon.main_senses(lemma, "NOUN")
    return not own.isdisjoint(up) and lemma not in LIGHT and lemma not in _TOO_GENERAL


_TOO_GENERAL = frozenset(
    "whole unit entity artifact organism matter structure state being group".split()
)


# ---- people ----


def is_human(lemma: str, text: Text) -> bool:
    """Whether a word means people, or may and the text goes on about `him` or `her`."""
    if is_person(lemma):
        return True
    if not lexicon.known(lemma):
        return not HE_SHE.isdisjoint(text.lemmas)
    return lexicon.may_be(lemma, "person") and lemma.endswith(_AGENTIVE) and bool(text.people)


HE_SHE = HE | SHE | {"who"}
_AGENTIVE = ("er", "or", "ist", "ian", "ant", "ent", "ee")


def _mentions_person(caption: Text, subject: str, original: Text, *, named: bool) -> bool:
    if not caption.lemmas.isdisjoint(("someone", "somebody", "individual", "human")):
        return True
    several = subject in ("people", "group") or any(
        is_plural(token) for token in original.content if token.lemma == subject
    )
    for token in heading(caption.tokens):
        for lemma in base_forms(token.lower):
            if subject in lexicon.peers(lemma):
                return True
            if not is_person(lemma):
                if lemma in COLLECTIVES and (subject in lexicon.grounds(lemma) or several):
                    return True
                continue
            if several and lemma != subject and _is_somebody_else(token, original):
                continue  # the older woman is not the dancers
            if _is_about_another(lemma, subject, original, caption):
                continue  # nor is the girl who throws the fleece the shepherd
            others = not several and is_plural(token) and not token.lower.endswith("'s")
            if others and lemma != "people" and lemma in original.lemmas:
                continue  # the customers are not the person at the laptop
            if are_same(subject, lemma):
                if named or lemma in original.lemmas or lexicon.entails(subject, lemma):
                    return True
                if not _is_against_pronouns(lemma, original):
                    return grounding(original, caption) >= 0.34
            if not named and may_be_same(subject, lemma) and _may_refer(lemma, original):
                return grounding(original, caption) >= 0.5
    return not named and _speaks_for_somebody(caption, original)


def _speaks_for_somebody(caption: Text, original: Text) -> bool:
    """Whether a teller or a hand stands for the person."""
    if not _FIRST_PERSONS.isdisjoint(caption.lemmas) and r6(original="", caption=caption.text):
        return True
    return first_head(caption.tokens) in _HANDS & original.lemmas


_FIRST_PERSONS = frozenset(("i", "we", "my", "our"))
_HANDS = frozenset("hand finger arm leg foot face".split())


def _is_somebody_else(token: Token, original: Text) -> bool:
    """Whether one person of the caption is told apart in the original: `an older woman`."""
    if is_plural(token) or token.lemma in ("people", "one"):
        return False
    places = [i for i, other in enumerate(original.tokens) if other.lower == token.lower]
    return bool(places) and all(_is_apposed(i, original) for i in places)


def _is_about_another(lemma: str, subject: str, original: Text, caption: Text) -> bool:
    """Whether a caption retells the sentence that brings in `a girl` beside the shepherd, and what
    is around them."""
    if subject in GENERIC or lemma == subject or _may_refer(lemma, original):
        return False
    if any(token.lemma == subject and is_plural(token) for token in original.tokens):
        return False
    places = [index for index, token in enumerate(original.tokens) if token.lemma == lemma]
    lemmas_of = [frozenset(t.lemma for t in sentence) for sentence in original.sentences]
    own = next((i for i, said in enumerate(lemmas_of) if places and lemma in said), 0)
    if own < _LATER or any(_is_apposed(i, original) or _is_predicate(i, original) for i in places):
        return False
    around = [said for said in lemmas_of if HE_SHE.isdisjoint(said) and subject not in said]
    told = frozenset(t.lemma for t in caption.content if t.lemma not in LIGHT)
    retold = told & lemmas_of[own].union(*around)
    return len(retold) >= _RETOLD * len(told & original.lemmas)


_LATER = 2
"""A main subject has been described by then."""
_RETOLD = 0.6


def _is_apposed(index: int, original: Text) -> bool:
    """Whether a noun explains another: the `woman` of `the instructor, an older woman`."""
    tokens = original.tokens
    start = next((i for i in range(index - 1, max(0, index - 5), -1) if tokens[i].text == ","), 0)
    return (
        start > 0 and tokens[start + 1].lower in ("a", "an") and is_person(tokens[start - 1].lemma)
    )


def _is_predicate(index: int, original: Text) -> bool:
    """Whether somebody is said to be it: `she is a woman of sixty`."""
    return any(
        token.pos == "AUX" or token.lower in ("as", "like")
        for token in original.tokens[max(0, index - 5) : index]
    )


def _is_against_pronouns(lemma: str, original: Text) -> bool:
    """Whether a word is male where the original only has `she`, or the other way round."""
    for words, own, other in ((MALE, HE, SHE), (FEMALE, SHE, HE)):
        if lemma in words and not original.lemmas.isdisjoint(other):
            return original.lemmas.isdisjoint(words | own)
    return False


def _may_refer(lemma: str, original: Text) -> bool:
    """Whether the original has no such person, or only after `the`, as one mentioned before."""
    places = [i for i, token in enumerate(original.tokens) if token.lemma == lemma]
    return all(i and original.tokens[i - 1].lower in ("the", "this") for i in places)
