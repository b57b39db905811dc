"""R6: no first person, except in quoted speech, titles and numerals."""

import re

from colibri.core.captions.gate import words_in
from colibri.core.captions.surface import finding, inside, quotes
from colibri.core.clip import Finding


def r6(*, original: str, caption: str) -> tuple[Finding, ...]:
    """No I, we, my, our or us, except in quoted speech, titles and numerals."""
    if caption.isascii() and _FIRST_WORDS.isdisjoint(words_in(caption)):
        return ()
    quoted = quotes(caption)
    found = []
    for match in _FIRST.finditer(caption):
        if inside(match.span(), quoted) or not _is_first_person(match, caption):
            continue
        message = f"{match.group()!r} is first person; tell it from outside"
        found.append(finding("R6", match.span(), caption, message))
    return tuple(found)


_FIRST_WORDS = frozenset("i me my myself we us our ours ourselves let mine".split())
_FIRST = re.compile(
    r"\b(?:I(?:['’](?:m|ve|ll|d))?|[Mm]e|[Mm]y|[Mm]yself|[Ww]e(?:['’](?:re|ve|ll|d))?|us|[Oo]ur|"
    r"[Oo]urs|[Oo]urselves|[Ll]et['’]s|[Ll]et us|MY|WE|OUR|i(?:['’](?:m|ve|ll|d)))\b|\b(?:of|is|"
    r"are|was) mine\b|(?<![\w.])i(?=\s+(?:am|was|see|saw|can|have|think|will|would|love|like|watch|"
    r"feel|do|did|want|notice|believe|could|walk|hear|know|look|find|just|also|really|filmed|"
    r"took)\b)"
)


def _is_first_person(match: re.Match[str], caption: str) -> bool:
    word, before, after = match.group(), caption[: match.start()], caption[match.end() :]
    opens = not before.strip() or before.rstrip()[-1:] in '.!?:"“('
    if word == "I":
        numeral = _NUMERAL_BEFORE.search(before) or after.startswith(("-", "/", "."))
        named = _NAME_BEFORE.search(before) and not _GOES_ON.match(after)
        return not (numeral or named)
    if word == "us":
        return not _DOLLARS.match(after)
    if word == "Our":
        return not _TITLE_OUR.match(after)
    if word == "My":
        return opens and not _TITLE_MY.match(after)
    if word in ("Me", "We"):
        return opens
    return not (word.endswith("mine") and _MINE_OF.match(after))


_NUMERAL_BEFORE = re.compile(
    r"(?:\b(?:War|Part|Type|Class|Phase|Chapter|Volume|Act|Stage|Level|Mark|Section|Elizabeth|"
    r"Charles|Henry|James|George|Napoleon|Wilhelm|William|Francis|Nicholas|Leopold|Catherine|"
    r"Peter|Alexander|Book|Grade|Division|Category|Roman|numeral|letter|Model|Series|Formula|"
    r"Schedule|Title|Pope \w+|King \w+|Queen \w+|Emperor \w+|Ramesses|Ramses|Tier|Group|Unit|"
    r"Route|Interstate|Apollo|Saturn|Tsar \w+|Article|Psalm|Episode|Season|Rocky|Superman)\s+|"
    r"[\"“'(/&-])$",
    re.IGNORECASE,
)
_NAME_BEFORE = re.compile(r"[A-Z][a-z]+\s+$")
_GOES_ON = re.compile(
    r"\s+(?:am|was|see|saw|can|have|had|think|will|would|love|like|watch|feel|do|did|want|notice|"
    r"believe|could|walk|hear|know|look|find|just|also|really|filmed|took|stand|sit)"
)
"""Verbs of `I`; without one `I` behind a name is a numeral."""
_DOLLARS = re.compile(r"\s*(?:\$|dollar)")
_TITLE_OUR = re.compile(r"\s+(?:Lady|Father|Savior|Saviour|Town|World|Planet)\b")
_TITLE_MY = re.compile(r"\s+(?:Little Pony|Fair Lady|Neighbor Totoro|Chemical)\b")
_MINE_OF = re.compile(r"\s+(?:shaft|cart|entrance|worker)")
