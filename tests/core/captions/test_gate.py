"""Gated scanning finds what plain scanning finds."""

import pytest
from colibri.core.captions.commentary_terms import EXPLANATIONS
from colibri.core.captions.filming_terms import TERMS
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


@pytest.mark.parametrize("gated", [TERMS, EXPLANATIONS])
def test_gates_change_nothing(gated: Gated) -> None:
    hits = 0
    for text in TEXTS:
        plain = {m.span() for pattern in gated._patterns.values() for m in pattern.finditer(text)}
        found = [match.span() for match in gated.finditer(text)]
        ends = [0, *(end for _, end in found)]
        assert plain.issuperset(found)
        for start, end in plain - set(found):  # only what begins inside another match is left out
            assert any(a <= start < b for a, b in found), text[start:end]
        assert all(start >= end for (start, _), end in zip(found, ends, strict=False))
        hits += len(found)
    assert hits
