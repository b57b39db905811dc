"""R5: nothing but description, unless what seems to explain can be seen."""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import zip_longest

from colibri.core.captions import lexicon
from colibri.core.captions.commentary_terms import EXPLANATIONS, FAMILIES, MARKUP
from colibri.core.captions.language import (
    AUXILIARIES,
    CONJUNCTIONS,
    DETERMINERS,
    PREPOSITIONS,
    PRONOUNS,
    lemmas,
    parts_of_speech,
    tokenize,
)
from colibri.core.captions.openings import label_end, r1
from colibri.core.captions.surface import Span, finding, inside, opening_end, quotes
from colibri.core.captions.told import is_plainly_told, is_told
from colibri.core.clip import Finding


def r5(*, original: str, caption: str) -> tuple[Finding, ...]:
    """Nothing but description: no analysis, reasoning, instructions, explanations or markup."""
    explanations = list(EXPLANATIONS.finditer(caption))
    markup = list(MARKUP.finditer(caption))
    comments = list(_comments(original, caption))
    if not (explanations or markup or comments):
        return ()
    label, opening = _before_subject(original, caption)
    taken = quotes(caption)
    found: list[tuple[Span, str]] = []
    for match in (*explanations, *markup):
        if inside(match.span(), taken) or _is_opening(match, label, opening):
            continue
        if match.re is not MARKUP and _is_description(match, original, caption):
            continue
        taken.append(match.span())
        found.append((match.span(), "is a list or markup" if match.re is MARKUP else _EXPLAINS))
    found += [
        (span, _EXPLAINS) for span in comments if span[0] >= opening and not inside(span, taken)
    ]
    return tuple(
        finding("R5", span, caption, f"{caption[slice(*span)].strip()!r} {what}; {_REMEDY}")
        for span, what in sorted(found, key=lambda one: one[0][0])
    )


_EXPLAINS = "explains or interprets"
_REMEDY = "keep only what is seen"


def _comments(original: str, caption: str) -> Iterator[Span]:
    """Spans of reasoning, judging, guessing, teaching and talk about the task."""
    for match in FAMILIES.finditer(caption):
        if not is_told(match.group(), original):
            yield match.span()
    for match in _COMMAND.finditer(caption):
        if _is_command(match):
            yield match.span("verb")


# ---- before the subject ----


def _before_subject(original: str, caption: str) -> tuple[bool, int]:
    """Whether a label opens the caption, and where an opening that R1 finds ends: it is no analysis
    too, unless it talks to the reader."""
    start = opening_end(caption)
    if _TALKS.match(caption, start):
        return False, 0
    label = label_end(caption, start)
    if label > start:
        return True, 0 if "rule" in caption[start:label] else label
    found = r1(original=original, caption=caption)
    return False, (found[0].end or 0) if found else 0


_TALKS = re.compile(
    r"(?:sure|certainly|of course|okay|ok|absolutely|alright|got it|understood|yes|great|"
    r"no problem|here(?:['’]s| is| are| you)|below is|the following is|this is)\b",
    re.IGNORECASE,
)


def _is_opening(match: re.Match[str], label: bool, opening: int) -> bool:
    """Whether a match belongs to words before the subject, which R1 finds."""
    if opening and _SHOWS_WHAT.match(match.group()):
        return match.start() < opening + _MEDIUM_NEAR
    return label and match.start() < opening


_MEDIUM_NEAR = 20
"""Characters behind an opening in which `showing` still belongs to it."""


# ---- what can be seen after all ----


def _is_description(match: re.Match[str], original: str, caption: str) -> bool:
    """Whether what a match seems to explain can be seen, or the original tells it as content."""
    words = match.group()
    if _LITERAL.search(words) or is_plainly_told(words, original):
        return True
    if _READING.match(words) and _GAUGE.search(caption, 0, match.start()):
        return True
    if _REFLECTS.fullmatch(words):
        return not _is_idea(_object_after(match.end(), caption))
    if _SHOWS_WHAT.fullmatch(words):
        return not _is_temper(match.end(), caption)
    return _is_pointer(match, caption)


