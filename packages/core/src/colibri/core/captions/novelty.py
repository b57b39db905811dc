"""R4: nothing new. Each word of the caption is held against the original.

Kinds above a word, synonyms and derivations are entailed, kinds below are not. What a paraphrase
may bring along is ambiguous and left to a judge.
"""

import itertools
from collections.abc import Sequence
from functools import lru_cache

from colibri.core.captions import lexicon
from colibri.core.captions.acts import (
    changed_places,
    is_mishap,
    is_reverse,
    takes_place_of,
    turns_out_otherwise,
)
from colibri.core.captions.attributes import colours, misattached, new_colour, opposed
from colibri.core.captions.commentary import r5
from colibri.core.captions.elsewhere import Aside, asides
from colibri.core.captions.entailment import explains, has_pieces, implies, is_compound
from colibri.core.captions.filming import r3
from colibri.core.captions.first_person import r6
from colibri.core.captions.language import Token, bare, base_forms
from colibri.core.captions.negation import denies_all, new_lack, new_negation, newly_affirmed
from colibri.core.captions.numbers import new_number, newly_several
from colibri.core.captions.openings import r1
from colibri.core.captions.people import COLLECTIVES, KIN, PERSONS, is_somebody
from colibri.core.captions.phrases import END, after, is_plural, readings
from colibri.core.captions.subject import may_be_subject
from colibri.core.captions.surface import new_detail
from colibri.core.captions.telling import (
    TEMPERS,
    is_concrete,
    is_everyday_act,
    is_listed,
    is_telling,
    is_telling_act,
)
from colibri.core.captions.text import Text, analyse
from colibri.core.captions.vocabulary import (
    BODY,
    COLOURS,
    GROUPS,
    LIGHT,
    OPPOSITES,
    PLAIN,
    RECORDING,
)
from colibri.core.clip import Finding


def r4(*, original: str, caption: str) -> tuple[Finding, ...]:
    """No object, person, action, colour, number, name or negation that the original lacks."""
    return r4_of(analyse(original), analyse(caption))


def r4_of(
    original: Text, caption: Text, *, others: Sequence[Finding] | None = None
) -> tuple[Finding, ...]:
    """R4 on texts that are worked out already; `others`: what R1, R3, R5 and R6 find, if known."""
    if others is None:
        pair = {"original": original.text, "caption": caption.text}
        others = [finding for rule in (r1, r3, r5, r6) for finding in rule(**pair)]
    spans = asides(others, caption.text)
    aside: Aside | None = None
    filming = any(finding.rule == "R3" for finding in others)
    found = []
    for index, (previous, token) in enumerate(itertools.pairwise((END, *caption.tokens))):
        if spans:
            aside = next((s for s in spans if s.start <= token.start < s.end), None)
        if aside:
            if token.start < aside.told or not _is_being(token, previous):
                continue
            finding = _new_word(index, token, original, caption)
        elif filming and token.lemma in PLAIN["filming"]:
            continue
        elif token.pos in _CLOSED or token.lower in ("not", "never"):
            if token.lower not in _TURNS and not token.lower.endswith("n't"):
                continue
            finding = _new_sense(index, token, original, caption)
        elif previous.lower in ("without", "no"):
            continue  # the negation has been judged
        else:
            finding = _new_word(index, token, original, caption)
            if not finding and token.pos in ("NOUN", "PROPN"):
                finding = misattached(token, original, caption)
        if finding:
            found.append(finding)
    return (*found, *changed_places(original, caption))


_CLOSED = frozenset("PUNCT DET PRON ADP CONJ AUX".split())
_TURNS = OPPOSITES.keys() | frozenset("no without not never nothing nobody".split())
"""Small words that may turn the sense round: `inside` for `outside`, `without` for `with`."""


def _is_being(token: Token, previous: Token) -> bool:
    """Whether an analysis that names it adds somebody or something that happens to them."""
    if token.lemma == "family" and previous.lower in ("his", "her", "their"):
        return True
    return token.pos == "NOUN" and _happens_to_somebody(token.lemma)


@lru_cache(maxsize=20_000)
def _happens_to_somebody(lemma: str) -> bool:
    return lemma in KIN or lexicon.is_first(lemma, "animal") or is_telling_act(lemma)


