"""Whether a text says a word in other words: by synonym, kind, derivation, part or explanation."""

from functools import lru_cache

from colibri.core.captions import lexicon
from colibri.core.captions.language import base_forms, lemmas
from colibri.core.captions.text import Text
from colibri.core.captions.vocabulary import BODY, COLOURS, LIGHT, PLAIN


def implies(text: Text, own: frozenset[str], pos: str) -> bool:
    """Whether a text implies a word, given by its lemmas and part of speech."""
    return any(_implies(text, lemma, pos) for lemma in own)


def _implies(text: Text, lemma: str, pos: str) -> bool:
    if not lexicon.peers(lemma).isdisjoint(text.lemmas):
        return True
    if not lexicon.grounds(lemma).isdisjoint(text.lemmas):
        return True
    if text.implies(lexicon.main_senses(lemma, pos)) or text.says(lexicon.senses(lemma, pos)):
        return True
    if pos == "VERB" and text.says(lexicon.narrower_verb(lemma)):
        return True
    if lemma.endswith(("ist", "er", "or")) and len(lemma) > 5 and _has_trade(text, lemma):
        return True
    letters = 6 if pos == "NOUN" else 5
    return lexicon.stem(lemma) in text.stems or (
        len(lemma) >= letters and lemma[:letters] in text.roots  # `coastal` after `coastline`
    )


def _has_trade(text: Text, lemma: str) -> bool:
    """`a guitarist` after `guitar`, `a runner` after `runs`."""
    root = lemma[:-3] if lemma.endswith("ist") else lemma[:-2]
    return not lexicon.peers(root).isdisjoint(text.lemmas) or any(
        word.startswith(root) for word in text.lemmas
    )


def grounding(original: Text, caption: Text) -> float:
    """Share of the caption's nouns, verbs and adjectives that the original has or implies."""
    told = [
        (own, token.pos)
        for token in caption.content
        if token.pos not in ("NUM", "ADV") and LIGHT.isdisjoint(own := base_forms(token.lower))
    ]
    held = sum(
        not own.isdisjoint(original.lemmas) or implies(original, own, pos) for own, pos in told
    )
    return held / len(told) if told else 0.0


def is_compound(own: frozenset[str], text: Text) -> bool:
    """`skatepark` for `skate park`, `board` for `whiteboard`, `schoolboy` for `boy`."""
    return any(_is_put_together(lemma, text) or _is_within(lemma, text) for lemma in own)


def _is_put_together(lemma: str, text: Text) -> bool:
    """Whether a lemma is a word of the text with another or, both people, with anything before."""
    for cut in range(3, len(lemma) - 2):
        head, tail = lemma[:cut], lemma[cut:]
        if tail not in text.lemmas:
            continue
        if lexicon.is_first(tail, "person") and lexicon.is_first(lemma, "person"):
            return True
        if any(word.startswith(head) for word in text.lemmas):
            return True
    return False


def _is_within(lemma: str, text: Text) -> bool:
    """Whether a lemma ends a longer word of the text or, if long itself, begins one."""
    if len(lemma) < 3:
        return False
    for word in [word for word in text.lemmas if lemma in word]:
        rest = word.removesuffix(lemma)
        if rest == word and len(lemma) >= 5:
            rest = word.removeprefix(lemma)
        if rest != word and len(rest) >= 3 and lexicon.known(rest):
            return True
    return False


def has_pieces(word: str, text: Text, colours: frozenset[str]) -> bool:
    """Whether a text of these colours has or implies each telling piece of a word with hyphens."""
    pieces = word.split("-")
    tints = {COLOURS[piece] for piece in pieces} if COLOURS.keys() >= set(pieces) else set()
    return all(
        not (own := base_forms(piece)).isdisjoint(text.lemmas)
        or not own.isdisjoint(LIGHT)
        or piece in PLAIN["joints"]
        or COLOURS.get(piece, "") in colours
        or (piece in COLOURS and not tints.isdisjoint(colours))  # blue-green
        or implies(text, own | {piece.removesuffix("ed")}, "ADJ")
        for piece in pieces
        if piece
    )


def explains(text: Text, lemma: str) -> bool:
    """Whether the dictionary links a lemma to the text: a mural is on a `wall`."""
    if any(
        lemma in _glossed(token.lemma) or lemma in lexicon.rarer_kinds(token.lemma)
        for token in text.content
        if token.pos in ("NOUN", "VERB")
    ):
        return True
    return any(
        not _is_vague(link) and not lexicon.kind_of(lemma, link)
        for link in _glossed(lemma) & text.things
    )


@lru_cache(maxsize=20_000)
def _glossed(lemma: str) -> frozenset[str]:
    """Lemmas of the words by which a dictionary explains a lemma."""
    return frozenset().union(*map(lemmas, lexicon.glossed(lemma)))


@lru_cache(maxsize=20_000)
def _is_vague(lemma: str) -> bool:
    return lemma in LIGHT or lemma in BODY or lemma in PLAIN["vague"]
