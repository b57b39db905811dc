"""What a text holds and how much of it another text supports, for those who judge and report."""

from colibri.core.captions.language import lemmas, parts_of_speech
from colibri.core.captions.novelty import r4, r4_of
from colibri.core.captions.subject import main_subjects, r2, r2_of
from colibri.core.captions.text import analyse
from colibri.core.captions.vocabulary import LIGHT, RECORDING

__all__ = ["analyse", "main_subjects", "nouns", "overlap", "r2", "r2_of", "r4", "r4_of"]


def overlap(original: str, caption: str) -> float:
    """Share of the caption's content words that the original says or implies, in [0, 1]."""
    first, second = analyse(original), analyse(caption)
    words = [t for t in second.content if lemmas(t.lower).isdisjoint(LIGHT)]
    if not words:
        return 1.0
    new = {finding.start for finding in r4_of(first, second)}
    return 1 - sum(token.start in new for token in words) / len(words)


def nouns(text: str) -> list[str]:
    """Lemmas of a text's nouns in order, light words and those for the recording left out."""
    return [
        token.lemma
        for token in analyse(text).content
        if token.pos in ("NOUN", "PROPN")
        and "NOUN" in (parts_of_speech(token.lower) or {"NOUN"})
        and token.lemma not in LIGHT
        and token.lemma not in RECORDING
    ]
