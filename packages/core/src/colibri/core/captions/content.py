"""Rules that compare the caption with its original: R2 the main subject stays, R4 nothing new.

Words are compared by lemma; synonyms, kinds above and derivations are entailed, kinds below are
not. Colours, numbers, negation and names are compared by themselves.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from colibri.core.captions import lexicon
from colibri.core.captions.language import Token, lemmas, parts_of_speech, sentences, tokenize
from colibri.core.clip import Finding

COLOURS: dict[str, str] = {
    shade: base
    for base, shades in {
        "red": "red scarlet crimson maroon ruby burgundy reddish vermilion",
        "blue": "blue navy azure turquoise teal cyan bluish cobalt indigo",
        "green": "green emerald olive lime greenish",
        "yellow": "yellow golden gold yellowish amber blond blonde",
        "white": "white ivory cream whitish",
        "black": "black ebony jet",
        "brown": "brown tan beige chestnut brownish brunette",
        "grey": "grey gray silver greyish grayish silvery",
        "orange": "orange peach",
        "purple": "purple violet lavender lilac magenta purplish",
        "pink": "pink rose fuchsia pinkish",
    }.items()
    for shade in shades.split()
}

_LIGHT = frozenset(
    (
        "be have do make get go come take put keep use appear see look remain stay continue begin "
        "start stop become wear hold stand show lie hang rest face cover fill surround contain "
        "include form move pass reach follow lead let seem bring turn give set place position "
        "locate situate enter leave visible present same other different various several many few "
        "more most next last first second single own such certain whole entire full nearby close "
        "near far left right upper lower front back side part top bottom middle center centre "
        "edge end corner area place background foreground scene group pair couple set piece "
        "number way direction moment time thing object surface one two another each other both "
        "all some lot kind type sort bit distance line row setting view position inside outside "
        "outdoors indoors again then forward away together slowly around toward along past front "
        "space point step rest subject item element act perform engage day while not also still "
        "now there here up down out off over work person people gently steadily carefully clearly "
        "partly slightly fully directly together apart quickly briefly can will would could as so "
        "just only even very too more less much back outdoor indoor something someone somebody "
        "anything everyone everything itself himself herself themselves repeatedly continuously "
        "motion movement action activity use feature consist display carry against upon within "
        "among"
    ).split()
)
"""Words that say too little to be a new detail."""

_PEERS: dict[str, frozenset[str]] = {
    word: frozenset(group.split())
    for group in (
        "woman lady", "man guy gentleman fellow", "child kid", "sunset dusk sundown",
        "sunrise dawn",
        "sea ocean", "bike bicycle", "motorcycle motorbike bike", "sofa couch", "tv television",
        "street road", "forest wood woods", "stone rock boulder", "house home", "shop store",
        "dress gown", "rain rainy", "snow snowy", "sun sunny sunlight sunlit", "phone smartphone",
        "laugh laughter", "talk speak chat converse", "garden yard", "hat cap", "boat ship",
        "infant baby", "photo photograph picture", "autumn fall", "jump leap hop", "glass glasses",
        "jog run", "smile grin", "look watch gaze", "throw toss", "cook prepare", "fix repair",
        "sunshine sunlight", "path trail", "cup mug", "couple pair", "jacket coat", "cloud cloudy",
        "automobile car", "plane airplane aircraft", "rug carpet", "little small", "big large",
    )
    for word in group.split()
}  # fmt: skip
"""Words that captions use for each other although the table holds them apart."""

_NEGATORS = frozenset("no not without never neither nor none nobody nothing n't cannot".split())

_TWO = frozenset("pair couple both twin twins two duo each another together".split())

_GROUPS = frozenset(
    (
        "group pair couple crowd number set row line series variety collection bunch team flock "
        "herd bowl cup glass piece slice bouquet kind type sort lot bit dozen view shot image "
        "picture video scene clip close-up closeup footage sequence sense portrait glimpse photo"
    ).split()
)

_META = frozenset(
    (
        "video clip footage film scene shot camera frame image viewer viewers audience picture "
        "view close-up closeup perspective angle lens sequence recording movie animation moment "
        "moments atmosphere mood background foreground focus lighting composition beginning end "
        "start middle part series display sense overall setting style quality tone"
    ).split()
)


@dataclass(frozen=True, slots=True)
class Text:
    """A text with what both rules need of it, worked out once."""

    text: str
    tokens: tuple[Token, ...]
    lemmas: frozenset[str]
    content: tuple[Token, ...]
    """Nouns, verbs, adjectives, numbers and names."""
    numbers: frozenset[str]
    colours: frozenset[str]
    negated: frozenset[str]
    """Lemmas that follow a negator closely."""
    plain: frozenset[str]
    """Lemmas that stand somewhere without one."""
    implied: frozenset[str]
    """Every sense that the text's words imply."""


