"""The small embedded captioner: rewrites a caption by dropping and mending its clauses.

It parses sentences by patterns, takes off openings about the video, drops clauses about the camera,
the mood or the teller, and mends what is left. It never adds a word of content. It does not
understand the scene: it cannot rephrase a clumsy sentence, merge two descriptions, or judge which
detail matters. A language model writes better captions; this one is free, fast and repeatable.
"""

import itertools
import re

import lemminflect

from colibri.core.captions.commentary import r5
from colibri.core.captions.filming import r3
from colibri.core.captions.first_person import r6
from colibri.core.captions.form import is_english
from colibri.core.captions.language import (
    Token,
    described,
    lemmas,
    parts_of_speech,
    split_sentences,
    tokenize,
)
from colibri.core.captions.openings import r1
from colibri.core.captions.rules import RULES
from colibri.core.captions.subject import main_subjects
from colibri.core.captions.surface import words_of
from colibri.core.captions.text import analyse
from colibri.core.clip import Finding
from colibri.core.errors import RowError

MAX_WORDS = 80
"""A rewrite stops before the sentence that would pass this many words."""


def rewrite(original: str) -> str:
    """A caption under the six rules. RowError `cannot_rewrite` when nothing sensible is left."""
    text = described(original)
    if not text:
        raise RowError("cannot_rewrite", "the original holds no words")
    if not is_english(text):
        raise RowError("cannot_rewrite", "the original does not read as English")
    kept: list[str] = []
    for sentence in split_sentences(text):
        mended = _mend(sentence, first=not kept)
        if mended and mended.lower() not in (other.lower() for other in kept):
            kept.append(mended)
    kept = _drop_what_breaks_a_rule(_shorten(kept, text), text)
    if not kept:
        raise RowError("cannot_rewrite", "no sentence is left once the rules are applied")
    return " ".join(kept)


# ---- one sentence ----

_MEDIUM = (
    r"(?:video(?:\s+clip)?|clip|footage|film|scene|shot|sequence|frame|image|animation|recording|"
    r"view)"
)
_SHOWS = (
    r"(?:shows?|depicts?|features?|captures?|presents?|displays?|portrays?|illustrates?|showcases?|"
    r"reveals?|highlights?|documents?|introduces?|focuses\s+on|centers\s+(?:on|around)|follows|"
    r"(?:opens?|begins?|starts?|continues?|ends?|concludes?)\s+(?:up\s+)?(?:with|on|by\s+showing)|"
    r"transitions\s+to|shifts\s+to|cuts\s+to|is\s+(?:of|about)|consists\s+of|zooms\s+in\s+on|"
    r"takes\s+place\s+in|is\s+set\s+in|showing|depicting|featuring|capturing|of)"
)
_ADVERB = r"(?:\w+ly\s+|then\s+|also\s+|now\s+)*"
_VIEW_OF = (
    r"(?:(?:a|an|the|another)\s+)?(?:(?:[\w-]+,?\s+){0,4}?)(?:shot|view|close-?up(?:\s+(?:shot|"
    r"view))?|glimpse|angle|perspective|footage|sequence|scene|clip|video|image|picture)\s+(?:of|"
    r"from\s+above\s+of|showing|on|focusing\s+on|featuring|capturing|depicting|shows|captures|"
    r"reveals|features|focuses\s+on)\s+"
)
_OPENINGS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"^(?:in|throughout|within|during|at\s+the\s+(?:start|beginning|end)\s+of)\s+(?:the|"
        rf"this)\s+(?:[\w-]+\s+)?{_MEDIUM}\s*,?\s+",
        r"^as\s+(?:the|this)\s+(?:video|scene|clip|camera|shot)\s+[^,]{0,60},\s+",
        r"^(?:overall|initially|additionally|furthermore|moreover|meanwhile|next|then|finally|"
        r"first|suddenly|eventually|in\s+summary|notably|here),\s+",
        rf"^(?:the|this|a|an|our)\s+(?:[\w-]+\s+){{0,3}}?{_MEDIUM}\s+{_ADVERB}{_SHOWS}\s+",
        r"^(?:we|you|viewers?|the\s+viewers?|one|i)\s+(?:can\s+|could\s+|also\s+|now\s+|then\s+"
        r")*(?:see|observe|watch|notice|witness|find|view|spot)\s+",
        r"^(?:the\s+)?camera\s+(?:\w+ly\s+|then\s+)*(?:follows|tracks|captures|focuses\s+on|"
        r"reveals|shows|zooms\s+in\s+on|pans\s+(?:\w+\s+){0,2}?to\s+(?:reveal|show)|lingers\s+on|"
        r"settles\s+on)\s+",
        rf"^{_VIEW_OF}",
    )
)
_AS_THEY = re.compile(
    r"^(?P<who>(?:an?|the|two|three|several|some)\s+(?:[\w-]+\s+){0,3}?[\w-]+)\s+(?:as|while)\s+"
    r"(?:he|she|it|they)\s+(?P<does>[a-z].*)$",
    re.IGNORECASE,
)
_WHO_IS = re.compile(
    r"^(?P<who>(?:an?|the|two|three|several|some)\s+[^,.;]{1,80}?)\s+(?:who|that|which)\s+"
    r"(?P<is>is|are|was|were)\s+(?=\w+ing\b)",
    re.IGNORECASE,
)


