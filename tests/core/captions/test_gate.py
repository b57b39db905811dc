"""Gated scanning finds what plain scanning finds."""

import re

import pytest
from colibri.core.captions import surface
from colibri.core.captions.gate import Gated, needed
from colibri.testbed.footage import BIG_BUCK_BUNNY_CAPTION

TEXTS = [
    BIG_BUCK_BUNNY_CAPTION,
    "A low-angle SHOT of a dog. The camera pans left, then we cut to a close-up in slow motion.",
    "Here is the rewritten caption: a dog, suggesting joy. Note: mood removed. **Bold**",
    "The overall atmosphere is calm \u0130 and the \u017fhot is cinematic.",
    "A cook stirs a pan of soup.",
]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"\bslow[- ]?motion\b", {"motion"}),
        (r"\b(?:zoom|pans?)\s+left\b", {"left"}),
        (r"\b(?:bokeh|fisheye)\b", {"bokeh", "fisheye"}),
        (r"\b\d+\b", None),
        (r"(?:video)?", None),
    ],
)
def test_needed_words_are_read_off_the_pattern(pattern: str, words: set[str] | None) -> None:
    assert needed(pattern) == words


@pytest.mark.parametrize("gated", [surface._PLAIN_R3, surface._R5])
def test_gates_change_nothing(gated: Gated) -> None:
    for text in TEXTS:
        for pattern, words in gated._patterns:
            hits = list(re.finditer(pattern, text))
            if hits and words is not None and text.isascii():
                assert any(word in text.lower() for word in words), pattern.pattern
