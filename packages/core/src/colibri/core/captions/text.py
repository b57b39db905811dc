"""A text with what the rules on content need of it, worked out once.

Words are compared by lemma and by what they imply: synonyms, kinds above, derivations.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

from colibri.core.captions import lexicon
from colibri.core.captions.language import (
    AUXILIARIES,
    CONJUNCTIONS,
    DETERMINERS,
    PREPOSITIONS,
    PRONOUNS,
    Token,
    bare,
    base_forms,
    sentences,
    tokenize,
)
from colibri.core.captions.people import is_person
from colibri.core.captions.vocabulary import RECORDING


@lru_cache(maxsize=64)
def analyse(text: str) -> "Text":
    """Work a text out; kept for the last texts."""
    tokens = tokenize(text)
    words = tuple(map(_word, {lower for _, lower, _, pos, _, _ in tokens if pos != "PUNCT"}))
    return Text(
        text,
        tokens,
        words,
        frozenset().union(*[word.lemmas for word in words]),
        tuple([token for token in tokens if token[3] in _OPEN]),
    )


_OPEN = frozenset("NOUN VERB ADJ NUM PROPN ADV".split())


@dataclass(frozen=True, slots=True)
class _Word:
    """What one word brings into a text, whatever stands around it."""

    lemmas: frozenset[str]
    implied: frozenset[str]
    """Every sense that the word implies."""
    said: frozenset[str]
    """Its main senses."""
    stems: frozenset[str]


@lru_cache(maxsize=100_000)
def _word(lower: str) -> _Word:
    own = base_forms(lower)
    if "-" in lower:
        own = own.union(*(base_forms(piece) for piece in lower.split("-")))
    telling = own - RECORDING if lower not in _CLOSED else frozenset()
    return _Word(
        own,
        frozenset(sense for lemma in telling for sense in lexicon.implied(lemma)),
        frozenset(sense for lemma in telling for sense in lexicon.main_senses(lemma)),
        frozenset(lexicon.stem(lemma) for lemma in own),
    )


_CLOSED = DETERMINERS | PRONOUNS | PREPOSITIONS | CONJUNCTIONS | AUXILIARIES


@dataclass(frozen=True, eq=False)
class Text:
    """A text and its words."""

    text: str
    tokens: tuple[Token, ...]
    words: tuple[_Word, ...]
    """The distinct words."""
    lemmas: frozenset[str]
    content: tuple[Token, ...]
    """Nouns, verbs, adjectives, adverbs, numbers and names."""

    @cached_property
    def sentences(self) -> list[tuple[Token, ...]]:
        return [self.tokens[start:end] for start, end in sentences(self.tokens)]

    @cached_property
    def numbers(self) -> frozenset[str]:
        return frozenset(token.lemma for token in self.content if token.pos == "NUM")

    @cached_property
    def things(self) -> frozenset[str]:
        return frozenset([token.lemma for token in self.content if token.pos == "NOUN"])

    @cached_property
    def people(self) -> frozenset[str]:
        return frozenset(filter(is_person, map(bare, self.things)))

    @cached_property
    def stems(self) -> frozenset[str]:
        return frozenset().union(*(word.stems for word in self.words))

    @cached_property
    def roots(self) -> frozenset[str]:
        """The first five and six letters of each lemma."""
        return frozenset([lemma[:letters] for lemma in self.lemmas for letters in (5, 6)])

    def implies(self, senses: frozenset[str]) -> bool:
        """Whether a word of the text implies one of the senses."""
        return not all(map(senses.isdisjoint, self._implied))

    def says(self, senses: frozenset[str]) -> bool:
        """Whether a word of the text has one of the senses as a main one."""
        return not all(map(senses.isdisjoint, self._said))

    @cached_property
    def _implied(self) -> list[frozenset[str]]:
        return [word.implied for word in self.words if word.implied]

    @cached_property
    def _said(self) -> list[frozenset[str]]:
        return [word.said for word in self.words if word.said]