def _mend(sentence: str, *, first: bool) -> str | None:
    """The sentence without what the rules forbid, or None when its main clause goes with it."""
    rest = _drop_clauses(_open(sentence.strip()))
    if rest is None:
        return None
    text = _finite(rest)
    if not _stands(text, first=first):
        return None
    return _finish(text)


def _open(text: str) -> str:
    """Take openings about the video off, one behind the other."""
    for _ in range(4):
        before = text
        for pattern in _OPENINGS:
            match = pattern.match(text)
            if match and len(text) - match.end() > 8:
                text = text[match.end() :]
        if text == before:
            break
    found = _AS_THEY.match(text)
    if found:
        text = f"{found['who']} {found['does']}"
    return _WHO_IS.sub(lambda match: f"{match['who']} {match['is']} ", text)


def _drop_clauses(text: str) -> str | None:
    """`text` without the clauses that a rule marks; None when that is the first clause."""
    clauses = _clauses(text)
    kept: list[str] = []
    for index, clause in enumerate(clauses):
        if not _marked(clause, opens=index == 0):
            kept.append(clause)
        elif index == 0:
            return None
    rest = "".join(kept).strip()
    if _marked(rest, opens=True):
        return None
    return rest


_BOUNDARY = re.compile(
    r"(?=[,;]\s+|\s+(?:while|as)\s+(?:the|a|an|we|it|if|though|he|she|they)\b|\s+with\s+(?:the\s+"
    r"camera|a\s+(?:shallow|blurred)|soft|warm|dramatic|natural|(?:\w+\s+)?lighting)|\s+and\s+"
    r"(?:the\s+(?:camera|lighting|video|scene|overall|atmosphere|mood)|I\b|we\b|is\s+captured)|"
    r"\s+in\s+(?:the\s+frame|slow\s+motion|my\s+view)|(?<!,)\s+(?:creating|suggesting|adding|"
    r"giving|evoking|conveying|indicating)\s)"
)


def _clauses(text: str) -> list[str]:
    cuts = [0, *(match.start() for match in _BOUNDARY.finditer(text) if match.start()), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(cuts) if start < end]


def _marked(clause: str, *, opens: bool) -> bool:
    stripped = clause.lstrip(" ,;")
    rules = [r3, r5, r6]
    if opens:
        rules.append(r1)
    found = [f for rule in rules for f in rule(original="", caption=stripped)]
    found += r5(original="", caption=clause)
    return any(not finding.ambiguous or (finding.rule == "R3" and "camera" in finding.text.lower())
               for finding in found)  # fmt: skip


