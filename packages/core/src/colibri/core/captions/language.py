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

from colibri.core.captions import lexicon
from colibri.core.captions.gate import Gated

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
    "that something someone everything everyone nothing nobody none anyone anybody anything others "
    "hers theirs".split()
)
PREPOSITIONS = frozenset(
    "in on at by with of to from into onto over under above below behind beside between among "
    "through across along around near against during before after toward towards upon off out up "
    "down inside outside within without beneath past via as like for about amid amidst alongside "
    "atop despite except throughout underneath beyond".split()
)
CONJUNCTIONS = frozenset(
    "and or but nor while as because although though if when where so until till".split()
)
AUXILIARIES = frozenset(
    "is are was were be been being am do does did has have had having will would can could may "
    "might must shall should cannot 's 're 've isn't aren't wasn't weren't doesn't don't "
    "didn't".split()
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
    spans = [match.span() for match in _TOKEN.finditer(text)]
    words = [text[start:end] for start, end in spans]
    words.append("")
    tokens: list[Token] = []
    tag = before_word = before = ""
    clause = _CLAUSE_START
    for index, (start, end) in enumerate(spans):
        word = words[index]
        entry = _entry(word)
        if entry is None:
            entry = _read(word, tag, before_word, words[index + 1], before in _OPENERS, clause)
        lower, lemma_, tag, moves = entry
        if moves:
            clause = _goes_on(clause, lower, tag)
        before, before_word = word, lower
        tokens.append(_token(Token, (word, lower, lemma_, tag, start, end)))
    return tuple(tokens)


_token = tuple.__new__  # a third of the time of Token(...)


@functools.lru_cache(maxsize=200_000)
def _entry(word: str) -> tuple[str, str, str, bool] | None:
    """Lower case, lemma, tag, and whether it moves the clause on; None where that hangs on the
    neighbours."""
    tag = _fixed_tag(word)
    lower = _lower(word)
    if tag is None:
        return None
    return lower, lemma(lower, tag), tag, _moves(lower, tag)


def _moves(lower: str, tag: str) -> bool:
    return tag in ("VERB", "AUX") or lower == "and" or lower in _SUBORDINATE | _CLAUSE_MARKS


class _Clause(NamedTuple):
    """What a clause has had so far."""

    awaits_verb: bool
    many: bool
    """Its subject is joined by `and`, or a number above one waits for its noun."""


_CLAUSE_START = _Clause(True, False)
_JOINED = _Clause(True, True)
_HAS_VERB = _Clause(False, False)
_SUBORDINATE = frozenset("while as because although though if when where so who which that".split())


def _goes_on(clause: _Clause, lower: str, tag: str) -> _Clause:
    """The state of a clause after one more word."""
    if tag == "VERB":
        return clause if lower.endswith(("ing", "ed", "en")) else _HAS_VERB
    if tag == "AUX":
        return _HAS_VERB
    if lower == "and":
        return _JOINED
    if lower in _SUBORDINATE or lower in _CLAUSE_MARKS:
        return _CLAUSE_START if lower != "," or not clause.awaits_verb else clause
    return clause


_CLAUSE_MARKS = frozenset(".,;:!?")


@functools.lru_cache(maxsize=200_000)
def _read(
    word: str, before: str, before_word: str, following: str, first: bool, clause: _Clause
) -> tuple[str, str, str, bool]:
    """`_entry` of a word between its neighbours."""
    lower = _lower(word)
    if lower == "that":
        tag = "DET" if before in ("ADP", "VERB", "PUNCT") and following.islower() else "PRON"
    elif word[0].isupper() and not first:
        tag = "PROPN"
    else:
        tag = _open_class(lower, before, before_word, following.lower(), clause)
    return lower, lemma(lower, tag), tag, _moves(lower, tag)


_OPENERS = frozenset(["", *'.!?:"“'])

_COMMAND = Gated(
    r"\b(?:ignore|disregard|forget)\s+(?:all|any|the|previous|prior|your)\b|\bsystem prompt\b"
    r"|\byou are (?:a|an|now)\b|\b(?:answer|respond|reply|output)\s+(?:only|with)\b"
    r"|https?://|\w+\(\)"
)
"""Words that address a machine rather than describe a clip."""


@functools.lru_cache(maxsize=64)
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
    text = text[:MAX_CHARACTERS]
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if "<" in text:
        text = re.sub(r"<(script|style)\b.*?</\1\s*>|<[^<>]{0,200}>", " ", text, flags=re.I | re.S)
    if "\x1b" in text:
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    if not (text.isascii() and text.isprintable()):
        text = "".join(
            " " if unicodedata.category(char) in ("Zs", "Zl", "Zp") or char in "\t\n\r" else char
            for char in text
            if unicodedata.category(char) not in ("Cc", "Cf", "Co", "Cs") or char in "\t\n\r"
        )
    text = re.sub(r"^\s*[=+@\-]\s*[A-Z]+\([^()]*\)", "", text)
    text = re.sub(r" ([,.;!?])", r"\1", " ".join(text.split()))
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
def base_forms(word: str) -> frozenset[str]:
    """`lemmas` of a word without its possessive ending, and a guess at an unknown singular."""
    word = bare(word)
    found = lemmas(word)
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3 and len(found) == 1:
        return found | {word[:-1]}
    return found


@functools.lru_cache(maxsize=200_000)
def bare(word: str) -> str:
    """A word without its possessive ending."""
    return word.removesuffix("'s").removesuffix("'") or word


@functools.lru_cache(maxsize=200_000)
def parts_of_speech(word: str) -> frozenset[str]:
    """Which of NOUN, VERB, ADJ, ADV the lexicon knows for a lower-case word."""
    found = frozenset(_all_lemmas(word))
    if word in _NOUNS or ("ADJ" in found and _never_adjective(word)):
        return found - {"ADJ"} | {"NOUN"}
    return found


_NOUNS = frozenset("dress mechanic chicken".split())
"""Nouns that are hardly ever the adjectives that they may be."""


def _never_adjective(word: str) -> bool:
    return not word.endswith(("ing", "ed")) and lexicon.never_adjective(word)


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


def _fixed_tag(word: str) -> str | None:
    """The tag of a word that is the same everywhere, else None."""
    lower = _lower(word)
    if not word[0].isalnum():
        return "PUNCT"
    if word[0].isdigit() or lower in NUMBER_WORDS:
        return "NUM"
    if lower in AUXILIARIES:
        return "AUX"
    if lower == "that":
        return None
    for tag, words in _CLOSED.items():
        if lower in words:
            return tag
    if lower.partition("'")[0] in PRONOUNS:
        return "PRON"
    known = parts_of_speech(lower)
    if word[0].islower() and len(known) == 1 and not lower.endswith(("ing", "ed")):
        (only,) = known
        if only == "VERB":
            return None
        return "NOUN" if only == "PROPN" else only
    return None


_CLOSED = {
    "DET": DETERMINERS,
    "ADP": PREPOSITIONS,
    "CONJ": CONJUNCTIONS,
    "PRON": PRONOUNS,
    "ADV": _ADVERBS,
}


def _open_class(word: str, before: str, before_word: str, following: str, clause: _Clause) -> str:
    known = parts_of_speech(word)
    if not known:
        if word.endswith("ly"):
            return "ADV"
        return "VERB" if word.endswith("ing") and before in ("AUX", "NOUN") else "NOUN"
    if before in ("DET", "ADJ") and word.endswith(("ing", "ed")) and _can_be(following, "NOUN"):
        return "ADJ"  # a frying pan, a parked car
    if len(known) == 1:
        (only,) = known
        a_thing = before in ("DET", "ADJ", "NUM") and not word.endswith(("ing", "ed", "en"))
        return "NOUN" if only == "PROPN" or (only == "VERB" and a_thing) else only
    if "ADV" in known and word.endswith("ly"):
        return "ADV"
    noun_next = _can_be(following, "NOUN") or _can_be(following, "ADJ")
    verb_due = clause.awaits_verb and following.endswith("s") and _can_be(following, "VERB")
    if before_word == "in" and verb_due and "NOUN" in known:
        return "NOUN"  # a player in red beats
    participle = word.endswith(("ing", "ed", "en"))
    if before in ("DET", "NUM", "ADJ") or before_word in ("of", "'s"):
        one = before_word in ("a", "an", "one", "another", "each")
        verb_next = one and following.endswith("s") and _can_be(following, "VERB")
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
    if "VERB" in known:
        if before == "PRON" and before_word not in ("her", "his", "its"):
            return "VERB"
        if before_word == "to" and not word.endswith("s"):
            return "VERB"
        if _agrees(word, known, before, before_word, following, clause):
            return "VERB"
    if before == "VERB" and "ADV" in known and not noun_next:
        return "ADV"  # crouches low
    if "ADJ" in known and noun_next and before != "VERB":
        return "ADJ"
    if "ADJ" in known and before == "VERB" and noun_next:
        return "ADJ"
    if "NOUN" in known:
        return "NOUN"
    return "ADJ" if "ADJ" in known else "VERB"


def _agrees(
    word: str,
    known: frozenset[str],
    before: str,
    before_word: str,
    following: str,
    clause: _Clause,
) -> bool:
    """Whether a word that may be a verb stands where one is due, in the form that is due."""
    participle = word.endswith(("ing", "ed", "en"))
    third_person = word.endswith("s") and not word.endswith("ss")
    opens_phrase = following in DETERMINERS or following in PREPOSITIONS or following in _ADVERBS
    goes_on = opens_phrase or _ends_clause(following) or following.endswith("ly")
    if before in ("NOUN", "PROPN"):
        if participle:
            return goes_on or "NOUN" not in known
        plural = before_word.endswith(("s", "men")) or before_word in _IRREGULAR
        if third_person:
            if not (clause.awaits_verb or following in DETERMINERS):
                return False
            # "the dog runs", but "apple trees stand": what follows is no verb.
            object_next = following.endswith("s") or not _can_be(following, "VERB")
            return goes_on or object_next or _can_be(following, "ADJ")
        if plural:
            return clause.awaits_verb and following not in AUXILIARIES
        return clause.awaits_verb and clause.many and goes_on
    if before in ("ADV", "CONJ", "PUNCT", ""):
        if participle or following in DETERMINERS:
            return True
        return third_person and before == "ADV" and clause.awaits_verb and goes_on
    return False


def _can_be(word: str, pos: str) -> bool:
    return bool(word) and word[0].isalpha() and pos in parts_of_speech(word)


def _ends_clause(word: str) -> bool:
    return word in ("", ".", ",", ";", "!", "?") or word in CONJUNCTIONS