def _new_sense(index: int, token: Token, original: Text, caption: Text) -> Finding | None:
    if token.lower in OPPOSITES:
        return opposed(token, original)
    if token.lower in ("nothing", "nobody"):
        return denies_all(token, original)
    return new_negation(index, original, caption)


def _new_word(index: int, token: Token, original: Text, caption: Text) -> Finding | None:
    """A number, colour, name, person, manner, thing or act that the original does not imply."""
    word = bare(token.lower)
    if token.pos == "NUM":
        return new_number(index, original, caption)
    if word in COLOURS:
        return new_colour(token, word, original)
    following = after(index, caption.tokens)
    if word in _READS and (following.text in _QUOTES or following.pos == "NUM"):
        return None
    own = base_forms(word)
    if turns_out_otherwise(index, original, caption):
        return new_detail(token, f"{word!r} is not how it ends in the original")
    if not own.isdisjoint(original.lemmas):
        return _told_otherwise(index, token, original, caption)
    if word in _SHADES and following.lower in COLOURS:
        return None
    if following.lower != "of" or word not in ("full", "front"):
        against = opposed(token, original)
        if against:
            return against
    if _says_little(token, word, own, following):
        return None
    if word in PERSONS:
        return _new_person(token, word, original)
    if token.pos == "ADV":
        return _new_manner(token, word, original)
    if word.endswith("less") and len(word) > 6:
        return new_lack(token, word, own, original)
    if token.pos == "PROPN" and not lexicon.known(word):
        return _new_name(token, word, original)
    return _new_content(index, token, own, original, caption)


_READS = frozenset(
    "read reads reading say says saying bear bears bearing state states stating spell spells "
    "spelling labelled labeled marked titled inscribed printed".split()
)
_QUOTES = frozenset("\"“'‘")
_SHADES = frozenset("light dark bright pale deep neon vivid".split())


def _told_otherwise(index: int, token: Token, original: Text, caption: Text) -> Finding | None:
    """A word of the original that it denies, or that has become many."""
    if token.pos not in ("NOUN", "VERB") or token.lower in LIGHT:
        return None
    return newly_affirmed(token, original, caption) or newly_several(index, original, caption)


def _says_little(token: Token, word: str, own: frozenset[str], following: Token) -> bool:
    """Whether a word is of those that bring nothing new, as it stands here."""
    if not own.isdisjoint(LIGHT) or (token.pos == "NOUN" and not own.isdisjoint(RECORDING)):
        return True
    return following.lower == "of" and (word in PLAIN["parts"] or not own.isdisjoint(GROUPS))


def _new_person(token: Token, word: str, original: Text) -> Finding | None:
    if is_somebody(word, original.lemmas):
        return None
    youth = word in _YOUNG and not _YOUTHS.isdisjoint(original.lemmas)
    return new_detail(token, f"person {word!r} is not in the original", ambiguous=youth)


_YOUNG = frozenset("boy boys girl girls child children kid kids".split())
_YOUTHS = frozenset("teenager teen teenage student pupil youth".split())


def _new_manner(token: Token, word: str, original: Text) -> Finding | None:
    """A new manner: telling when it is a temper (`angrily`), else left alone."""
    if not word.endswith("ly"):
        return None
    adjective = word.removesuffix("ly")
    if adjective.endswith("i"):
        adjective = adjective[:-1] + "y"
    if adjective not in TEMPERS or adjective in original.lemmas or not lexicon.known(adjective):
        return None
    if implies(original, base_forms(adjective), "ADJ"):
        return None
    return new_detail(token, f"manner {word!r} is not in the original")


def _new_name(token: Token, word: str, original: Text) -> Finding | None:
    if word in original.text.lower():
        return None
    return new_detail(token, f"the name {token.text!r} is not in the original")


# ---- things, acts and looks ----


def _new_content(
    index: int, token: Token, own: frozenset[str], original: Text, caption: Text
) -> Finding | None:
    """A thing, act or look that does not follow; ambiguous where a paraphrase may bring it in."""
    word = bare(token.lower)
    kinds = readings(index, caption.tokens)
    if _follows(token, word, own, kinds, original):
        return None
    what = {"NOUN": "thing", "PROPN": "name", "VERB": "action", "ADJ": "detail"}[token.pos]
    if "-" in word and word.rpartition("-")[2].removesuffix("ed") in BODY:
        return new_detail(token, f"detail {word!r} is not in the original", ambiguous=True)
    if after(index, caption.tokens).lemma in ("worker", "work") and not is_concrete(token.lemma):
        return None  # construction workers
    sure = _is_surely_new(index, token, own, kinds, original, caption)
    return new_detail(token, f"{what} {word!r} is not in the original", ambiguous=not sure)