@lru_cache(maxsize=1024)
def analyse(text: str) -> Text:
    """Work a text out; kept for the last thousand texts."""
    tokens = tokenize(text)
    all_lemmas: set[str] = set()
    numbers: set[str] = set()
    colours: set[str] = set()
    negated: set[str] = set()
    plain: set[str] = set()
    implied: set[str] = set()
    content = []
    since = 99
    for token in tokens:
        if token.pos == "PUNCT":
            if token.text in ".,;!?":
                since = 99
            continue
        if token.lower in _NEGATORS or token.lower.endswith("n't"):
            since = 0
        else:
            since += 1
        own = lemmas(token.lower)
        all_lemmas |= own
        if "-" in token.lower:
            for piece in token.lower.split("-"):
                all_lemmas |= lemmas(piece)
        if token.lower in COLOURS:
            colours.add(COLOURS[token.lower])
        if token.pos == "NUM":
            numbers.add(token.lemma)
        if token.pos in ("NOUN", "VERB", "ADJ", "NUM", "PROPN", "ADV"):
            content.append(token)
            if token.pos != "NUM":
                for lemma in own - _META:
                    implied |= lexicon.implied(lemma)
            if token.pos in ("NOUN", "VERB"):
                (negated if since <= 3 else plain).add(token.lemma)
                if since <= 3:
                    since = max(since, 2)
    return Text(
        text,
        tokens,
        frozenset(all_lemmas),
        tuple(content),
        frozenset(numbers),
        frozenset(colours),
        frozenset(negated),
        frozenset(plain),
        frozenset(implied),
    )


# ---- R4 ----


def r4(*, original: str, caption: str) -> tuple[Finding, ...]:
    """No object, person, action, colour, number, name or negation that the original lacks."""
    return r4_of(analyse(original), analyse(caption))


def r4_of(original: Text, caption: Text) -> tuple[Finding, ...]:
    """R4 on texts that are worked out already."""
    found = []
    for index, token in enumerate(caption.tokens):
        if token.pos in ("PUNCT", "DET", "PRON", "ADP", "CONJ", "AUX"):
            if token.lower in ("no", "without", "not", "never") or token.lower.endswith("n't"):
                found += _new_negation(index, original, caption)
            continue
        if token.lower in ("not", "never"):
            found += _new_negation(index, original, caption)
            continue
        finding = _new_word(index, token, original, caption)
        if finding:
            found.append(finding)
    return tuple(found)


def _new_word(index: int, token: Token, original: Text, caption: Text) -> Finding | None:
    lower = token.lower
    if token.pos == "NUM":
        return _new_number(index, token, original, caption)
    if lower in COLOURS and token.pos in ("ADJ", "NOUN", "PROPN"):
        if COLOURS[lower] in original.colours or lower in original.lemmas:
            return None
        return _new(token, f"colour {lower!r} is not in the original")
    own = lemmas(lower)
    if not own.isdisjoint(original.lemmas):
        return _flipped(index, token, original, caption)
    if not own.isdisjoint(_LIGHT) or token.pos == "ADV":
        return None
    if token.pos == "PROPN" and not lexicon.known(lower):
        if lower in original.text.lower():
            return None
        return _new(token, f"the name {token.text!r} is not in the original")
    if "-" in lower and _pieces_known(lower, original):
        return None
    if _implied(own, token, original):
        return None
    if not any(lexicon.known(lemma) for lemma in own) and token.pos != "NOUN":
        return None
    kind = {"NOUN": "thing", "PROPN": "name", "VERB": "action", "ADJ": "detail"}[token.pos]
    ambiguous = token.pos in ("ADJ", "VERB") and _vague(own)
    return _new(token, f"{kind} {lower!r} is not in the original", ambiguous=ambiguous)


def _implied(own: frozenset[str], token: Token, original: Text) -> bool:
    for lemma in own:
        if not _PEERS.get(lemma, frozenset()).isdisjoint(original.lemmas):
            return True
        claimed = lexicon.senses(lemma)
        if not claimed:
            continue
        if not claimed.isdisjoint(original.implied):
            return True
        if token.pos == "VERB" and not lexicon.narrower_verb(lemma).isdisjoint(original.implied):
            return True
        stem = lexicon._stem(lemma)
        if any(lexicon._stem(word) == stem for word in original.lemmas if word[:3] == lemma[:3]):
            return True
    return False


def _pieces_known(word: str, original: Text) -> bool:
    return all(
        not lemmas(piece).isdisjoint(original.lemmas | _LIGHT)
        or not lemmas(piece).isdisjoint(frozenset({"year", "old", "like", "up", "off", "in"}))
        for piece in word.split("-")
        if piece
    )


