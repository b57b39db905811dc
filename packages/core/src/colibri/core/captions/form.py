"""Extra checks of a caption's form: length, end, repetition, language, quotes."""

from functools import lru_cache

from colibri.core.captions.language import parts_of_speech
from colibri.core.captions.surface import WORD, finding, lower_words
from colibri.core.clip import Finding

BAND = (5, 120)
"""Words that a caption should have at least and at most."""


def x_length(*, original: str, caption: str) -> tuple[Finding, ...]:
    """Between 5 and 120 words."""
    count = len(lower_words(caption))
    if BAND[0] <= count <= BAND[1]:
        return ()
    return _whole("X-length", caption, f"{count} words; between {BAND[0]} and {BAND[1]} are wanted")


def x_cutoff(*, original: str, caption: str) -> tuple[Finding, ...]:
    """Ends like a sentence, not in the middle of one."""
    text = caption.rstrip()
    if not text or text[-1] in ".!?\"”'’)…":
        return ()
    last = (WORD.findall(caption) or [text[-1]])[-1]
    span = (max(0, text.rfind(last)), len(text))
    return (finding("X-cutoff", span, caption, "ends without a full stop; it may be cut off"),)


def x_repetition(*, original: str, caption: str) -> tuple[Finding, ...]:
    """No run of four words said twice, no word three times in a row."""
    words = lower_words(caption)
    runs = list(zip(words, words[1:], words[2:], (*words[3:], ""), strict=False))
    triples = [run for run in runs if run[0] == run[1] == run[2]]
    if not triples and len(set(runs)) == len(runs):
        return ()
    seen: set[tuple[str, ...]] = set()
    for index, run in enumerate(runs):
        if run in triples or (run in seen and run[3] and not _COMMON.issuperset(run)):
            spans = [match.span() for match in WORD.finditer(caption)]
            span = (spans[index][0], spans[min(index + 3, len(spans) - 1)][1])
            return (
                finding("X-repetition", span, caption, f"says {' '.join(run).strip()!r} again"),
            )
        seen.add(run)
    return ()


def x_language(*, original: str, caption: str) -> tuple[Finding, ...]:
    """English."""
    if not lower_words(caption) or is_english(caption):
        return ()
    return _whole("X-language", caption, "does not read as English")


@lru_cache(maxsize=64)
def is_english(text: str) -> bool:
    """Whether most words are in the English lexicon and some are English function words."""
    words = lower_words(text)[:120]
    if not words:
        return False
    known = sum([bool(word in _COMMON or parts_of_speech(word)) for word in words])
    return known >= 0.6 * len(words) and (len(words) < 5 or not _COMMON.isdisjoint(words))


_COMMON = frozenset(
    "a an the in on at of and with is are to his her its as by from over under while for it "
    "that".split()
)


def x_quoted(*, original: str, caption: str) -> tuple[Finding, ...]:
    """Not put into quotation marks as a whole."""
    text = caption.strip()
    if len(text) < 3 or (text[0], text[-1]) not in (('"', '"'), ("“", "”"), ("'", "'"), ("`", "`")):
        return ()
    if text[0] in text[1:-1]:
        return ()
    return _whole("X-quoted", caption, "the whole caption is in quotes")


def _whole(check: str, caption: str, message: str) -> tuple[Finding, ...]:
    return (finding(check, (0, len(caption)), caption, message),)
