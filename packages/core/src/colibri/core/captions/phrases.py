"""Noun phrases without a parser: their heads, what modifies them, and what a word may be there."""

import itertools
from collections.abc import Sequence

from colibri.core.captions import lexicon
from colibri.core.captions.language import Token, bare, lemmas, parts_of_speech
from colibri.core.captions.people import is_alive
from colibri.core.captions.vocabulary import COLOURS, GROUPS, RECORDING

END = Token(".", ".", ".", "PUNCT", 0, 0)
"""Stands before the first word and behind the last."""


def after(index: int, tokens: Sequence[Token]) -> Token:
    """The token behind a place, or `END`."""
    return tokens[index + 1] if index + 1 < len(tokens) else END


def before(index: int, tokens: Sequence[Token]) -> Token:
    """The token before a place, or `END`."""
    return tokens[index - 1] if index else END


def first_head(tokens: Sequence[Token]) -> str | None:
    """Head noun of the first noun phrase that is about the content."""
    phrase: list[Token] = []
    for index, token in enumerate([*tokens, END]):
        if _belongs(index, token, tokens, phrase):
            phrase.append(token)
            continue
        nouns = [word for word in phrase if word.pos in ("NOUN", "PROPN")]
        owns = token.text in _APOSTROPHES and nouns and token.start == nouns[-1].end
        if nouns and not owns:
            head = _head(nouns, phrase, tokens)
            if not _is_by_the_way(head, token):
                return head.lemma
        phrase = []  # a farmers' auction: the next phrase tells
    return None


def _belongs(index: int, token: Token, tokens: Sequence[Token], phrase: list[Token]) -> bool:
    """Whether a word goes on with a noun phrase, or begins one."""
    if token.pos in ("NOUN", "PROPN"):
        return True
    if token.text == "I":
        return bool(phrase) and phrase[-1].text[0].isupper()  # World War I
    if token.pos != "ADJ" or index + 1 >= len(tokens):
        return False
    following = tokens[index + 1]
    return is_plural(following) or (
        following.pos == "NOUN" and bool(phrase) and phrase[-1].pos == "ADJ"
    )


def _head(nouns: list[Token], phrase: list[Token], tokens: Sequence[Token]) -> Token:
    head = next((n for n in nouns if is_plural(n) and is_alive(n.lemma)), nouns[-1])
    if is_plural(head) and len(phrase) > 1 and _is_one(phrase[0], tokens):
        return phrase[-2]  # "a mechanic lies": the last word is the verb
    return head


def _is_one(first: Token, tokens: Sequence[Token]) -> bool:
    start = next(index for index, token in enumerate(tokens) if token is first)
    return any(token.lower in ("a", "an", "one") for token in tokens[max(0, start - 3) : start])


def _is_by_the_way(head: Token, following: Token) -> bool:
    """Whether a phrase only leads to what a text is about: `the video of`, `a group of`."""
    about = lemmas(head.lower)
    return (
        not about.isdisjoint(RECORDING)
        or head.lower in RECORDING
        or head.lemma in _PARTS_OF_THE_DAY
        or (head.lower in COLOURS and following.lower == "and")  # a blue and white car
        or (following.lower == "of" and not about.isdisjoint(GROUPS))
    )


_APOSTROPHES = frozenset("'’")
_PARTS_OF_THE_DAY = frozenset(
    "day night morning evening afternoon sunset sunrise dusk dawn".split()
)


def heading(tokens: Sequence[Token]) -> list[Token]:
    """Nouns that no other noun follows: not the `tackle` of `a tackle box`."""
    return [
        token
        for token, following in itertools.pairwise([*tokens, END])
        if token.pos in ("NOUN", "PROPN") and not _is_modifier(token, following)
    ]


def living_heads(sentence: Sequence[Token]) -> list[str]:
    """Lemmas of people and animals that head their phrase: not the `chef` of `a chef knife`."""
    return [
        token.lemma
        for token, following in itertools.pairwise([*sentence, END])
        if token.pos == "NOUN"
        and is_alive(token.lemma)
        and not _is_modifier(token, following)
        and not (following.text in _APOSTROPHES and following.start == token.end)
    ]


def _is_modifier(token: Token, following: Token) -> bool:
    """Whether a noun stands before its head: the `tackle` of `a tackle box`, the `optician's` of
    `an optician's shop`, but not an owner at hand: `a woman's lathe`."""
    if token.lower.endswith("'s"):
        return lexicon.is_first(following.lemma, "structure")
    return (
        following.pos in ("NOUN", "PROPN")
        and not is_plural(token)
        and not (
            following.lower.endswith(("s", "ing", "ed"))
            and "VERB" in parts_of_speech(following.lower)
        )
    )


def joined_heads(tokens: Sequence[Token], head: str) -> list[str]:
    """Owners and partners of a head: the chef of `a chef's hands`, the dog of `a man and a dog`."""
    place = next((i for i, token in enumerate(tokens) if token.lemma == head), 0)
    owners = [token.lower for token in reversed(tokens[max(0, place - 2) : place])]
    found = [bare(owner) for owner in owners if owner.endswith("'s")]
    rest = tokens[place + 1 : place + 6]
    if len(rest) > 2 and rest[0].lower == "and" and rest[1].pos in ("DET", "NUM", "ADJ", "NOUN"):
        found += [t.lemma for t in rest if t.pos == "NOUN"][:1]
    return found


def is_plural(token: Token) -> bool:
    """Whether a noun has a plural form."""
    return token.lower != token.lemma and (
        token.lower.endswith("s") or token.lower in ("men", "women", "children", "feet")
    )


def readings(index: int, tokens: Sequence[Token]) -> tuple[str, ...]:
    """Parts of speech that a word may have here: the tagger cannot be sure of `records`."""
    token = tokens[index]
    if token.pos not in ("NOUN", "VERB"):
        return (token.pos,)
    known = parts_of_speech(token.lower)
    if "ADJ" in known and lexicon.mainly_adjective(token.lower):
        return ("ADJ",)
    if ("VERB" if token.pos == "NOUN" else "NOUN") not in known:
        return (token.pos,)
    previous = before(index, tokens)
    third_person = token.lower.endswith("s")
    if third_person and _is_counted(index, tokens):
        return ("NOUN",)
    if token.pos == "VERB":
        return ("VERB",) if token.lower.endswith("ing") else ("NOUN", "VERB")
    if previous.pos in ("DET", "ADJ", "NUM", "ADP", "VERB") or previous.lower == "of":
        return ("NOUN",)
    if previous.pos == "NOUN" and token.lower == token.lemma:
        return ("NOUN",)  # "a coffee table"; a verb would have its ending
    named = previous.pos in ("NOUN", "PROPN") or previous.lower.endswith("ing")
    if lexicon.mainly_noun(token.lemma) and not (third_person and named):
        return ("NOUN",)
    return ("NOUN", "VERB")


def _is_counted(index: int, tokens: Sequence[Token]) -> bool:
    """Whether a number waits for a plural noun: `two penalty kicks`."""
    for token in reversed(tokens[max(0, index - 3) : index]):
        if token.pos == "NUM" or token.lower in ("several", "many", "few"):
            return token.lemma != "1"
        if token.pos not in ("NOUN", "ADJ") or is_plural(token):
            return False
    return False