def _vague(own: frozenset[str]) -> bool:
    return not own.isdisjoint(_VAGUE)


_VAGUE = frozenset(
    (
        "calm quiet peaceful gentle smooth steady busy beautiful nice lively casual simple clear "
        "bright large big small tall long short wide"
    ).split()
) & frozenset("calm quiet peaceful gentle smooth steady casual simple clear".split())


def _new_number(index: int, token: Token, original: Text, caption: Text) -> Finding | None:
    value = token.lemma
    if value == "1" or value in original.numbers or token.lower in original.lemmas:
        return None
    if value == "2" and (
        not original.lemmas.isdisjoint(_TWO) or _joined_pair(index, original, caption)
    ):
        return None
    return _new(token, f"number {token.text!r} is not in the original")


def _joined_pair(index: int, original: Text, caption: Text) -> bool:
    """`two people` where the original has `a man and a woman`."""
    for first, word, second in zip(
        original.tokens, original.tokens[1:], original.tokens[2:], strict=False
    ):
        if first.pos == "NOUN" and word.lower == "and" and second.lower in ("a", "an", "another"):
            return True
        if first.pos == "NOUN" and word.lower in ("with", "beside") and second.lower == "another":
            return True
    return False


def _flipped(index: int, token: Token, original: Text, caption: Text) -> Finding | None:
    """A word of the original that it only denies, now affirmed; or one thing that became many."""
    if token.pos not in ("NOUN", "VERB") or token.lower in _LIGHT:
        return None
    lemma = token.lemma
    if (
        lemma in original.negated
        and lemma not in original.plain
        and lemma in caption.plain
        and lemma not in caption.negated
    ):
        return _new(token, f"the original denies {token.lower!r}")
    if token.pos == "NOUN" and _is_plural(token) and _only_one(lemma, original):
        return _new(token, f"the original has one {lemma!r}, not several")
    return None


def _is_plural(token: Token) -> bool:
    return token.lower != token.lemma and (
        token.lower.endswith("s") or token.lower in ("men", "women", "children", "feet")
    )


def _only_one(lemma: str, original: Text) -> bool:
    """True when every mention is `a LEMMA` or `one LEMMA` and only one of them is there."""
    ones = 0
    for index, token in enumerate(original.tokens):
        if token.lemma != lemma or token.pos not in ("NOUN", "VERB", "ADJ"):
            continue
        if token.lower != lemma:
            return False
        before = [word.lower for word in original.tokens[max(0, index - 4) : index]]
        if any(word in ("another", "each", "every", "several", "second") for word in before):
            return False
        ones += any(word in ("a", "an", "one") for word in before)
    return ones == 1


def _new_negation(index: int, original: Text, caption: Text) -> list[Finding]:
    token = caption.tokens[index]
    following = [t for t in caption.tokens[index + 1 : index + 5] if t.pos in ("NOUN", "VERB")]
    if not following:
        return []
    denied = following[0].lemma
    if denied in original.negated or (not original.negated and not _positive(denied, original)):
        if denied in original.negated:
            return []
        return [_new(token, f"{token.text!r} denies something that the original does not")]
    if any(word.lower in _NEGATORS for word in original.tokens) and denied not in original.plain:
        return []
    return [_new(token, f"{token.text!r} denies something that the original does not")]


def _positive(lemma: str, original: Text) -> bool:
    return lemma in original.plain


def _new(token: Token, message: str, *, ambiguous: bool = False) -> Finding:
    return Finding(
        rule="R4",
        start=token.start,
        end=token.end,
        text=token.text,
        message=f"{message}; leave it out or say what the original says",
        ambiguous=ambiguous,
    )


# ---- R2 ----


def r2(*, original: str, caption: str) -> tuple[Finding, ...]:
    """The caption keeps the original's main subject."""
    return r2_of(analyse(original), analyse(caption))


def r2_of(original: Text, caption: Text) -> tuple[Finding, ...]:
    """R2 on texts that are worked out already."""
    subjects = main_subjects(original)
    if not subjects or not caption.tokens:
        return ()
    for subject in subjects:
        if _mentions(caption, subject):
            return ()
    lost = subjects[0]
    return (
        Finding(
            rule="R2",
            start=None,
            end=None,
            text=lost,
            message=f"the main subject {lost!r} is lost; make the caption about it",
        ),
    )