_LITERAL = re.compile(
    r"\b(?:shows? (?:a|an|the|his|her|their) (?:\w+ )?(?:skills?|talent|value|quality|"
    r"character)\b(?= (?:card|show))|(?:tells?|reads?|telling|reading) (?:(?:us|him|her|them|"
    r"me) )?(?:an?|the|his|her) (?:\w+ )?story|gives? (?:a|the) (?:history|culture|"
    r"quality) (?:lesson|class)|makes? (?:a|the) (?:character|story)|drawing (?:a|"
    r"the) (?:character|power)|draws? (?:a|the) (?:viewer|character)|reading (?:a|the) story|"
    r"power (?:drill|line|tool)|gives? (?:a|the) story|adds? (?:a|the) (?:character|story))",
    re.IGNORECASE,
)
_READING = re.compile(r"(?:indicat|show|signal|display)\w*\b", re.IGNORECASE)
_GAUGE = re.compile(
    r"\b(?:dial|gauge|needle|pointer|meter|thermometer|speedometer|scoreboard|scale|arrow|monitor|"
    r"display)s?\s+(?:\w+ly\s+)?$",
    re.IGNORECASE,
)
"""An instrument before a word: what it indicates is a reading, not a meaning."""
_REFLECTS = re.compile(r"(?:reflect|highlight|represent|illustrat)(?:s|es|ing)", re.IGNORECASE)
"""Analysis when its object is an idea."""


def _is_idea(lemma: str) -> bool:
    """Whether a noun is something that cannot be seen: a concern, but no colour or sign."""
    return lexicon.known(lemma) and not any(lexicon.is_first(lemma, kind) for kind in _SEEN.split())


_SEEN = (
    "object matter phenomenon event person animal color shape group measure communication "
    "location pattern position light time"
)


def _object_after(place: int, caption: str) -> str:
    """Lemma of the head of the noun phrase that follows a place in the caption, or nothing."""
    head = ""
    for token in tokenize(caption[place : place + 80]):
        if token.pos == "NOUN":
            head = token.lemma
        elif head or not (token.pos in ("DET", "ADJ", "ADV") or token.lower.endswith("ing")):
            break
    return head


_SHOWS_WHAT = re.compile(
    r"(?:show|prov|display|express|demonstrat|exhibit|radiat|showcas)(?:s|es|ing)", re.IGNORECASE
)
"""Analysis when its object is a feeling or a trait."""


def _is_temper(place: int, caption: str) -> bool:
    """Whether what is shown up to the next mark is a feeling or a trait: training and loyalty."""
    clause = _CLAUSE_MARK.split(caption[place : place + 60], maxsplit=1)[0]
    tokens = tokenize(clause)
    return any(
        token.pos == "NOUN"
        and (following is None or following.pos != "NOUN")
        and any(lexicon.is_first(token.lemma, kind) for kind in ("feeling", "trait", "quality"))
        for token, following in zip_longest(tokens, tokens[1:])
    )


_CLAUSE_MARK = re.compile(r"[.,;]|\s(?:as|while|with|in|on|at|to|near|from|how|where)\s")


def _is_pointer(match: re.Match[str], caption: str) -> bool:
    """Whether something is pointed out that can be seen: arrows that indicate sunlight."""
    if not _POINTS.search(match.group()) or _CLAUSE.match(caption, match.end()):
        return False
    told = _object_after(match.end(), caption)
    return any(lexicon.is_first(told, kind) for kind in ("object", "matter", "phenomenon"))


_POINTS = re.compile(r"\b(?:indicat|signal|represent|denot|symboli[sz])\w*$", re.IGNORECASE)
_CLAUSE = re.compile(r"\s+(?:that|how|why|what|he|she|it|they|there)\b|[,;]?\s*$", re.IGNORECASE)


# ---- orders to a cook ----


def _is_command(match: re.Match[str]) -> bool:
    """Whether a sentence begins with the plain form of a verb and its object."""
    verb, following = match["verb"].lower(), match["next"].lower()
    if verb in _CLOSED or following not in _OBJECTS:
        return False
    return _is_plain_verb(verb)


# `Crack two eggs`, `Then add the flour`
_COMMAND = re.compile(
    r"(?:^|[.!?;:]\s+)[\"“]?(?:(?:first|then|next|now|finally|lastly|second|afterwards?|please|"
    r"always|just|simply|after\s+that)\b,?\s+)?(?P<verb>[A-Za-z]{2,12})\s+(?P<next>[a-z]+)\b",
    re.IGNORECASE,
)
_OBJECTS = DETERMINERS | frozenset("two three four five six it them sure him".split())
_CLOSED = (
    DETERMINERS
    | PREPOSITIONS
    | CONJUNCTIONS
    | AUXILIARIES
    | PRONOUNS
    | frozenset("then once".split())
)


@lru_cache(maxsize=20_000)
def _is_plain_verb(word: str) -> bool:
    return (
        "VERB" in parts_of_speech(word)
        and not word.endswith(("ing", "ed", "s"))
        and len(lemmas(word)) == 1
    )
