"""English in small: tokens with lemmas and a likely part of speech, and sentences.

Parts of speech come from lemminflect's lexicon and the words around; there is no parser and no
learned tagger, so a reader of these tags must stand some error.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import lemminflect

_TOKEN = re.compile(
    r"(?:[A-Za-z]\.){2,}|\d+(?:[.,:]\d+)*(?:st|nd|rd|th)?|[^\W_]+(?:['’\-][^\W_]+)*|_+|\.{2,}|\S"
)

MAX_CHARACTERS = 6_000
"""Of a longer text only the beginning is read."""

DETERMINERS = frozenset(
    "a an the this that these those each every some any no another both all either neither "
    "his her its their our my your whose several many few various multiple".split()
)
PRONOUNS = frozenset(
    "he she it they we i you him them us me himself herself itself themselves who whom which "
    "that something someone everything everyone nothing nobody others hers theirs".split()
)
PREPOSITIONS = frozenset(
    "in on at by with of to from into onto over under above below behind beside between among "
    "through across along around near against during before after toward towards upon off out up "
    "down inside outside within without beneath past via as like for about amid amidst alongside "
    "atop despite except throughout underneath beyond".split()
)
CONJUNCTIONS = frozenset("and or but nor while as because although though if when where so".split())
AUXILIARIES = frozenset(
    "is are was were be been being am do does did has have had having will would can could may "
    "might must shall should 's 're 've isn't aren't wasn't weren't doesn't don't didn't".split()
)
NUMBER_WORDS = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen twenty".split()
    )
} | {"thirty": 30, "forty": 40, "fifty": 50, "hundred": 100, "thousand": 1000, "dozen": 12}

_ADVERBS = frozenset(
    "not very also then slowly quickly here there now just still again away back together apart "
    "forward forwards backward upward downward always never often almost only too even quite "
    "rather ahead nearby sometimes soon already once twice however meanwhile".split()
)


class Token(NamedTuple):
    """A word or a mark. `start` and `end` are code points in the text."""

    text: str
    lower: str
    lemma: str
    pos: str
    """NOUN VERB AUX ADJ ADV PRON DET ADP NUM CONJ PROPN PUNCT."""
    start: int
    end: int


def tokenize(text: str) -> tuple[Token, ...]:
    """Tokens of `text`, with lemmas and parts of speech."""
    matches = list(_TOKEN.finditer(text))
    words = [match.group() for match in matches]
    tokens: list[Token] = []
    tag, before_word = "PUNCT", ""
    for index, (match, word) in enumerate(zip(matches, words, strict=True)):
        following = words[index + 1] if index + 1 < len(words) else ""
        first = not index or words[index - 1] in _OPENERS
        lower, lemma_, tag = _read(word, tag, before_word, following, first)
        before_word = lower
        tokens.append(Token(word, lower, lemma_, tag, match.start(), match.end()))
    return tuple(tokens)


@functools.lru_cache(maxsize=200_000)
def _read(
    word: str, before: str, before_word: str, following: str, first: bool
) -> tuple[str, str, str]:
    """Lower case, lemma and tag of a word between its neighbours."""
    lower = _lower(word)
    tag = _tag(word, before, before_word, following, first=first)
    return lower, lemma(lower, tag), tag


_OPENERS = frozenset('.!?:"“')

_COMMAND = re.compile(
    r"\b(?:ignore|disregard|forget)\s+(?:all|any|the|previous|prior|your)\b|\bsystem prompt\b"
    r"|\byou are (?:a|an|now)\b|\b(?:answer|respond|reply|output)\s+(?:only|with)\b|https?://|\w+\(\)",
    re.IGNORECASE,
)
"""Words that address a machine rather than describe a clip."""


def described(text: str) -> str:
    """What a caption describes: plain text without sentences that give orders to a machine."""
    text = plain_text(text)
    if not _COMMAND.search(text):
        return text
    return " ".join(part for part in split_sentences(text) if not _COMMAND.search(part))


def split_sentences(text: str) -> list[str]:
    """The sentences of a text."""
    tokens = tokenize(text)
    return [text[tokens[a].start : tokens[b - 1].end] for a, b in sentences(tokens)]


def plain_text(text: str) -> str:
    """One line of plain text: no control characters, tags or formulas, single spaces.

    Of a text longer than `MAX_CHARACTERS` only the beginning is kept.
    """
    text = unicodedata.normalize("NFC", text[:MAX_CHARACTERS])
    text = re.sub(r"<(script|style)\b.*?</\1\s*>|<[^<>]{0,200}>", " ", text, flags=re.I | re.S)
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    if not (text.isascii() and text.isprintable()):
        text = "".join(
            " " if unicodedata.category(char) in ("Zs", "Zl", "Zp") or char in "\t\n\r" else char
            for char in text
            if unicodedata.category(char) not in ("Cc", "Cf", "Co", "Cs") or char in "\t\n\r"
        )
    text = re.sub(r"^\s*[=+@\-]\s*[A-Z]+\([^()]*\)", "", text)
    text = re.sub(r"\s+([,.;!?])", r"\1", re.sub(r"\s+", " ", text)).strip()
    if len(text) > 1 and (text[0], text[-1]) in (('"', '"'), ("“", "”")):
        text = text[1:-1].strip()
    return text


def sentences(tokens: Sequence[Token]) -> list[tuple[int, int]]:
    """Index ranges [start, end) of sentences; the closing mark belongs to its sentence."""
    ranges = []
    start = 0
    for index, token in enumerate(tokens):
        if token.text in (".", "!", "?", "…", "...") and index + 1 > start:
            following = tokens[index + 1] if index + 1 < len(tokens) else None
            if following is not None and following.text in ('"', "”", "'", ")", "’"):
                continue
            ranges.append((start, index + 1))
            start = index + 1
        elif (
            token.text in ('"', "”", ")")
            and index > start
            and tokens[index - 1].text in (".", "!", "?")
        ):
            ranges.append((start, index + 1))
            start = index + 1
    if start < len(tokens):
        ranges.append((start, len(tokens)))
    return ranges


@functools.lru_cache(maxsize=200_000)
def lemma(word: str, pos: str) -> str:
    """The lemma of a lower-case word for one part of speech."""
    if pos in ("NOUN", "PROPN"):
        return _first(word, "NOUN")
    if pos in ("VERB", "AUX"):
        return _first(word, "VERB")
    if pos == "ADJ":
        return _first(word, "ADJ")
    if pos == "NUM":
        return str(NUMBER_WORDS.get(word, word))
    return word


@functools.lru_cache(maxsize=200_000)
def lemmas(word: str) -> frozenset[str]:
    """All plausible lemmas of a lower-case word, itself included."""
    found = {word}
    for pos in ("NOUN", "VERB", "ADJ"):
        found.update(_all_lemmas(word).get(pos, ()))
    return frozenset(found)


@functools.lru_cache(maxsize=200_000)
def parts_of_speech(word: str) -> frozenset[str]:
    """Which of NOUN, VERB, ADJ, ADV the lexicon knows for a lower-case word."""
    return frozenset(_all_lemmas(word))


@functools.lru_cache(maxsize=200_000)
def _all_lemmas(word: str) -> dict[str, tuple[str, ...]]:
    return {
        pos: found
        for pos, found in lemminflect.getAllLemmas(word).items()
        if pos in ("NOUN", "VERB", "ADJ", "ADV", "PROPN")
    }


def _first(word: str, pos: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    found = _all_lemmas(word).get(pos)
    if found:
        return word if word in found and pos != "VERB" else found[0]
    if pos == "NOUN" and len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


_IRREGULAR = {"people": "people", "men": "man", "women": "woman", "children": "child"}


def _lower(word: str) -> str:
    return word.lower().replace("’", "'")


def _tag(word: str, before: str, before_word: str, following: str, *, first: bool) -> str:
    lower = _lower(word)
    if not word[0].isalnum():
        return "PUNCT"
    if word[0].isdigit() or lower in NUMBER_WORDS:
        return "NUM"
    if lower in AUXILIARIES:
        return "AUX"
    if lower == "that":
        return "DET" if before in ("ADP", "VERB", "PUNCT") and following.islower() else "PRON"
    if lower in DETERMINERS:
        return "DET"
    if lower in PREPOSITIONS:
        return "ADP"
    if lower in CONJUNCTIONS:
        return "CONJ"
    if lower in PRONOUNS or lower.partition("'")[0] in PRONOUNS:
        return "PRON"
    if lower in _ADVERBS:
        return "ADV"
    if word[0].isupper() and not first:
        return "PROPN"
    return _open_class(lower, before, before_word, following.lower())


def _open_class(word: str, before: str, before_word: str, following: str) -> str:
    known = parts_of_speech(word)
    if not known:
        if word.endswith("ly"):
            return "ADV"
        return "VERB" if word.endswith("ing") and before in ("AUX", "NOUN") else "NOUN"
    if before in ("DET", "ADJ") and word.endswith(("ing", "ed")) and _can_be(following, "NOUN"):
        return "ADJ"  # a frying pan, a parked car
    if len(known) == 1:
        (only,) = known
        return "NOUN" if only == "PROPN" else only
    if "ADV" in known and word.endswith("ly"):
        return "ADV"
    noun_next = _can_be(following, "NOUN") or _can_be(following, "ADJ")
    participle = word.endswith(("ing", "ed", "en"))
    if before in ("DET", "NUM", "ADJ") or before_word in ("of", "'s"):
        verb_next = "VERB" in known and following.endswith("s") and _can_be(following, "VERB")
        if "ADJ" in known and noun_next and not verb_next and following not in AUXILIARIES:
            return "ADJ"
        if participle and noun_next and following not in PREPOSITIONS:
            return "ADJ" if "ADJ" in known or "VERB" in known else "NOUN"
        if "NOUN" in known:
            return "NOUN"
        return "ADJ" if "ADJ" in known else "VERB"
    if before == "AUX":
        if participle and "VERB" in known:
            return "VERB"
        return "ADJ" if "ADJ" in known else ("VERB" if "VERB" in known else "NOUN")
    if before in ("PRON",) and "VERB" in known and before_word not in ("her", "his", "its"):
        return "VERB"
    if before_word == "to" and "VERB" in known and not word.endswith("s"):
        return "VERB"
    if before in ("NOUN", "PROPN") and "VERB" in known:
        if participle or (word.endswith("s") and not word.endswith("ss")):
            # "dogs runs" never, "the dog runs" often, "apple trees" too: look at what follows.
            if following in DETERMINERS or following in PREPOSITIONS or following in _ADVERBS:
                return "VERB"
            if participle or _ends_clause(following) or following.endswith("ly"):
                return "VERB"
        elif following in DETERMINERS or following in PREPOSITIONS:
            return "VERB" if "NOUN" not in known or before_word.endswith("s") else "NOUN"
    if before in ("ADV", "CONJ", "PUNCT") and "VERB" in known and participle:
        return "VERB"
    if before in ("ADV", "CONJ", "PUNCT") and "VERB" in known and following in DETERMINERS:
        return "VERB"
    if "ADJ" in known and noun_next and before != "VERB":
        return "ADJ"
    if "ADJ" in known and before == "VERB" and noun_next:
        return "ADJ"
    if "NOUN" in known:
        return "NOUN"
    return "ADJ" if "ADJ" in known else "VERB"


def _can_be(word: str, pos: str) -> bool:
    return bool(word) and word[0].isalpha() and pos in parts_of_speech(word)


def _ends_clause(word: str) -> bool:
    return word in ("", ".", ",", ";", "!", "?") or word in CONJUNCTIONS