def _follows(
    token: Token, word: str, own: frozenset[str], kinds: Sequence[str], original: Text
) -> bool:
    """Whether the original implies a word in one of its readings."""
    if "-" in word and has_pieces(word, original, colours(original)):
        return True
    if token.pos in ("NOUN", "PROPN") and is_compound(own, original):
        return True
    if not own.isdisjoint(COLLECTIVES) and any(
        is_plural(other) for other in original.content if lexicon.is_first(other.lemma, "person")
    ):
        return True
    if any(implies(original, own, pos) for pos in kinds):
        return True
    return token.pos != "NOUN" and not any(map(lexicon.known, own))


def _is_surely_new(
    index: int,
    token: Token,
    own: frozenset[str],
    kinds: Sequence[str],
    original: Text,
    caption: Text,
) -> bool:
    if _is_telling_here(index, token, own, kinds, caption):
        if not may_be_subject(token, bare(token.lemma), original, caption) and not (
            _is_explained(token, original)
        ):
            return True
    elif token.pos in ("NOUN", "VERB") and _is_added(index, token, kinds, original, caption):
        return True
    if "VERB" in kinds and is_reverse(index, original, caption):
        return True
    return takes_place_of(index, original, caption)


def _is_telling_here(
    index: int, token: Token, own: frozenset[str], kinds: Sequence[str], caption: Text
) -> bool:
    acts = "VERB" in kinds or not is_concrete(token.lemma)
    return (
        (acts and any(map(is_telling_act, own)))
        or is_mishap(index, caption)
        or all(is_telling(token, pos) for pos in kinds)
    )


def _is_explained(token: Token, original: Text) -> bool:
    """Whether the dictionary links a word to the original, and the word may come along with it."""
    if token.pos == "PROPN" or is_listed(token.lemma) or is_telling_act(token.lemma):
        return False
    return explains(original, token.lemma)


def _is_added(
    index: int, token: Token, kinds: Sequence[str], original: Text, caption: Text
) -> bool:
    """Whether a word stands for nothing in the original: all that it may name is named."""
    lemma = token.lemma
    if _is_explained(token, original) or lemma in BODY:
        return False
    if kinds == ("NOUN",):
        if not any(lexicon.may_be(lemma, kind) for kind in ("object", "matter")):
            return False
        return not _is_vacant(("NOUN",), index, original, caption)
    if "VERB" in kinds and token.pos == "VERB" and not token.lower.endswith(("ed", "ing")):
        return not is_everyday_act(lemma) and not _is_vacant(
            ("NOUN", "VERB"), index, original, caption
        )
    return False


def _is_vacant(kinds: Sequence[str], index: int, original: Text, caption: Text) -> bool:
    """Whether the sentences that a caption tells of here have a noun or verb that it does not."""
    near = caption.tokens[max(0, index - _AROUND) : index + _AROUND]
    named = frozenset(t.lemma for t in near if t.pos in ("NOUN", "VERB", "ADJ", "PROPN"))
    shared = [len(named.intersection([t.lemma for t in s])) for s in original.sentences]
    told = [
        sentence
        for sentence, count in zip(original.sentences, shared, strict=True)
        if count and count >= max(shared) - 1
    ]
    return any(
        token.pos in kinds
        and not (token.pos == "NOUN" and token.lower.endswith("ing"))
        and token.lemma not in caption.lemmas
        and token.lemma not in RECORDING
        and token.lemma not in LIGHT
        and not _is_named(token, caption)
        for sentence in told or original.sentences
        for token in sentence
    )


_AROUND = 8
"""Words before and behind."""


def _is_named(token: Token, caption: Text) -> bool:
    """Whether the caption names a thing or act of the original, if by another word."""
    own = base_forms(token.lower)
    if not own.isdisjoint(caption.lemmas) or implies(caption, own, token.pos):
        return True
    up = lexicon.implied(token.lemma)
    return any(
        other.pos == token.pos and not lexicon.main_senses(other.lemma, other.pos).isdisjoint(up)
        for other in caption.content
    )
