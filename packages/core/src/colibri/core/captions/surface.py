"""What the rules that read a caption as it stands have in common: words, quotes, findings.

Patterns are scanned over the raw text, so that spans are exact.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from colibri.core.captions.language import Token
from colibri.core.clip import Finding

Span = tuple[int, int]


def words_of(text: str) -> Iterator[str]:
    """Words of a text in lower case."""
    for match in WORD.finditer(text):
        yield match.group().lower()


@lru_cache(maxsize=16)
def lower_words(text: str) -> tuple[str, ...]:
    """Words of a text in lower case; kept for the last texts."""
    return tuple([word.lower() for word in WORD.findall(text)])


WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def opening_end(caption: str) -> int:
    """Where the first word of a caption begins, behind spaces, quotes and bullets."""
    match = _OPENING.match(caption)
    assert match
    return match.end()


_OPENING = re.compile(r"[\s\"'“”‘’*_#>\-(\[]*")


def quotes(caption: str) -> list[Span]:
    """Spans of quoted speech. A caption that is quoted as a whole is not speech."""
    if _QUOTES.isdisjoint(caption):
        return []
    whole = len(caption.strip()) - 2
    spans = [match.span() for match in _QUOTE.finditer(caption)]
    return [(start, end) for start, end in spans if end - start < whole]


_QUOTES = frozenset("\"“«'‘")
_QUOTE = re.compile(
    r"\"[^\"]{1,400}\"|“[^”]{1,400}”|«[^»]{1,400}»|(?<!\w)['‘][^'’\n]{2,200}['’](?!\w)"
)


def inside(span: Span, spans: list[Span]) -> bool:
    """Whether one of the spans holds a span."""
    return any(start <= span[0] and span[1] <= end for start, end in spans)


def finding(
    rule: str, span: Span, caption: str, message: str, *, ambiguous: bool = False
) -> Finding:
    """What a rule finds in a span of the caption."""
    start, end = span
    return Finding(
        rule=rule,
        start=start,
        end=end,
        text=caption[start:end],
        message=message,
        ambiguous=ambiguous,
    )


def new_detail(token: Token, why: str, *, ambiguous: bool = False) -> Finding:
    """What R4 finds in a word of the caption."""
    return Finding(
        rule="R4",
        start=token.start,
        end=token.end,
        text=token.text,
        message=f"{why}; leave it out or say what the original says",
        ambiguous=ambiguous,
    )


def any_of(words: Iterable[str], *, space: str = r"[\s-]+") -> str:
    """A pattern for any of the words, the first that fits; `_` stands for a space."""
    return "(?:" + "|".join(word.replace("_", space) for word in words) + ")"


def any_pattern(*patterns: str) -> re.Pattern[str]:
    """The patterns as one, without regard to case."""
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)
