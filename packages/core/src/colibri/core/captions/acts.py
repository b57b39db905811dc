"""Acts that end otherwise, are turned round or undone, and things in another's place."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from colibri.core.captions import lexicon
from colibri.core.captions.language import Token, sentences
from colibri.core.captions.negation import denials
from colibri.core.captions.people import is_alive, is_person
from colibri.core.captions.phrases import after, before, first_head
from colibri.core.captions.surface import new_detail
from colibri.core.captions.text import Text
from colibri.core.captions.vocabulary import BODY, OPPOSITE_ACTS
from colibri.core.clip import Finding


def turns_out_otherwise(index: int, original: Text, caption: Text) -> bool:
    """`hits the center of the target` where the original has it land outside."""
    token = caption.tokens[index]
    if token.lemma not in _SUCCESS or token.pos not in ("VERB", "NOUN"):
        return False
    if token.lemma in original.lemmas or "without" in caption.lemmas:
        return False
    aims = _AIMS.intersection(t.lemma for t in caption.tokens[index + 1 : index + 5])
    return any(
        first.lemma in _FAILURE and not aims.isdisjoint(t.lemma for t in follow)
        for first, *follow in _windows(original, 5)
    )


_AIMS = frozenset("target center centre bullseye goal basket hoop net hole ball pin".split())
_SUCCESS = frozenset("hit score sink pot catch reach".split())
_FAILURE = frozenset("miss outside wide short fail past".split())


def is_reverse(index: int, original: Text, caption: Text) -> bool:
    """Whether the original has the opposite act, which the caption leaves out: `retreat` for
    `advance`, `shakes his head` for `nods`."""
    lemma = caption.tokens[index].lemma
    if lemma == "shake" and "head" in [t.lemma for t in caption.tokens[index : index + 4]]:
        lemma = "shake_head"
    against = OPPOSITE_ACTS.get(lemma, frozenset()) & denials(original).plain
    return bool(against) and against.isdisjoint(caption.lemmas)


def is_mishap(index: int, caption: Text) -> bool:
    """Whether somebody falls, or drops something: `a player falls`, not `sunlight falls`."""
    tokens = caption.tokens
    lemma = tokens[index].lemma
    if lemma not in _MISHAPS:
        return False
    if lemma in ("drop", "spill"):
        following = after(index, tokens)
        return following.pos in ("DET", "PRON") or following.lower in ("his", "her", "its")
    previous = before(index, tokens)
    if previous.lower in ("and", "then", ","):
        start = next(start for start, end in sentences(tokens) if start <= index < end)
        who = first_head(tokens[start:index])
        return who is not None and is_alive(who)
    return is_alive(previous.lemma)


_MISHAPS = frozenset("fall drop spill trip slip stumble".split())


def takes_place_of(index: int, original: Text, caption: Text) -> bool:
    """Whether another thing fills the same place in the original: `the tail of a shark` for `the
    fin of a shark`, `a heart appears` for `a fern appears`."""
    tokens = caption.tokens
    token = tokens[index]
    if token.pos != "NOUN" or token.lower != token.lemma or index + 2 >= len(tokens):
        return False
    if is_person(token.lemma):
        return False
    following = tokens[index + 1]
    if following.lower == "of" and token.lemma in BODY:
        whole = next((t.lemma for t in tokens[index + 2 : index + 6] if t.pos == "NOUN"), "")
        places = [
            first
            for first, of, *rest in _windows(original, 6)
            if of.lower == "of" and whole in [t.lemma for t in rest]
        ]
    elif following.pos == "VERB" and before(index, tokens).lower in ("a", "an"):
        places = [
            first for first, verb, _ in _windows(original, 3) if verb.lemma == following.lemma
        ]
    else:
        return False
    named = [first.lemma for first in places if first.pos == "NOUN"]
    return bool(named) and not any(
        lemma in caption.lemmas or lexicon.entails(lemma, token.lemma) for lemma in named
    )


def _windows(text: Text, length: int) -> Iterator[tuple[Token, ...]]:
    return zip(*(text.tokens[shift:] for shift in range(length)), strict=False)


# ---- who does what to whom ----


def changed_places(original: Text, caption: Text) -> list[Finding]:
    """Who does what to whom, turned around: `a girl pushes a man` for `a man pushes a girl`."""
    claimed = _deeds(caption)
    if not claimed:
        return []
    said = {(deed.who, deed.verb.lemma, deed.whom) for deed in _deeds(original)}
    return [
        new_detail(verb, f"{who!r} and {whom!r} have changed places")
        for who, verb, whom in claimed
        if (whom, verb.lemma, who) in said and (who, verb.lemma, whom) not in said
    ]


class _Deed(NamedTuple):
    """Living things on both sides of an active verb."""

    who: str
    verb: Token
    whom: str


@lru_cache(maxsize=64)
def _deeds(text: Text) -> list[_Deed]:
    found = []
    who: str | None = None
    verb: Token | None = None
    for index, token in enumerate(text.tokens):
        if token.pos == "PUNCT":
            if token.text in ".;!?":
                who = verb = None
        elif token.pos == "VERB":
            passive = after(index, text.tokens).lower == "by"
            verb = None if passive else token
        elif token.pos == "NOUN" and is_alive(token.lemma) and token.lemma not in BODY:
            if who and verb and who != token.lemma:
                found.append(_Deed(who, verb, token.lemma))
                verb = None
            elif not verb:
                who = who or token.lemma
    return found
