"""What of a caption another rule has found already: its words count for that rule, not for R4."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from colibri.core.captions.surface import Span
from colibri.core.clip import Finding


class Aside(NamedTuple):
    """A span of a caption that breaks R1, R3, R5 or R6."""

    start: int
    end: int
    told: int
    """From here on it may name somebody new."""


def asides(findings: Sequence[Finding], caption: str) -> list[Aside]:
    """What R1, R3, R5 and R6 have found, and what belongs to it."""
    found = []
    for finding in findings:
        if finding.rule not in _SPAN_OF or finding.start is None or finding.end is None:
            continue
        start, end = _SPAN_OF[finding.rule]((finding.start, finding.end), caption)
        found.append(Aside(start, end, finding.end if finding.rule == "R5" else end))
    return found


def _of_opening(span: Span, caption: str) -> Span:
    """To the medium that it names, if that follows closely: `It is a sports video in which`."""
    start, end = span
    medium = _MEDIUM.match(caption, end) or _COLON.match(caption, end)
    return start, medium.end() if medium else end


_MEDIUM = re.compile(
    r"(?:[^\S\n]+[\w'’-]+){0,3}?\s+(?:video|clip|footage|recording|film|scene|animation)\b",
    re.IGNORECASE,
)
_COLON = re.compile(r"[^:,.]{0,30}:")


def _of_craft(span: Span, caption: str) -> Span:
    """The phrase around it: `in grainy sepia tones like an old newsreel`."""
    start, end = span
    recording = _RECORDING.search(caption[start:end])
    end = _until(_RECORDED if recording else _PHRASE_END, end, caption)
    openers = [m.start() for m in _PHRASE_START.finditer(caption, 0, start + 1)]
    opener = max(openers, default=start)
    lead = _LEADING.search(caption, 0, start)
    if lead:
        start = lead.start()
    return min(start, opener) if start - opener < _NEAR else start, end


_RECORDING = re.compile(r"\b(?:camera|zoom|shot on|shot in|filmed|footage)", re.IGNORECASE)
_RECORDED = re.compile(r"[.,;!?]|\s(?:of|while|as)\s")
_PHRASE_END = re.compile(
    r"[.,;!?]|\s(?:while|as|before|then|and\s+(?:the|a|an|his|her)|until|who|where)\s"
)
_PHRASE_START = re.compile(
    r"\b(?:in|with|under|through|from|by|as|while|and|at|against|to)\s|[,;.]"
)
_LEADING = re.compile(r"(?:(?<=\s)(?:long|short|single|slow|smooth|bathed|shot|in|a|an|the)\s+)+$")
_NEAR = 40
"""Characters between the start of a phrase and the words on filming in it."""


def _of_comment(span: Span, caption: str) -> Span:
    """Its clause, or what the brackets hold."""
    start, end = span
    bracket = caption.rfind("(", 0, start + 1)
    if bracket >= 0 and ")" not in caption[bracket:start]:
        close = caption.find(")", start)
        return bracket, close if close >= 0 else len(caption)
    openers = [m.end() for m in _CLAUSE_START.finditer(caption, 0, start + 1)]
    return min(start, max(openers, default=start)), _until(_CLAUSE_END, end, caption)


_CLAUSE_START = re.compile(r"[.,;:(–—]|\s(?:and|but|so|while|because|who|which|whose)\s")
_CLAUSE_END = re.compile(r"[.,;!?]")


def _of_teller(span: Span, caption: str) -> Span:
    """`our hero`, `a colleague of mine`, and the clause whose subject is `I`."""
    start, end = span
    word = caption[start:end].lower()
    if word in ("my", "our"):
        thing = _OWNED.match(caption, end)
        return start, thing.end() if thing else end  # "Our hero, a cartoon rabbit,"
    if word.startswith(("i", "we")):
        return start, _until(_CLAUSE_END, end, caption)
    owned = _OF_MINE.search(caption, 0, start) if word.endswith("mine") else None
    return owned.start() if owned else start, end


_OWNED = re.compile(
    r"(?:\s+[\w'’-]+){1,2}?(?=,\s+(?:an?|the|one|two|three)\s)|"
    r"\s+(?:side|end|part|half|corner|bank)\s+of\s+(?:(?:the|a)\s+)?\w+"
)
_OF_MINE = re.compile(r"(?:[\w'’-]+\s+){1,2}$")


def _until(mark: re.Pattern[str], place: int, caption: str) -> int:
    """Where the next mark stands, or the end."""
    found = mark.search(caption, place)
    return found.start() if found else len(caption)


_SPAN_OF = {"R1": _of_opening, "R3": _of_craft, "R5": _of_comment, "R6": _of_teller}