def main_subjects(text: Text) -> list[str]:
    """Lemmas that can stand for what the text is about, best first.

    The head of its first noun phrase after words about the video; a living thing that a later
    sentence begins with; where the head is a place, the first living thing.
    """
    heads: list[str] = []
    for number, (start, end) in enumerate(sentences(text.tokens)):
        head = _first_head(text.tokens[start:end])
        if head is None:
            continue
        if not heads or (number <= 2 and _alive(head)):
            heads.append(head)
    if heads and not _alive(heads[0]):
        living = [t.lemma for t in text.tokens if t.pos == "NOUN" and _alive(t.lemma)]
        if living and lexicon.is_a(heads[0], "location"):
            heads.append(living[0])
    return list(dict.fromkeys(heads))


def _first_head(tokens: Sequence[Token]) -> str | None:
    """Head noun of the first noun phrase that is about the content."""
    phrase: list[Token] = []
    for index, token in enumerate([*tokens, _END]):
        if token.pos in ("NOUN", "PROPN") or (
            token.pos in ("ADJ", "NUM", "DET", "VERB")
            and phrase
            and _goes_on(tokens, index, phrase)
        ):
            phrase.append(token)
            continue
        nouns = [word for word in phrase if word.pos in ("NOUN", "PROPN")]
        if nouns:
            head = nouns[-1]
            of = token.lower == "of"
            about = lemmas(head.lower)
            if not about.isdisjoint(_META) or head.lower in _META:
                phrase = []
                continue
            if of and not about.isdisjoint(_GROUPS):
                phrase = []
                continue
            if head.lemma not in _PARTS_OF_TIME:
                return head.lemma
        phrase = []
    return None


_PARTS_OF_TIME = frozenset("day night morning evening afternoon sunset sunrise dusk dawn".split())
_END = Token(".", ".", ".", "PUNCT", 0, 0)


def _goes_on(tokens: Sequence[Token], index: int, phrase: list[Token]) -> bool:
    return (
        index + 1 < len(tokens)
        and tokens[index].pos == "ADJ"
        and tokens[index + 1].pos == "NOUN"
        and phrase[-1].pos == "ADJ"
    )


@lru_cache(maxsize=20_000)
def _alive(lemma: str) -> bool:
    return lemma == "people" or lexicon.is_a(lemma, "person") or lexicon.is_a(lemma, "animal")


def _mentions(caption: Text, subject: str) -> bool:
    if subject in caption.lemmas or not lemmas(subject).isdisjoint(caption.lemmas):
        return True
    human = subject == "people" or lexicon.is_a(subject, "person")
    for token in caption.content:
        if token.pos not in ("NOUN", "PROPN", "ADJ", "VERB"):
            continue
        for lemma in lemmas(token.lower):
            if human and (lemma == "people" or lexicon.is_a(lemma, "person")):
                if _same_person(subject, lemma):
                    return True
                continue
            if lexicon.kind_of(subject, lemma) and not _too_general(lemma):
                return True
            if not human and (lexicon.kind_of(lemma, subject) or lemma in _PEERS.get(subject, ())):
                return True
    return False


_MALE = frozenset("man boy guy gentleman father son brother husband male king".split())
_FEMALE = frozenset("woman girl lady mother daughter sister wife female queen".split())
_YOUNG = frozenset("boy girl child kid baby toddler infant".split())


def _same_person(subject: str, lemma: str) -> bool:
    if (subject in _MALE and lemma in _FEMALE) or (subject in _FEMALE and lemma in _MALE):
        return False
    grown = frozenset(["man", "woman", "adult", "gentleman", "lady"])
    if (subject in _YOUNG and lemma in grown) or (lemma in _YOUNG and subject in grown):
        return False
    generic = frozenset((
    "man woman person people individual human adult child boy girl lady guy figure player "
    "worker performer kid couple friend someone"
).split())  # fmt: skip
    if subject in generic or lemma in generic:
        return True
    return lexicon.entails(subject, lemma) or lexicon.entails(lemma, subject)


@lru_cache(maxsize=20_000)
def _too_general(lemma: str) -> bool:
    return lemma in _LIGHT or lemma in (
        "whole unit entity artifact organism matter structure state being group".split()
    )


_ALPHA = re.compile(r"[a-z]+")


def overlap(original: str, caption: str) -> float:
    """Share of the caption's content words that the original says or implies, in [0, 1]."""
    first, second = analyse(original), analyse(caption)
    words = [t for t in second.content if lemmas(t.lower).isdisjoint(_LIGHT)]
    if not words:
        return 1.0
    new = {finding.start for finding in r4_of(first, second)}
    return 1 - sum(token.start in new for token in words) / len(words)


def nouns(text: str) -> list[str]:
    """Lemmas of a text's nouns in order, light and meta words left out."""
    return [
        token.lemma
        for token in analyse(text).content
        if token.pos in ("NOUN", "PROPN")
        and "NOUN" in (parts_of_speech(token.lower) or {"NOUN"})
        and token.lemma not in _LIGHT
        and token.lemma not in _META
    ]
