"""Numbers that the original does not give, and one thing that has become several."""

import itertools

from colibri.core.captions import lexicon
from colibri.core.captions.people import is_person
from colibri.core.captions.phrases import after, before, is_plural, readings
from colibri.core.captions.surface import new_detail
from colibri.core.captions.text import Text
from colibri.core.captions.vocabulary import PLAIN
from colibri.core.clip import Finding


def new_number(index: int, original: Text, caption: Text) -> Finding | None:
    """A number that the original neither gives nor adds up to."""
    token = caption.tokens[index]
    value = token.lemma
    if token.lower == "dozen" and index > 1 and caption.tokens[index - 2].lower == "half":
        value = "6"
    if value == "1" or value in original.numbers or token.lower in original.lemmas:
        return None
    if value == "2" and _has_pair(original):
        return None
    if value.isdecimal() and _adds_up(int(value), index, original, caption):
        return None
    counted = next((t for t in caption.tokens[index + 1 : index + 4] if t.pos == "NOUN"), None)
    if value in _ORDINALS and counted and _has_nth(_ORDINALS[value], counted.lemma, original):
        return None
    return new_detail(token, f"number {token.text!r} is not in the original")


def _has_pair(original: Text) -> bool:
    """`two people` where the original has a couple, or `a man and a woman`."""
    if not original.lemmas.isdisjoint(_TWO):
        return True
    tokens = original.tokens
    for first, word, second in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if first.pos == "NOUN" and word.lower == "and" and second.lower in ("a", "an", "another"):
            return True
        if second.lower == "another" or (second.lower == "other" and word.lower == "the"):
            return True
    return False


_TWO = frozenset("pair couple both twin twins two duo twice".split())


def _adds_up(value: int, index: int, original: Text, caption: Text) -> bool:
    """Whether the original tells of so many, one by one or in parts."""
    counted = after(index, caption.tokens)
    if counted.lower in _FOLK and value <= len(original.people):
        return True
    for first, second in itertools.pairwise(original.tokens):
        if first.pos == "NUM" and first.lemma == str(value - 1) and second.lower in _OTHERS:
            return True  # three soldiers: a soldier and two other soldiers
    if counted.pos != "NOUN" or not is_person(counted.lemma) or counted.lemma in original.lemmas:
        return False
    parts = [int(number) for number in original.numbers if number.isdecimal()]
    sums = {one + 1 for one in parts} | {sum(pair) for pair in itertools.combinations(parts, 2)}
    return value in sums and len(original.people) > 1  # four performers: a man and three musicians


_FOLK = frozenset("people persons individuals figures adults".split())
_OTHERS = frozenset("other others more additional".split())


def _has_nth(ordinal: str, lemma: str, original: Text) -> bool:
    """`two movers` where the original has `a mover` and `a second mover`."""
    return any(
        token.lower == ordinal
        and lemma in (t.lemma for t in original.tokens[index + 1 : index + 4])
        for index, token in enumerate(original.tokens)
    )


_ORDINALS = {"2": "second", "3": "third", "4": "fourth"}


def newly_several(index: int, original: Text, caption: Text) -> Finding | None:
    """A plural of what the original has but one of."""
    token = caption.tokens[index]
    if not is_plural(token):
        return None
    lemma = token.lemma
    if lexicon.kind_of(lemma, "clothing") or lemma in PLAIN["plural"]:
        return None  # an orange robe, orange robes
    if readings(index, caption.tokens) != ("NOUN",):
        return None  # `a girl in a yellow dress swings higher`
    if after(index, caption.tokens).pos == "DET" and _follows_noun(index, caption):
        return None  # `a woman in blue gloves pipettes a liquid`
    if not _has_only_one(lemma, original):
        return None
    others = is_person(lemma) and _has_others(original)
    return new_detail(token, f"the original has one {lemma!r}, not several", ambiguous=others)


def _follows_noun(index: int, caption: Text) -> bool:
    return before(index, caption.tokens).pos in ("NOUN", "PROPN")


def _has_only_one(lemma: str, original: Text) -> bool:
    """Whether every mention is `a LEMMA` or `one LEMMA` and only one of them is there."""
    ones = 0
    tokens = original.tokens
    for index, token in enumerate(tokens):
        if token.lemma != lemma or token.pos not in ("NOUN", "VERB", "ADJ"):
            continue
        if token.lower != lemma or "others" in [t.lower for t in tokens[index:]]:
            return False
        if after(index, tokens).pos in ("NOUN", "PROPN"):
            return False  # a mountain landscape
        words = [word.lower for word in tokens[max(0, index - 4) : index]]
        if any(word in ("another", "each", "every", "several", "second") for word in words):
            return False
        ones += any(word in ("a", "an", "one") for word in words)
    return ones == 1


def _has_others(original: Text) -> bool:
    """Whether the original has other people by whom one may become several."""
    return len(original.people) > 1 or any(
        is_plural(token) and is_person(token.lemma) for token in original.content
    )
