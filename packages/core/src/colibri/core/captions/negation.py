"""What a text denies: `without a hat`, `nearly falls`; and captions that deny or affirm anew."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from colibri.core.captions.language import Token, bare
from colibri.core.captions.surface import new_detail
from colibri.core.captions.text import Text
from colibri.core.captions.vocabulary import NEGATORS
from colibri.core.clip import Finding


def new_negation(index: int, original: Text, caption: Text) -> Finding | None:
    """What a `no`, `without`, `not` of the caption denies though the original does not."""
    following = [t for t in caption.tokens[index + 1 : index + 5] if t.pos in ("NOUN", "VERB")]
    if not following:
        return None
    lemma = following[0].lemma
    said = denials(original)
    if lemma in said.negated or _is_absent(lemma, original):
        return None
    denies = said.negated and any(token.lower in NEGATORS for token in original.tokens)
    if denies and lemma not in said.plain:
        return None
    token = caption.tokens[index]
    return new_detail(token, f"{token.text!r} denies something that the original does not")


def _is_absent(lemma: str, original: Text) -> bool:
    """Whether it goes without saying that something is not there: `water` of a dry riverbed."""
    return any(
        lemma in _ABSENT.get(word, ()) or word.startswith("bare") or word.endswith("less")
        for word in original.lemmas
    )


_ABSENT = {
    "dry": ("water", "rain"),
    "empty": ("person", "people", "content", "anyone", "car", "passenger", "customer"),
    "deserted": ("person", "people", "anyone", "car"),
    "bald": ("hair",),
    "bare": ("leaf", "shoe", "shirt", "glove", "sleeve"),
    "alone": ("person", "people", "anyone", "company"),
    "behind": ("passenger", "person"),
    "shirtless": ("shirt",),
    "clear": ("cloud",),
    "cloudless": ("cloud",),
    "silent": ("sound", "word", "noise"),
    "still": ("wind", "wave"),
    "calm": ("wind", "wave"),
    "motionless": ("movement",),
    "single": ("other",),
}
"""What is not there where something is said to be so."""


def denies_all(token: Token, original: Text) -> Finding | None:
    """A `nothing` or `nobody` where the original lacks nothing."""
    if not _EMPTY.isdisjoint(original.lemmas):
        return None
    return new_detail(token, f"{token.text!r} denies what the original tells")


_EMPTY = NEGATORS | frozenset("empty emptyhanded empty-handed deserted alone only bare".split())


def new_lack(token: Token, word: str, own: frozenset[str], original: Text) -> Finding | None:
    """A new `-less`: `hatless`."""
    if word.removesuffix("less") in denials(original).negated or own & _STATES:
        return None
    return new_detail(token, f"{word!r} denies something that the original does not")


_STATES = frozenset("motionless weightless cordless seamless".split())


def newly_affirmed(token: Token, original: Text, caption: Text) -> Finding | None:
    """A noun or verb that the original only denies."""
    lemma, said = token.lemma, denials(original)
    if lemma not in said.negated or lemma in said.plain:
        return None
    claimed = denials(caption)
    if lemma not in claimed.plain or lemma in claimed.negated:
        return None
    return new_detail(token, f"the original denies {token.lower!r}")


# ---- what a text denies ----


class Denials(NamedTuple):
    """Lemmas of the nouns and verbs of a text."""

    negated: frozenset[str]
    """Denied by a word before them."""
    plain: frozenset[str]
    """Standing somewhere without one."""


@lru_cache(maxsize=64)
def denials(text: Text) -> Denials:
    """What a text denies and what it does not."""
    if _DENIERS.isdisjoint(text.lemmas) and "n't" not in text.text and "n’t" not in text.text:
        acts_and_things = [token.lemma for token in text.tokens if token.pos in ("NOUN", "VERB")]
        return Denials(frozenset(), frozenset(map(bare, acts_and_things)))
    negated: set[str] = set()
    plain: set[str] = set()
    since = _FAR
    for index, token in enumerate(text.tokens):
        if token.pos == "PUNCT":
            since = _FAR if token.text in ".,;!?" else since
            continue
        if token.lower in NEGATORS or token.lower.endswith("n't"):
            done = token.lower == "nothing" and index and text.tokens[index - 1].pos == "VERB"
            since = _FAR if done else 0
        else:
            since += 1
        if token.pos not in ("NOUN", "VERB"):
            continue
        undone = token.pos == "VERB" and _is_undone(index, text.tokens)
        (negated if since <= _NEAR or undone else plain).add(bare(token.lemma))
        if since <= _NEAR and not token.lower.endswith("ing"):
            goes_on = text.tokens[index + 1 : index + 2]
            since = since if goes_on and goes_on[0].pos == "NOUN" else _FAR
    return Denials(frozenset(negated), frozenset(plain))


_NEAR = 4
"""Words over which a negator reaches."""
_FAR = 99


def _is_undone(index: int, tokens: Sequence[Token]) -> bool:
    """Whether a verb tells of what is not done: `nearly falls`, `fails to open`."""
    word = tokens[index - 1].lower if index else ""
    if word == "to" and index > 1:
        return tokens[index - 2].lower in _NOT_QUITE
    if word == "from":  # `keeps the screws from drifting`
        return any(token.lemma in _HINDER for token in tokens[max(0, index - 7) : index])
    return word in ("almost", "nearly")


_NOT_QUITE = frozenset("almost nearly fail fails failed failing".split())
_HINDER = frozenset("keep prevent stop hinder protect save discourage".split())
_DENIERS = NEGATORS | _NOT_QUITE | _HINDER