def _finite(text: str) -> str:
    """`A woman walking` as `A woman walks`, when the sentence has no finite verb."""
    tokens = tokenize(text)
    if any(token.pos == "AUX" for token in tokens[:12]):
        return text
    for index, token in enumerate(tokens):
        if token.text in (",", ";") or token.lower in ("who", "that", "which"):
            return text
        if token.pos == "VERB" and not token.lower.endswith(("ing", "ed", "en")):
            return text
        if (
            token.lower.endswith("ing")
            and index
            and tokens[index - 1].pos in ("NOUN", "PROPN")
            and "VERB" in parts_of_speech(token.lower)
            and not (index + 1 < len(tokens) and tokens[index + 1].pos == "NOUN")
        ):
            head = _head(tokens[:index])
            if head is None:
                return text
            form = "VBP" if _plural(head, tokens[:index]) else "VBZ"
            base = next(iter(lemminflect.getLemma(token.lower, "VERB")), None)
            forms = lemminflect.getInflection(base, form) if base else ()
            if not forms:
                return text
            return text[: token.start] + forms[0] + text[token.end :]
    return text


def _head(tokens: tuple[Token, ...]) -> Token | None:
    """Head noun of the phrase: the noun before the first preposition."""
    head = None
    for token in tokens:
        if token.pos in ("NOUN", "PROPN"):
            head = token
        elif token.pos == "ADP" and head is not None:
            return head
    return head


def _plural(head: Token, tokens: tuple[Token, ...]) -> bool:
    if head.lower in ("people", "men", "women", "children"):
        return True
    if any(token.lower == "and" for token in tokens) and tokens[0].lower in ("a", "an", "the"):
        before_and = [token.lower for token in tokens].index("and")
        if any(token.pos == "DET" for token in tokens[before_and:]):
            return True
    return head.lower != head.lemma and head.lower.endswith("s")


def _stands(text: str, *, first: bool) -> bool:
    """Whether `text` can stand as a sentence: words enough, a noun, no pronoun without a noun."""
    tokens = tokenize(text)
    words = [token for token in tokens if token.pos != "PUNCT"]
    if len(words) < 3 or not any(token.pos in ("NOUN", "PROPN") for token in words):
        return False
    if first and words[0].lower in (
        "he",
        "she",
        "it",
        "they",
        "his",
        "her",
        "its",
        "their",
        "this",
    ):
        return False
    return words[0].lower not in (
        "and",
        "but",
        "or",
        "which",
        "who",
        "where",
        "as",
        "while",
        "with",
    )


def _finish(text: str) -> str:
    text = text.strip(" ,;:-–—")
    text = re.sub(r"\s+(?:and|or|but|with|as|while)$", "", text.rstrip(".!? "))
    return text[0].upper() + text[1:] + "."


# ---- the whole ----


def _shorten(kept: list[str], original: str) -> list[str]:
    """Whole sentences up to `MAX_WORDS`: the first, those about the main subject, then the rest."""
    if not kept:
        return []
    subjects = set(main_subjects(analyse(original)))
    ranked = sorted(
        range(len(kept)), key=lambda index: (index != 0, not _about(kept[index], subjects), index)
    )
    chosen: list[int] = []
    words = 0
    for index in ranked:
        count = len(kept[index].split())
        if words + count <= MAX_WORDS or not chosen:
            chosen.append(index)
            words += count
    return [kept[index] for index in sorted(chosen)]


def _about(sentence: str, subjects: set[str]) -> bool:
    return any(not lemmas(word).isdisjoint(subjects) for word in words_of(sentence))


def _drop_what_breaks_a_rule(kept: list[str], original: str) -> list[str]:
    """Sentences in which a rule still finds something go, one by one, in the order of the rules."""
    while kept:
        caption = " ".join(kept)
        findings: list[Finding] = []
        for rule in RULES.values():
            findings += [f for f in rule(original=original, caption=caption) if not f.ambiguous]
        if not findings:
            return kept
        place = findings[0].start
        kept = kept[:-1] if place is None else _without(kept, place)
    return kept


def _without(kept: list[str], place: int) -> list[str]:
    start = 0
    for index, sentence in enumerate(kept):
        if place < start + len(sentence) + 1:
            return kept[:index] + kept[index + 1 :]
        start += len(sentence) + 1
    return kept[:-1]
