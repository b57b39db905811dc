"""What an original tells as content of its scene, apart from words on mood, meaning and camera."""

import re
from functools import lru_cache

from colibri.core.captions.gate import Gated, words_in


def is_told(words: str, original: str) -> bool:
    """Whether the original has these words as content, in whatever forms."""
    stems = {word[:_STEM] for word in _WORD.findall(words.lower())}
    return bool(stems) and stems <= _told_stems(original)


def is_plainly_told(words: str, original: str) -> bool:
    """Whether an original that tells of the scene alone has these words."""
    return not speaks_of_recording(original) and is_told(words, original)


_WORD = re.compile(r"[a-z]+")
_STEM = 4
"""Letters by which forms of a word agree."""


@lru_cache(maxsize=64)
def _told_stems(original: str) -> frozenset[str]:
    return frozenset(word[:_STEM] for word in told_words(original))


@lru_cache(maxsize=64)
def told_words(original: str) -> frozenset[str]:
    """Words of the original's sentences, those on mood, meaning and camera left out."""
    if not speaks_of_recording(original):
        return frozenset(_WORD.findall(original.lower()))
    told = " ".join([part for part in _SENTENCE.findall(original) if not _TALK.search(part)])
    return words_in(told) | frozenset(_WORD.findall(told.lower()))


@lru_cache(maxsize=64)
def speaks_of_recording(original: str) -> bool:
    """Whether an original is about the video, its mood or its camera, too."""
    return _VIDEO.search(original) is not None


_SENTENCE = re.compile(r"[^.!?]+[.!?]*")
_VIDEO = re.compile(
    r"\b(?:video|clip|footage|mood|atmosphere|ambiance|tone|viewers?|lighting|camera\s+(?:work|is|"
    r"pans?|moves?|follows|zooms?|tilts?|tracks|stays|remains|captures|glides|circles)|scene|"
    r"shot\s+(?:from|in|with|is))\b",
    re.IGNORECASE,
)
_TALK = Gated(
    r"\b(?:mood|atmosphere|ambian?ce|tone|vibe|overall|style|camera|viewers?|sense\s+of|"
    r"feeling\s+of|suggest\w*|evok\w*|convey\w*|symboli\w*|impl(?:y|ies|ying)|hint\w*|remind\w*|"
    r"seems?|appears?\s+to|likely|perhaps|possibly|emphasi\w*|aims?\s+to|invit\w+|testament|"
    r"reflecting)\b"
)
