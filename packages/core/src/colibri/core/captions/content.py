"""Rules that compare the caption with its original: R2 the main subject stays, R4 nothing new.

Words are compared by lemma; synonyms, kinds above and derivations are entailed, kinds below are
not. Colours, numbers, negation and names are compared by themselves.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
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
    lemmas,
    parts_of_speech,
    sentences,
    tokenize,
)
from colibri.core.captions.surface import r1, r3, r5, r6
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
        "grey": "grey gray charcoal silver greyish grayish silvery",
        "orange": "orange peach",
        "purple": "purple violet lavender lilac magenta purplish",
        "pink": "pink rose fuchsia pinkish",
    }.items()
    for shade in shades.split()
}

_LIGHT = frozenset(
    (
        "be have do make get go come take put keep use appear see look remain stay continue begin "
        "start become wear hold stand show lie hang rest face cover fill surround contain "
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
        "among alone overhead where clad everywhere underneath air ground floor row file heap "
        "pile stack bunch note shape how what that room load contents none cannot nearest sight"
    ).split()
)
"""Words that say too little to be a new detail."""

MATERIALS: dict[str, str] = {
    word: base
    for base, words in {
        "wood": "wood wooden oak pine bamboo timber walnut mahogany teak birch maple cedar",
        "metal": "metal metallic steel iron aluminum aluminium copper brass tin chrome",
        "stone": "stone marble granite brick concrete",
        "plastic": "plastic rubber nylon vinyl",
        "leather": "leather suede",
        "glass": "glass crystal",
        "cloth": "cotton silk wool woolen woollen denim linen velvet lace",
        "paper": "paper cardboard",
        "straw": "straw wicker woven",
    }.items()
    for word in words.split()
}
"""What things are made of."""

_NEGATORS = frozenset(
    "no not without never neither nor none nobody nothing n't cannot hardly barely scarcely".split()
)

_NOT_QUITE = frozenset("almost nearly fail fails failed failing".split())
"""What comes next is not done: `nearly falls`, `fails to open`."""
_HINDER = frozenset("keep prevent stop hinder protect save discourage".split())
"""`keeps the screws from drifting`."""
_HINDERS = frozenset(form for verb in _HINDER for form in (verb, f"{verb}s", f"{verb}ing"))
_DENIERS = _NEGATORS | _NOT_QUITE | _HINDERS

_TWO = frozenset("pair couple both twin twins two duo twice".split())

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
        "time-lapse timelapse slow-motion start middle part series display sense overall "
        "setting style quality tone gameplay compilation tutorial vlog screencast slideshow"
    ).split()
)


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
    own = _lemmas(lower)
    if "-" in lower:
        own = own.union(*(_lemmas(piece) for piece in lower.split("-")))
    telling = own - _META if lower not in _PLAIN_WORDS else frozenset()
    return _Word(
        own,
        frozenset(sense for lemma in telling for sense in lexicon.implied(lemma)),
        frozenset(sense for lemma in telling for sense in lexicon.main_senses(lemma)),
        frozenset(lexicon.stem(lemma) for lemma in own),
    )


@dataclass(frozen=True)
class Text:
    """A text with what both rules need of it, worked out once."""

    text: str
    tokens: tuple[Token, ...]
    words: tuple[_Word, ...]
    """The distinct words."""
    lemmas: frozenset[str]
    content: tuple[Token, ...]
    """Nouns, verbs, adjectives, numbers and names."""
    negated: frozenset[str]
    """Lemmas that follow a negator closely."""
    plain: frozenset[str]
    """Lemmas that stand somewhere without one."""
    attached: dict[str, frozenset[str]]
    """Colours, numbers and opposites said of each noun."""
    loose: frozenset[str]
    """Colours, numbers and opposites that stand before no noun."""

    @cached_property
    def numbers(self) -> frozenset[str]:
        return frozenset(token.lemma for token in self.content if token.pos == "NUM")

    @cached_property
    def marks(self) -> frozenset[str]:
        """Words that have an opposite: not the light of `lights`, not the verb `opens`."""
        return frozenset(
            token.lower
            for token in self.tokens
            if token.lower in _OPPOSITES and token.pos != "VERB"
        )

    @cached_property
    def colours(self) -> frozenset[str]:
        return frozenset(COLOURS[lemma] for lemma in self.lemmas if lemma in COLOURS)

    @cached_property
    def stems(self) -> frozenset[str]:
        return frozenset().union(*(word.stems for word in self.words))

    @cached_property
    def subjects(self) -> list[str]:
        return main_subjects(self)

    @cached_property
    def acts(self) -> list[tuple[str, str, str, Token]]:
        return _acts(self.tokens)

    @cached_property
    def things(self) -> frozenset[str]:
        return frozenset([t.lemma for t in self.content if t.pos == "NOUN"])

    def explains(self, lemma: str) -> bool:
        """Whether a dictionary explains a word of the text by `lemma`, or may be one."""
        return any(
            lemma in _glossed(token.lemma) or lemma in lexicon.rarer_kinds(token.lemma)
            for token in self.content
            if token.pos in ("NOUN", "VERB")
        )

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

    def has_root(self, root: str) -> bool:
        """Whether a lemma of the text begins with a root of five or six letters."""
        return root in self._roots

    @cached_property
    def _roots(self) -> frozenset[str]:
        return frozenset([lemma[:letters] for lemma in self.lemmas for letters in (5, 6)])


@lru_cache(maxsize=64)
def analyse(text: str) -> Text:
    """Work a text out; kept for the last texts."""
    tokens = tokenize(text)
    lowers = {lower for _, lower, _, pos, _, _ in tokens if pos != "PUNCT"}
    words = tuple(map(_word, lowers))
    denies = "n't" in text or "n’t" in text or not _DENIERS.isdisjoint(lowers)
    negated, plain = _denied(tokens) if denies else (frozenset(), _acts_and_things(tokens))
    return Text(
        text,
        tokens,
        words,
        frozenset().union(*[word.lemmas for word in words]),
        tuple([token for token in tokens if token[3] in _OPEN]),
        negated,
        plain,
        *_attached(tokens),
    )


_OPEN = frozenset("NOUN VERB ADJ NUM PROPN ADV".split())
_PLAIN_WORDS = DETERMINERS | PRONOUNS | PREPOSITIONS | CONJUNCTIONS | AUXILIARIES


def _acts_and_things(tokens: Sequence[Token]) -> frozenset[str]:
    acts_and_things = [lemma for _, _, lemma, pos, _, _ in tokens if pos in ("NOUN", "VERB")]
    return frozenset(map(_bare, acts_and_things))


def _denied(tokens: Sequence[Token]) -> tuple[frozenset[str], frozenset[str]]:
    """Lemmas of nouns and verbs that a negator denies, and those that stand without one."""
    negated: set[str] = set()
    plain: set[str] = set()
    since = 99
    for index, token in enumerate(tokens):
        pos = token.pos
        if pos == "PUNCT":
            if token.text in ".,;!?":
                since = 99
            continue
        if token.lower in _NEGATORS or token.lower.endswith("n't"):
            done = token.lower == "nothing" and index and tokens[index - 1].pos == "VERB"
            since = 99 if done else 0
        else:
            since += 1
        if pos in ("NOUN", "VERB"):
            undone = pos == "VERB" and _is_undone(index, tokens)
            (negated if since <= 4 or undone else plain).add(_bare(token.lemma))
            if since <= 4 and not token.lower.endswith("ing"):
                goes_on = index + 1 < len(tokens) and tokens[index + 1].pos == "NOUN"
                since = since if goes_on else 99
    return frozenset(negated), frozenset(plain)


def _is_undone(index: int, tokens: Sequence[Token]) -> bool:
    before = tokens[index - 1].lower if index else ""
    if before == "to" and index > 1:
        return tokens[index - 2].lower in _NOT_QUITE
    if before == "from":
        return any(token.lemma in _HINDER for token in tokens[max(0, index - 7) : index])
    return before in ("almost", "nearly")


@lru_cache(maxsize=100_000)
def _bare(word: str) -> str:
    """A word without its possessive ending."""
    return word.removesuffix("'s").removesuffix("'") or word


@lru_cache(maxsize=100_000)
def _lemmas(word: str) -> frozenset[str]:
    bare = _bare(word)
    found = lemmas(bare)
    if bare.endswith("s") and not bare.endswith("ss") and len(bare) > 3 and len(found) == 1:
        return found | {bare[:-1]}
    return found


def _attached(tokens: Sequence[Token]) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """What each noun is said to be (numbers and `_MARKS`), and what stands by itself."""
    of_noun: dict[str, set[str]] = {}
    loose: set[str] = set()
    waiting: list[str] = []
    for index, (_, lower, lemma, pos, _, _) in enumerate(tokens):
        mark = lemma if pos == "NUM" else _MARKS.get(lower)
        if not mark and not waiting:
            continue
        token = tokens[index]
        following = tokens[index + 1].pos if index + 1 < len(tokens) else "PUNCT"
        plain = token.lower not in MATERIALS and (token.lower != "left" or pos != "VERB")
        if mark and (plain or following == "NOUN"):
            waiting.append(mark)
        elif waiting:
            if pos in ("NOUN", "PROPN"):
                of_noun.setdefault(token.lemma, set()).update(waiting)
                if following != "NOUN":
                    waiting = []
            elif pos not in ("ADJ", "CONJ") and token.text not in (",", "-"):
                loose.update(waiting)
                waiting = []
    loose.update(waiting)
    return {noun: frozenset(marks) for noun, marks in of_noun.items()}, frozenset(loose)


# ---- R4 ----


def r4(*, original: str, caption: str) -> tuple[Finding, ...]:
    """No object, person, action, colour, number, name or negation that the original lacks."""
    return r4_of(analyse(original), analyse(caption))


def r4_of(
    original: Text, caption: Text, *, others: Sequence[Finding] | None = None
) -> tuple[Finding, ...]:
    """R4 on texts that are worked out already; `others`: what R1, R3, R5 and R6 find, if known."""
    found = []
    if others is None:
        pair = {"original": original.text, "caption": caption.text}
        others = [finding for rule in (r1, r3, r5, r6) for finding in rule(**pair)]
    elsewhere = _of_other_rules(others, caption.text)
    cinema = any(finding.rule == "R3" for finding in others)
    for index, token in enumerate(caption.tokens):
        span = next((s for s in elsewhere if s[0] <= token.start < s[1]), None)
        if span:
            theirs = token.lemma == "family" and caption.tokens[index - 1].lower in _THEIRS
            being = theirs or (token.pos == "NOUN" and _is_being(token.lemma))
            if token.start >= span[2] and being:
                finding = _new_word(index, token, original, caption)
                found += [finding] if finding else []
            continue
        if cinema and token.lemma in _CINEMA:
            continue
        if token.pos in ("PUNCT", "DET", "PRON", "ADP", "CONJ", "AUX"):
            if token.lower in _OPPOSITES:
                found += _opposed(token, original)
            if token.lower in ("no", "without", "not", "never") or token.lower.endswith("n't"):
                found += _new_negation(index, original, caption)
            if token.lower in ("nothing", "nobody") and _EMPTY.isdisjoint(original.lemmas):
                found.append(_new(token, f"{token.text!r} denies what the original tells"))
            continue
        if token.lower in ("not", "never"):
            found += _new_negation(index, original, caption)
            continue
        if index and caption.tokens[index - 1].lower in ("without", "no"):
            continue
        finding = _new_word(index, token, original, caption)
        if finding:
            found.append(finding)
        elif token.pos in ("NOUN", "PROPN"):
            found += _misattached(token, original, caption)
    return (*found, *_swapped(original, caption))


_EMPTY = _NEGATORS | frozenset("empty emptyhanded empty-handed deserted alone only bare".split())


def _of_other_rules(others: Sequence[Finding], caption: str) -> list[tuple[int, int, int]]:
    """Spans that break R1, R3, R5 or R6: what they say is not content. Analysis goes on to the end
    of its clause; what it says begins at the third place, where it may name somebody new."""
    spans = []
    for finding in others:
        if finding.rule not in ("R1", "R3", "R5", "R6"):
            continue
        if finding.start is None or finding.end is None:
            continue
        start, end = _SPAN_OF[finding.rule](finding, caption)
        told = finding.end if finding.rule == "R5" else end
        spans.append((start, end, told))
    return spans


def _span_of_opening(finding: Finding, caption: str) -> tuple[int, int]:
    """To the medium that it names, if that follows closely: `It is a sports video in which`."""
    assert finding.start is not None
    assert finding.end is not None
    medium = _MEDIUM.match(caption, finding.end) or _COLON.match(caption, finding.end)
    return finding.start, medium.end() if medium else finding.end


def _span_of_craft(finding: Finding, caption: str) -> tuple[int, int]:
    """The phrase around it: `in grainy sepia tones like an old newsreel`."""
    assert finding.start is not None
    assert finding.end is not None
    start, end = finding.start, finding.end
    recording = _RECORDING.search(finding.text)
    stop = (_RECORDED if recording else _PHRASE_END).search(caption, end)
    end = stop.start() if stop else len(caption)
    opener = max((m.start() for m in _PHRASE_START.finditer(caption, 0, start + 1)), default=start)
    lead = _LEADING.search(caption, 0, start)
    if lead:
        start = lead.start()
    return min(start, opener) if start - opener < _NEAR else start, end


def _span_of_comment(finding: Finding, caption: str) -> tuple[int, int]:
    """Its clause, or what the brackets hold."""
    assert finding.start is not None
    assert finding.end is not None
    start, end = finding.start, finding.end
    bracket = caption.rfind("(", 0, start + 1)
    if bracket >= 0 and ")" not in caption[bracket:start]:
        close = caption.find(")", start)
        return bracket, close if close >= 0 else len(caption)
    stop = _CLAUSE_END.search(caption, end)
    opener = max((m.end() for m in _CLAUSE_START.finditer(caption, 0, start + 1)), default=start)
    return min(start, opener), stop.start() if stop else len(caption)


def _span_of_teller(finding: Finding, caption: str) -> tuple[int, int]:
    """`our hero`, `a colleague of mine`, and the clause whose subject is `I`."""
    assert finding.start is not None
    assert finding.end is not None
    start, end = finding.start, finding.end
    word = finding.text.lower()
    if word in ("my", "our"):
        thing = _OWNED.match(caption, end)
        return start, thing.end() if thing else end  # "Our hero, a cartoon rabbit,"
    if word.startswith(("i", "we")):
        stop = _CLAUSE_END.search(caption, end)
        return start, stop.start() if stop else len(caption)
    if word.endswith("mine"):
        owned = _OF_MINE.search(caption, 0, start)
        return owned.start() if owned else start, end
    return start, end


_SPAN_OF = {
    "R1": _span_of_opening,
    "R3": _span_of_craft,
    "R5": _span_of_comment,
    "R6": _span_of_teller,
}
_MEDIUM = re.compile(
    r"(?:[^\S\n]+[\w'’-]+){0,3}?\s+(?:video|clip|footage|recording|film|scene|animation)\b",
    re.IGNORECASE,
)
_COLON = re.compile(r"[^:,.]{0,30}:")
_OWNED = re.compile(
    r"(?:\s+[\w'’-]+){1,2}?(?=,\s+(?:an?|the|one|two|three)\s)|"
    r"\s+(?:side|end|part|half|corner|bank)\s+of\s+(?:(?:the|a)\s+)?\w+"
)
_OF_MINE = re.compile(r"(?:[\w'’-]+\s+){1,2}$")
_PHRASE_END = re.compile(
    r"[.,;!?]|\s(?:while|as|before|then|and\s+(?:the|a|an|his|her)|until|who|where)\s"
)
_PHRASE_START = re.compile(
    r"\b(?:in|with|under|through|from|by|as|while|and|at|against|to)\s|[,;.]"
)
_NEAR = 40
"""Characters between the start of a phrase and the words on filming in it."""
_CLAUSE_START = re.compile(r"[.,;:(–—]|\s(?:and|but|so|while|because|who|which|whose)\s")


@lru_cache(maxsize=20_000)
def _is_being(lemma: str) -> bool:
    """Whether an analysis that names it adds somebody or something that happens to them."""
    return lemma in _KIN or lexicon.is_first(lemma, "animal") or _is_telling_act(lemma)


_THEIRS = frozenset("his her their".split())
_KIN = frozenset(
    "mother father parent wife husband son daughter brother sister grandmother grandfather uncle "
    "aunt cousin friend boyfriend girlfriend lover fiance fiancee enemy boss king queen "
    "ghost".split()
)


_RECORDING = re.compile(r"\b(?:camera|zoom|shot on|shot in|filmed|footage)", re.IGNORECASE)
_RECORDED = re.compile(r"[.,;!?]|\s(?:of|while|as)\s")
_CLAUSE_END = re.compile(r"[.,;!?]")

_LEADING = re.compile(r"(?:(?<=\s)(?:long|short|single|slow|smooth|bathed|shot|in|a|an|the)\s+)+$")

_CINEMA = frozenset(
    (
        "pan zoom tilt track dolly focus blur depth field shallow cinematic lens angle handheld "
        "bokeh aerial overhead low high wide static steady slow crane lighting exposure grade fade "
        "dissolve transition cut orbit sweep filmed film shoot capture frame bird eye level 4k hd "
        "resolution crisp sharp grain contrast soft smooth medium two-shot long extreme tracking "
        "panning "
        "blurred"
    ).split()
)


def _new_word(index: int, token: Token, original: Text, caption: Text) -> Finding | None:
    lower = _bare(token.lower)
    if token.pos == "NUM":
        return _new_number(index, token, original, caption)
    if lower in COLOURS:
        if COLOURS[lower] in original.colours or lower in original.lemmas:
            return None
        return _new(token, f"colour {lower!r} is not in the original")
    following = caption.tokens[index + 1] if index + 1 < len(caption.tokens) else _END
    if lower in _READS and (following.text in _QUOTE_MARKS or following.pos == "NUM"):
        return None
    own = _lemmas(lower)
    if _turns_out(index, token, original, caption):
        return _new(token, f"{lower!r} is not how it ends in the original")
    if not own.isdisjoint(original.lemmas):
        return _flipped(index, token, original, caption)
    if following.lower in COLOURS and lower in _SHADES:
        return None
    filled = lower in ("full", "front") and following.lower == "of"
    opposed = [] if filled else _opposed(token, original)
    if opposed:
        return opposed[0]
    if not own.isdisjoint(_META) and token.pos == "NOUN":
        return None
    if lower in _PERSONS:
        if _is_said_of_someone(lower, original):
            return None
        uncertain = _YOUTH.issuperset((lower,)) and not _YOUTHS.isdisjoint(original.lemmas)
        return _new(token, f"person {lower!r} is not in the original", ambiguous=uncertain)
    if following.lower == "of" and lower in _PARTS:
        return None
    if not own.isdisjoint(_LIGHT) or (following.lower == "of" and not own.isdisjoint(_GROUPS)):
        return None
    if token.pos == "ADV":
        return _new_manner(token, lower, original)
    if lower.endswith("less") and len(lower) > 6:
        if lower[:-4] in original.negated or own & _STATES:
            return None
        return _new(token, f"{lower!r} denies something that the original does not")
    if token.pos == "PROPN" and not lexicon.known(lower):
        if lower in original.text.lower():
            return None
        return _new(token, f"the name {token.text!r} is not in the original")
    if "-" in lower and _pieces_known(lower, original):
        return None
    if token.pos in ("NOUN", "PROPN") and _is_compound(own, original):
        return None
    if not own.isdisjoint(_COLLECTIVES) and any(
        _is_plural(other) for other in original.content if lexicon.is_first(other.lemma, "person")
    ):
        return None
    readings = _readings(index, token, caption)
    if any(_implied(own, pos, original) for pos in readings):
        return None
    if not any(lexicon.known(lemma) for lemma in own) and token.pos != "NOUN":
        return None
    kind = {"NOUN": "thing", "PROPN": "name", "VERB": "action", "ADJ": "detail"}[token.pos]
    if "-" in lower and lower.rpartition("-")[2].removesuffix("ed") in _BODY_PARTS:
        return _new(token, f"detail {lower!r} is not in the original", ambiguous=True)
    acts = "VERB" in readings or not _is_concrete(token.lemma)
    if following.lemma in ("worker", "work") and not _is_concrete(token.lemma):
        return None  # construction workers
    plain = (
        (acts and any(map(_is_telling_act, own)))
        or (token.lemma in _MISHAPS and _is_mishap(index, caption))
        or all(_is_plain(token, pos) for pos in readings)
    )
    if plain:
        plain = not _may_be_subject(token, original, caption) and not (
            _is_explained(token, original)
        )
    elif token.pos in ("NOUN", "VERB"):
        plain = _is_added(index, token, readings, original, caption)
    plain = plain or _is_reverse(index, readings, original, caption)
    plain = plain or _takes_place_of(index, token, original, caption)
    return _new(token, f"{kind} {lower!r} is not in the original", ambiguous=not plain)


def _is_reverse(index: int, readings: Sequence[str], original: Text, caption: Text) -> bool:
    """Whether the original has the opposite act, which the caption leaves out: `retreat` for
    `advance`, `shakes his head` for `nods`."""
    lemma = caption.tokens[index].lemma
    if "VERB" not in readings:
        return False
    if lemma == "shake" and "head" in [t.lemma for t in caption.tokens[index : index + 4]]:
        lemma = "shake_head"
    against = _OPPOSITE_ACTS.get(lemma, frozenset()) & original.plain
    return bool(against) and against.isdisjoint(caption.lemmas)


def _takes_place_of(index: int, token: Token, original: Text, caption: Text) -> bool:
    """Whether another thing fills the same place in the original: `the tail of a shark` for `the
    fin of a shark`, `a heart appears` for `a fern appears`."""
    tokens = caption.tokens
    if token.pos != "NOUN" or token.lower != token.lemma or index + 2 >= len(tokens):
        return False
    if _is_person(token.lemma):
        return False
    following = tokens[index + 1]
    if following.lower == "of" and token.lemma in _BODY_PARTS:
        whole = next((t.lemma for t in tokens[index + 2 : index + 6] if t.pos == "NOUN"), "")
        places = [
            first
            for first, of, *rest in _windows(original, 6)
            if of.lower == "of" and whole in [t.lemma for t in rest]
        ]
    elif following.pos == "VERB" and index and tokens[index - 1].lower in ("a", "an"):
        places = [
            first for first, verb, *_ in _windows(original, 3) if verb.lemma == following.lemma
        ]
    else:
        return False
    named = [first.lemma for first in places if first.pos == "NOUN"]
    return bool(named) and not any(
        lemma in caption.lemmas or lexicon.entails(lemma, token.lemma) for lemma in named
    )


def _windows(text: Text, length: int) -> Iterator[tuple[Token, ...]]:
    return zip(*(text.tokens[shift:] for shift in range(length)), strict=False)


_OPPOSITE_ACT_PAIRS = (
    "advance retreat,nod shake_head,push pull,open close,lift lower,raise lower,rise sink,"
    "enter leave,enter exit,accept refuse,accept reject,win lose,catch miss,buy sell,tie untie,"
    "load unload,lock unlock,light extinguish,ascend descend,accelerate brake,inhale exhale,"
    "smile frown,inflate deflate,fold unfold,wrap unwrap,zip unzip,button unbutton,plug unplug,"
    "screw unscrew,arrive depart,mount dismount,attach detach,tighten loosen,start stop,"
    "laugh cry,sit stand,applaud boo,freeze melt"
)
_OPPOSITE_ACTS: dict[str, frozenset[str]] = {}
for _pair in _OPPOSITE_ACT_PAIRS.split(","):
    for _one, _other in (_pair.split(), reversed(_pair.split())):
        _OPPOSITE_ACTS[_one] = _OPPOSITE_ACTS.get(_one, frozenset()) | {_other}


@lru_cache(maxsize=20_000)
def _glossed(lemma: str) -> frozenset[str]:
    """Lemmas of the words by which a dictionary explains a lemma."""
    return frozenset().union(*map(lemmas, lexicon.glossed(lemma)))


def _is_explained(token: Token, original: Text) -> bool:
    """Whether the dictionary links a word to the original: a mural is on a `wall`."""
    lemma = token.lemma
    if lemma in _TELLING_LOOKS or lemma in MATERIALS or lemma in _TELLING_NOUNS:
        return False
    if _is_telling_act(lemma) or token.pos == "PROPN":
        return False
    if original.explains(lemma):
        return True
    return any(
        not _is_vague(link) and not lexicon.kind_of(lemma, link)
        for link in _glossed(lemma) & original.things
    )


@lru_cache(maxsize=20_000)
def _is_vague(lemma: str) -> bool:
    return lemma in _LIGHT or lemma in _BODY_PARTS or lemma in _VAGUE


_VAGUE = frozenset(
    "water metal animal food building man woman garment clothing vehicle child".split()
)
"""Words that explain too many others."""


def _is_added(
    index: int, token: Token, readings: Sequence[str], original: Text, caption: Text
) -> bool:
    """Whether a word stands for nothing in the original: all that it may name is named."""
    lemma = token.lemma
    if _is_explained(token, original) or lemma in _BODY_PARTS:
        return False
    if readings == ("NOUN",):
        if not any(lexicon.may_be(lemma, kind) for kind in ("object", "matter")):
            return False
        return not _vacant(("NOUN",), index, original, caption)
    if "VERB" in readings and token.pos == "VERB" and not token.lower.endswith(("ed", "ing")):
        if _is_everyday(lemma):
            return False
        return not _vacant(("NOUN", "VERB"), index, original, caption)
    return False


_EVERYDAY = (
    "move travel change touch be have stand put show use express happen communicate announce learn"
).split()
"""Verbs whose kinds a paraphrase brings along."""


@lru_cache(maxsize=20_000)
def _is_everyday(lemma: str) -> bool:
    return any(lexicon.is_first(lemma, kind, pos="VERB") for kind in _EVERYDAY)


def _vacant(pos: tuple[str, ...], index: int, original: Text, caption: Text) -> bool:
    """Whether the sentences that a caption tells of here have a noun or verb that it does not."""
    near = caption.tokens[max(0, index - _AROUND) : index + _AROUND]
    named = frozenset(t.lemma for t in near if t.pos in ("NOUN", "VERB", "ADJ", "PROPN"))
    spans = sentences(original.tokens)
    shared = [
        len(named.intersection([t.lemma for t in original.tokens[start:end]]))
        for start, end in spans
    ]
    told = [
        span
        for span, count in zip(spans, shared, strict=True)
        if count and count >= max(shared) - 1
    ]
    return any(
        token.pos in pos
        and not (token.pos == "NOUN" and token.lower.endswith("ing"))
        and token.lemma not in caption.lemmas
        and token.lemma not in _META
        and token.lemma not in _LIGHT
        and not _is_named(token, caption)
        for start, end in told or spans
        for token in original.tokens[start:end]
    )


_AROUND = 8
"""Words before and behind."""


def _is_named(token: Token, caption: Text) -> bool:
    """Whether the caption names a thing or act of the original, if by another word."""
    own = _lemmas(token.lower)
    if not own.isdisjoint(caption.lemmas) or _implied(own, token.pos, caption):
        return True
    up = lexicon.implied(token.lemma)
    return any(
        other.pos == token.pos and not lexicon.main_senses(other.lemma, other.pos).isdisjoint(up)
        for other in caption.content
    )


_AIMS = frozenset("target center centre bullseye goal basket hoop net hole ball pin".split())
_SUCCESS = frozenset("hit score sink pot catch reach".split())
_FAILURE = frozenset("miss outside wide short fail past".split())


def _turns_out(index: int, token: Token, original: Text, caption: Text) -> bool:
    """`hits the center of the target` where the original has it land outside."""
    if token.lemma not in _SUCCESS or token.pos not in ("VERB", "NOUN"):
        return False
    if token.lemma in original.lemmas or "without" in caption.lemmas:
        return False
    aims = _AIMS.intersection(t.lemma for t in caption.tokens[index + 1 : index + 5])
    return any(
        first.lemma in _FAILURE and not aims.isdisjoint(t.lemma for t in follow)
        for first, *follow in zip(*(original.tokens[shift:] for shift in range(5)), strict=False)
    )


_QUOTE_MARKS = frozenset("\"“'‘")
_READS = frozenset(
    "read reads reading say says saying bear bears bearing state states stating spell spells "
    "spelling labelled labeled marked titled inscribed printed".split()
)
_PARTS = frozenset(
    "bed base foot mouth bank edge surface tip rim side head neck body shore brink slope peak "
    "summit "
    "interior exterior entrance start middle floor expanse stretch patch strip sheet field layer "
    "blanket "
    "cloud drop drops trickle trail plume burst spray splash lump handful mouthful spoonful "
    "bowlful spread "
    "sound sounds pieces chunks lumps strands sheets rows layers drops waves plumes petals "
    "grains".split()
)
"""`the bed of a river`: no more is said than by the river."""
_SHADES = frozenset("light dark bright pale deep neon vivid".split())
_STATES = frozenset("motionless weightless cordless seamless".split())


def _readings(index: int, token: Token, caption: Text) -> tuple[str, ...]:
    """Parts of speech that a word may have here: the tagger cannot be sure of `records`."""
    if token.pos not in ("NOUN", "VERB"):
        return (token.pos,)
    if "ADJ" in parts_of_speech(token.lower) and lexicon.mainly_adjective(token.lower):
        return ("ADJ",)
    other = "VERB" if token.pos == "NOUN" else "NOUN"
    if other not in parts_of_speech(token.lower):
        return (token.pos,)
    before = caption.tokens[index - 1] if index else _END
    if token.lower.endswith("s") and _is_counted(index, caption.tokens):
        return ("NOUN",)
    if token.pos == "NOUN" and (
        before.pos in ("DET", "ADJ", "NUM", "ADP", "VERB") or before.lower == "of"
    ):
        return ("NOUN",)
    if token.pos == "NOUN" and before.pos == "NOUN" and token.lower == token.lemma:
        return ("NOUN",)  # "a coffee table"; a verb would have its ending
    if token.pos == "VERB" and token.lower.endswith("ing"):
        return ("VERB",)
    acts = token.lower.endswith("s") and (
        before.pos in ("NOUN", "PROPN") or before.lower.endswith("ing")
    )
    if token.pos == "NOUN" and lexicon.mainly_noun(token.lemma) and not acts:
        return ("NOUN",)
    return ("NOUN", "VERB")


def _is_counted(index: int, tokens: Sequence[Token]) -> bool:
    """Whether a number waits for a plural noun: `two penalty kicks`."""
    for token in reversed(tokens[max(0, index - 3) : index]):
        if token.pos == "NUM" or token.lower in ("several", "many", "few"):
            return token.lemma != "1"
        if token.pos not in ("NOUN", "ADJ") or _is_plural(token):
            return False
    return False


def _is_plain(token: Token, pos: str) -> bool:
    """Whether a word that the original does not imply is surely a new detail.

    Things, people, places, weather, telltale acts and looks are; what a paraphrase may bring
    along (acts of handling and moving, events, abstractions, parts of a body) is left to a judge.
    """
    lemma = token.lemma
    if pos == "VERB":
        return False
    if pos == "ADJ":
        return token.lower in _TELLING_LOOKS or token.lower in MATERIALS
    if pos == "PROPN":
        return True
    if lemma in _TELLING_NOUNS or lemma in MATERIALS or not lexicon.known(lemma):
        return True
    return _is_concrete(lemma)


@lru_cache(maxsize=20_000)
def _is_concrete(lemma: str) -> bool:
    first = "object matter nutrient weather storm athletics organization fire sea lake stream"
    second = "container structure weapon decoration vehicle garment furniture animal"
    if lemma in _BODY_PARTS:
        return False
    return any(lexicon.is_first(lemma, kind) for kind in first.split()) or any(
        lexicon.kind_of(lemma, kind) for kind in second.split()
    )


_TELLING_ACTS = frozenset(
    (
        "applaud argue arrest bark bathe beg bite bleed brush burn bury celebrate chase cheer chew "
        "chop feed "
        "clap collapse comb cough crash crawl cry dance die dig draw drink drown eat embroider "
        "explode faint fight fish gallop grill growl hail howl hug hunt hurt injure jog juggle "
        "kick kiss kneel knit laugh lick load march massage meditate melt milk miss mop nap paint "
        "photograph pray protest punch quarrel race read repair ride roar rob run salute scream "
        "sew shave shoot shout sing sip skate sketch ski slap sleep smile smoke sneeze snore "
        "snow sob splash stab steal strum surf swallow swim text thunder vacuum vomit wave weep "
        "whisper whistle win wink wrestle yawn yell"
    ).split()
)
"""Acts too telling for a paraphrase to bring in by the way."""

_TELLING_KINDS = "injure hurt kill destroy damage attack fight steal love hate fear collide flee"


@lru_cache(maxsize=20_000)
def _is_telling_act(lemma: str) -> bool:
    return lemma in _TELLING_ACTS or any(
        lexicon.is_first(lemma, kind, pos="VERB") for kind in _TELLING_KINDS.split()
    )


_TELLING_LOOKS = frozenset(
    (
        "unhappy upset "
        "young old elderly aged teenage middle-aged adult adolescent newborn pregnant female "
        "male happy sad angry tired exhausted scared frightened worried nervous bored lonely "
        "proud sick injured wounded drunk naked blind barefoot shirtless bald bearded mustached "
        "curly wavy straight blonde blond freckled muscular slim slender skinny fat chubby tall "
        "short tattooed striped plaid checkered checked floral dotted polka-dot sequined "
        "leopard camouflage wooden metal plastic rusty broken torn dirty muddy dusty wet frozen "
        "burnt burning cracked rotten ripe ruined abandoned empty crowded sunny rainy snowy "
        "foggy misty cloudy overcast stormy windy starry moonlit tropical rural medieval "
        "ancient modern futuristic digital electric military royal religious professional "
        "famous foreign asian african american european indian chinese japanese french italian "
        "german british spanish mexican expensive luxury antique vintage spicy fried grilled "
        "raw chocolate wild giant huge enormous tiny three-piece sleeveless transparent square "
        "triangular oval round persian siamese siberian"
    ).split()
)
"""How things and people look, when no paraphrase would bring it along."""

_TELLING_NOUNS = frozenset(
    (
        "music song noise thunder sound fight accident parade festival war battle race beard "
        "mustache moustache tattoo scar ponytail braid wig graffiti family gang army christmas "
        "birthday party poem sword morning afternoon evening night midnight noon dawn dusk "
        "sunrise sunset winter summer autumn spring rainbow mist fog smoke sunlight lightning "
        "prayer injection applause laughter"
    ).split()
)


_MISHAPS = frozenset("fall drop spill trip slip stumble".split())


def _is_mishap(index: int, caption: Text) -> bool:
    """Whether somebody falls, or drops something: `a player falls`, not `sunlight falls`."""
    tokens = caption.tokens
    following = tokens[index + 1] if index + 1 < len(tokens) else _END
    if tokens[index].lemma in ("drop", "spill"):
        return following.pos in ("DET", "PRON") or following.lower in ("his", "her", "its")
    before = tokens[index - 1] if index else _END
    if before.lower in ("and", "then", ","):
        start = next(s for s, e in sentences(tokens) if s <= index < e)
        who = _first_head(tokens[start:index])
        return who is not None and _alive(who)
    return _alive(before.lemma)


def _may_be_subject(token: Token, original: Text, caption: Text) -> bool:
    """Whether a new word for a person may stand for the main subject, under another name."""
    lemma = _bare(token.lemma)
    if token.pos != "NOUN" or not lexicon.is_first(lemma, "person"):
        return False
    subjects = [s for s in original.subjects if _is_human(s, original)]
    if lemma in _ANYONE and (
        len(_people(original)) > bool(subjects)
        or original.numbers
        or not _FURTHER.isdisjoint(original.lemmas)
    ):
        return True
    if not subjects or grounding(original, caption) < 0.5:
        return False
    if any(_mentions(caption, subject, original, named=True) for subject in subjects):
        return False
    return any(_compatible(subject, lemma) for subject in subjects)


_ANYONE = frozenset(
    (
        "colleague companion partner participant member individual employee viewer attendee rival "
        "opponent "
        "competitor contestant neighbor neighbour counterpart handler owner keeper operator "
        "customer client "
        "shopper buyer guest visitor diner passenger commuter traveler traveller pedestrian "
        "passerby onlooker "
        "bystander spectator listener fan supporter defender attacker teammate classmate "
        "schoolmate coworker "
        "helper assistant aide pal buddy relative sibling parent user wearer bearer leader speaker "
        "performer "
        "entertainer worker staff crewman sailor crew figure character hero beginner novice expert "
        "professional veteran senior elder adult grownup youth youngster other student pupil rider "
        "instructor coach professor trainer server attendant clerk seller"
    ).split()
)


_FURTHER = frozenset("second third another other".split())


def _people(text: Text) -> set[str]:
    named = {_bare(t.lemma) for t in text.content if t.pos == "NOUN"}
    return {lemma for lemma in named if _is_person(lemma)}


def grounding(original: Text, caption: Text) -> float:
    """Share of the caption's nouns, verbs and adjectives that the original has or implies."""
    told = [
        token
        for token in caption.content
        if token.pos not in ("NUM", "ADV") and _lemmas(token.lower).isdisjoint(_LIGHT)
    ]
    held = sum(
        not (own := _lemmas(token.lower)).isdisjoint(original.lemmas)
        or _implied(own, token.pos, original)
        for token in told
    )
    return held / len(told) if told else 0.0


def _implied(own: frozenset[str], pos: str, original: Text) -> bool:
    for lemma in own:
        if not lexicon.peers(lemma).isdisjoint(original.lemmas):
            return True
        if not lexicon.grounds(lemma).isdisjoint(original.lemmas):
            return True
        if original.implies(lexicon.main_senses(lemma, pos)):
            return True
        if original.says(lexicon.senses(lemma, pos)):
            return True
        if pos == "VERB" and original.says(lexicon.narrower_verb(lemma)):
            return True
        if lemma.endswith(("ist", "er", "or")) and len(lemma) > 5:
            root = lemma[:-3] if lemma.endswith("ist") else lemma[:-2]
            if not lexicon.peers(root).isdisjoint(original.lemmas):
                return True
            if any(word.startswith(root) for word in original.lemmas):
                return True
        if lexicon.stem(lemma) in original.stems:
            return True
        if _shares_root(lemma, original, letters=6 if pos == "NOUN" else 5):
            return True
    return False


def _shares_root(lemma: str, original: Text, *, letters: int) -> bool:
    """`coastal` after `coastline`, `assembly` after `assemble`."""
    root = lemma[:letters]
    return len(root) == letters and original.has_root(root)


def _is_compound(own: frozenset[str], original: Text) -> bool:
    """`skatepark` for `skate park`, `board` for `whiteboard`, `schoolboy` for `boy`."""
    for lemma in own:
        for cut in range(3, len(lemma) - 2):
            head, tail = lemma[:cut], lemma[cut:]
            if tail in original.lemmas:
                if all(lexicon.is_first(word, "person") for word in (tail, lemma)):
                    return True
                if any(word.startswith(head) for word in original.lemmas):
                    return True
        if len(lemma) < 3:
            continue
        for word in [word for word in original.lemmas if lemma in word]:
            rest = word.removesuffix(lemma)
            if rest == word and len(lemma) >= 5:
                rest = word.removeprefix(lemma)
            if rest != word and len(rest) >= 3 and lexicon.known(rest):
                return True
    return False


def _pieces_known(word: str, original: Text) -> bool:
    return all(
        not (own := _lemmas(piece)).isdisjoint(original.lemmas)
        or not own.isdisjoint(_LIGHT)
        or piece in _JOINTS
        or COLOURS.get(piece, "") in original.colours
        or (piece in COLOURS and not _tints(word).isdisjoint(original.colours))
        or _implied(own | {piece.removesuffix("ed")}, "ADJ", original)
        for piece in word.split("-")
        if piece
    )


def _tints(word: str) -> set[str]:
    """The colours of a mixed shade: `blue-green`."""
    pieces = word.split("-")
    return {COLOURS[p] for p in pieces} if all(p in COLOURS for p in pieces) else set()


_JOINTS = frozenset(
    (
        "like up off in to of on clad old year half built made bound haired shaped covered "
        "coloured colored sized eyed legged sleeved filled lined lit open air looking style "
        "based wide long full well hand held"
    ).split()
)
"""Pieces of compounds that say little by themselves."""


def _new_manner(token: Token, lower: str, original: Text) -> Finding | None:
    """A new manner: telling when it is a temper (`angrily`), else left to a judge."""
    adjective = lower.removesuffix("ly")
    if adjective == lower:
        return None
    if adjective.endswith("i"):
        adjective = adjective[:-1] + "y"
    if not lexicon.known(adjective) or _implied(_lemmas(adjective), "ADJ", original):
        return None
    if adjective in original.lemmas or adjective not in _TEMPERS:
        return None
    return _new(token, f"manner {lower!r} is not in the original")


_TEMPERS = frozenset(
    (
        "angry furious sad happy joyful cheerful nervous anxious proud lazy greedy rude bitter "
        "desperate frantic fierce violent aggressive passionate tender loving playful eager "
        "excited enthusiastic shy reluctant impatient confident brave drunk sleepy tired hungry "
        "wild clumsy graceful elegant loud noisy skilful skillful expert secret"
    ).split()
)


def _is_said_of_someone(word: str, original: Text) -> bool:
    """Whether the original has a person who is surely a `word`, by noun or by pronoun."""
    if not _PERSONS[word].isdisjoint(original.lemmas):
        return True
    if word in ("man", "woman") and not original.lemmas.isdisjoint(_PAIRS):
        return True
    if word in ("man", "men", "woman", "women"):
        suffix = "woman" if word.startswith("w") else "man"
        own = [w for w in original.lemmas if w.endswith(suffix) and len(w) > len(suffix) + 2]
        if any(suffix == "woman" or not w.endswith("woman") for w in own):
            return True
        if word in ("man", "woman"):
            pronouns = ("he", "him", "his") if word == "man" else ("she", "her")
            named = _MALE if word == "man" else _FEMALE
            if any(pronoun in original.lemmas for pronoun in pronouns):
                return (named - _YOUNG).isdisjoint(original.lemmas)
    if word in ("boy", "girl") and not _MINORS.isdisjoint(original.lemmas):
        return not original.lemmas.isdisjoint(("he", "his") if word == "boy" else ("she", "her"))
    if word in ("child", "children", "kid", "kids"):
        return any(w in original.lemmas for w in ("schoolboy", "schoolgirl", "teenager"))
    return False


_PERSONS: dict[str, frozenset[str]] = {
    form: frozenset(said.split())
    for forms, said in {
        "man men": "legionary centurion samurai man guy gentleman fellow male father husband "
        "grandfather uncle groom king monk "
        "waiter grandpa dad chap bloke sir emperor prince actor",
        "woman women": "woman lady female mother wife grandmother aunt bride queen waitress "
        "actress nun grandma mom mum princess businesswoman ballerina",
        "lady ladies": "woman lady female mother wife grandmother bride queen",
        "boy boys": "boy son lad schoolboy",
        "girl girls": "girl daughter schoolgirl lass",
        "child children kid kids": "child kid boy girl toddler baby infant son daughter youngster "
        "youth schoolboy schoolgirl pupil",
        "male": "man boy gentleman male father he him his king groom son husband brother grandson",
        "female": "woman girl lady female mother she her queen bride daughter wife sister",
        "baby infant": "baby infant newborn calf cub puppy kitten chick lamb foal",
    }.items()
    for form in forms.split()
}
"""Words for people by sex and age, with the words that imply each."""

_PAIRS = frozenset("couple bride groom newlywed parent spouse".split())
"""One of them is a man and the other a woman, as a rule."""
_MINORS = frozenset("child kid toddler baby infant teenager teen pupil student".split())
_YOUTH = frozenset("boy boys girl girls child children kid kids".split())
_YOUTHS = frozenset("teenager teen teenage student pupil youth".split())

_OPPOSITE_PAIRS = (
    "long short,straight curly,large small,big small,big little,large little,huge tiny,tall short,"
    "young old,young elderly,old new,wet dry,open closed,slow fast,slowly quickly,slowly rapidly,"
    "light dark,bright dark,bright dim,day night,left right,inside outside,indoors outdoors,"
    "indoor outdoor,upward downward,upstream downstream,forward backward,forwards backwards,"
    "clean dirty,empty full,smooth rough,hot cold,warm cold,thick thin,wide narrow,calm rough,"
    "bicycle motorcycle,bicycle motorbike,bike motorcycle,morning evening,morning night,"
    "morning afternoon,evening afternoon,afternoon night,sunrise sunset,dawn dusk,sunrise dusk,"
    "dawn sunset,upper lower,single double,single dual,dual triple,double triple,top bottom,"
    "younger older,youngest oldest,taller shorter,larger smaller,bigger smaller,inner outer,"
    "front rear,front hind,fore hind,"
    "summer winter,summer autumn,spring autumn,spring winter,winter autumn,"
    "clear cloudy,sunny cloudy,sunny rainy,crowded empty,crowded deserted,clockwise "
    "counterclockwise,shallow deep,smooth bumpy,lush dry,sleeveless long-sleeved,heavy light"
)
_OPPOSITES: dict[str, frozenset[str]] = {}
for _pair in _OPPOSITE_PAIRS.split(","):
    for _one, _other in (_pair.split(), reversed(_pair.split())):
        _OPPOSITES[_one] = _OPPOSITES.get(_one, frozenset()) | {_other}


_MARKS = {word: word for word in _OPPOSITES} | MATERIALS | COLOURS
"""A word's colour or material, or itself where it has an opposite."""


def _opposed(token: Token, original: Text) -> list[Finding]:
    """A word whose opposite is all that the original has."""
    against = _OPPOSITES.get(token.lower)
    if not against or token.pos == "VERB" or token.lower in original.lemmas:
        return []
    said = sorted(against & original.marks)
    if not said or not lexicon.peers(token.lower).isdisjoint(original.lemmas):
        return []
    return [_new(token, f"{token.lower!r} where the original says {said[0]!r}")]


def _misattached(token: Token, original: Text, caption: Text) -> list[Finding]:
    """A colour, number or opposite that the original gives to another noun than the caption."""
    claimed = caption.attached.get(token.lemma)
    said = original.attached.get(token.lemma)
    if not claimed or not said:
        return []
    for mark in claimed - said - original.loose:
        against = said & _rivals(mark, said)
        if against and (
            mark in _STUFF or mark in original.colours | original.lemmas | original.numbers
        ):
            return [_new(token, f"{mark} {token.lower!r} is {min(against)} in the original")]
    return []


_HUES = frozenset(COLOURS.values())
_STUFF = frozenset(MATERIALS.values())


def _rivals(mark: str, said: frozenset[str]) -> frozenset[str]:
    """Marks that a thing with this mark cannot have as well."""
    for rivals in (_HUES, _STUFF):
        if mark in rivals:
            return rivals
    return _OPPOSITES.get(mark) or _numbers_but(mark, said)


def _numbers_but(mark: str, said: frozenset[str]) -> frozenset[str]:
    if not mark.isdigit() or mark == "1":
        return frozenset()
    return frozenset(other for other in said if other.isdigit() and other not in ("1", mark))


def _swapped(original: Text, caption: Text) -> list[Finding]:
    """Who does what to whom, turned around: `a girl pushes a man` for `a man pushes a girl`."""
    claimed = caption.acts
    if not claimed:
        return []
    said = {act[:3] for act in original.acts}
    return [
        _new(verb, f"{who!r} and {whom!r} have changed places")
        for who, what, whom, verb in claimed
        if (whom, what, who) in said and (who, what, whom) not in said
    ]


def _acts(tokens: Sequence[Token]) -> list[tuple[str, str, str, Token]]:
    """(who, verb, whom, the verb) for living things on both sides of an active verb."""
    found = []
    who: str | None = None
    verb: Token | None = None
    for index, (text, _, lemma, pos, _, _) in enumerate(tokens):
        if pos == "PUNCT":
            if text in ".;!?":
                who = verb = None
        elif pos == "VERB":
            passive = index + 1 < len(tokens) and tokens[index + 1].lower == "by"
            verb = None if passive else tokens[index]
        elif pos == "NOUN" and _alive(lemma) and lemma not in _BODY_PARTS:
            if who and verb and who != lemma:
                found.append((who, verb.lemma, lemma, verb))
                verb = None
            elif not verb:
                who = who or lemma
    return found


def _new_number(index: int, token: Token, original: Text, caption: Text) -> Finding | None:
    value = token.lemma
    if token.lower == "dozen" and index > 1 and caption.tokens[index - 2].lower == "half":
        value = "6"
    following = caption.tokens[index + 1] if index + 1 < len(caption.tokens) else _END
    if following.lower in _FOLK and value.isdecimal() and int(value) <= len(_people(original)):
        return None
    if value == "1" or value in original.numbers or token.lower in original.lemmas:
        return None
    if value == "2" and (
        not original.lemmas.isdisjoint(_TWO) or _joined_pair(index, original, caption)
    ):
        return None
    if value.isdecimal() and _with_others(int(value) - 1, original):
        return None
    if following.pos == "NOUN" and _adds_up(value, following.lemma, original):
        return None
    counted = next((t for t in caption.tokens[index + 1 : index + 4] if t.pos == "NOUN"), None)
    if value in _ORDINALS and counted and _has_nth(_ORDINALS[value], counted.lemma, original):
        return None
    return _new(token, f"number {token.text!r} is not in the original")


_FOLK = frozenset("people persons individuals figures adults".split())


_ORDINALS = {"2": "second", "3": "third", "4": "fourth"}


def _has_nth(ordinal: str, lemma: str, original: Text) -> bool:
    """`two movers` where the original has `a mover` and `a second mover`."""
    return any(
        token.lower == ordinal
        and lemma in (t.lemma for t in original.tokens[index + 1 : index + 4])
        for index, token in enumerate(original.tokens)
    )


def _adds_up(value: str, counted: str, original: Text) -> bool:
    """`four performers` where the original has `a man` and `three musicians`."""
    if not _is_person(counted) or counted in original.lemmas:
        return False
    numbers = [int(number) for number in original.numbers if number.isdecimal()]
    sums = {one + 1 for one in numbers} | {sum(pair) for pair in itertools.combinations(numbers, 2)}
    return value.isdecimal() and len(_people(original)) > 1 and int(value) in sums


def _with_others(others: int, original: Text) -> bool:
    """`three soldiers` where the original has `a soldier` and `two other soldiers`."""
    return any(
        first.pos == "NUM" and first.lemma == str(others) and second.lower in _OTHERS
        for first, second in itertools.pairwise(original.tokens)
    )


_OTHERS = frozenset("other others more additional".split())


def _joined_pair(index: int, original: Text, caption: Text) -> bool:
    """`two people` where the original has `a man and a woman`."""
    for first, word, second in zip(
        original.tokens, original.tokens[1:], original.tokens[2:], strict=False
    ):
        if first.pos == "NOUN" and word.lower == "and" and second.lower in ("a", "an", "another"):
            return True
        if second.lower == "another" or (second.lower == "other" and word.lower == "the"):
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
    if lexicon.kind_of(lemma, "clothing") or lemma in _LIKE_ITS_PARTS:
        return None  # an orange robe, orange robes
    if not _is_plural(token) or _readings(index, token, caption) != ("NOUN",):
        return None  # `a girl in a yellow dress swings higher`
    around = [t.pos for t in (*caption.tokens[index - 1 : index], *caption.tokens[index + 1 :][:1])]
    if around in (["NOUN", "DET"], ["PROPN", "DET"]):
        return None  # `a woman in blue gloves pipettes a liquid`
    if _only_one(lemma, original):
        others = _is_person(lemma) and (
            len(_people(original)) > 1
            or any(_is_plural(t) for t in original.content if _is_person(t.lemma))
        )
        return _new(token, f"the original has one {lemma!r}, not several", ambiguous=others)
    return None


_LIKE_ITS_PARTS = frozenset(
    "water sand snow grass rapid wood cloud sky stair rail wave curtain surrounding light shadow "
    "track "
    "wing sleeve paint scale hair reed bush shear clipper scissor".split()
)
"""Things that are spoken of in the plural too."""


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
        if token.lower != lemma or "others" in [t.lower for t in original.tokens[index:]]:
            return False
        before = [word.lower for word in original.tokens[max(0, index - 4) : index]]
        following = original.tokens[index + 1] if index + 1 < len(original.tokens) else _END
        if following.pos in ("NOUN", "PROPN"):
            return False  # a mountain landscape
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
    if any(denied in _ABSENT.get(word, "") for word in original.lemmas):
        return []  # a dry riverbed has no water
    if any(word.startswith("bare") or word.endswith("less") for word in original.lemmas):
        return []  # a barefoot boy has no shoes
    if denied in original.negated or (not original.negated and not _positive(denied, original)):
        if denied in original.negated:
            return []
        return [_new(token, f"{token.text!r} denies something that the original does not")]
    if any(word.lower in _NEGATORS for word in original.tokens) and denied not in original.plain:
        return []
    return [_new(token, f"{token.text!r} denies something that the original does not")]


_ABSENT: dict[str, str] = {
    "dry": "water rain",
    "empty": "person people content anyone car passenger customer",
    "deserted": "person people anyone car",
    "bald": "hair",
    "bare": "leaf shoe shirt glove sleeve",
    "alone": "person people anyone company",
    "behind": "passenger person",
    "shirtless": "shirt",
    "clear": "cloud",
    "cloudless": "cloud",
    "silent": "sound word noise",
    "still": "wind wave",
    "calm": "wind wave",
    "motionless": "movement",
    "single": "other",
}
"""What is not there where something is said to be so."""


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
    subjects = original.subjects
    if not subjects or not caption.tokens:
        return ()
    actor = _left_out(original, caption)
    for subject in subjects if actor is None else ():
        if _mentions(caption, subject, original):
            return ()
    lost = actor or subjects[0]
    return (
        Finding(
            rule="R2",
            start=None,
            end=None,
            text=lost,
            message=f"the main subject {lost!r} is lost; make the caption about it",
        ),
    )


def _left_out(original: Text, caption: Text) -> str | None:
    """Whom the original follows at its setting, if the caption is about somebody or something
    else there: the vendors at a market through which a woman rows, not the market itself."""
    setting, *others = original.subjects
    actor = next((lemma for lemma in others if _is_person(lemma)), None)
    if actor is None or not _is_setting(setting) or setting in _COLLECTIVES:
        return None
    told = _first_head(caption.tokens)
    if told is None or told == setting or told not in original.lemmas:
        return None
    follows = sum(
        any(token.lemma == actor or token.lower in _HE_SHE for token in original.tokens[start:end])
        for start, end in sentences(original.tokens)
    )
    if follows < _FOLLOWED or any(_mentions(caption, lemma, original) for lemma in others):
        return None
    return actor


_FOLLOWED = 2
"""Sentences about somebody whom a text follows."""


def main_subjects(text: Text) -> list[str]:
    """Lemmas that can stand for what the text is about, best first.

    The head of its first noun phrase after words about the video. Where that is a place or an
    event, whoever or whatever acts there counts too: the first living thing of the same sentence,
    else the heads of the next sentences up to the first that acts. A place that is only said to be
    where the video is set does not count once an actor is found.
    """
    heads: list[str] = []
    place = False
    for number, (start, end) in enumerate(sentences(text.tokens)):
        sentence = _without_participle(text.tokens[start:end])
        scene = _setting_phrase(sentence)
        head = _first_head(sentence[scene:])
        if head is None:
            continue
        if not heads:
            place = scene > 0
            heads = [head, *_joined_heads(sentence, head)]
            if not (_is_setting(head) or head in _COLLECTIVES):
                break
            acts = next((i for i, t in enumerate(sentence) if t.pos in ("VERB", "AUX")), None)
            told = sentence[:acts] if head in _COLLECTIVES else sentence
            living = [lemma for lemma in _living_heads(told) if lemma not in heads]
            if living:
                heads += [living[0], *_joined_heads(sentence, living[0])]
                break
        elif number > 3:
            break
        elif heads[0] in _COLLECTIVES:
            heads += [lemma for lemma in _living_heads(sentence) if _is_person(lemma)]
            break
        elif head not in _BACKDROP:
            heads.append(head)
            if not _is_setting(head):
                break
    return list(dict.fromkeys(heads[1:] if place and len(heads) > 1 else heads))


def _living_heads(sentence: Sequence[Token]) -> list[str]:
    """Lemmas of people and animals that head their phrase: not the `chef` of `a chef knife`."""
    return [
        token.lemma
        for token, following in itertools.pairwise([*sentence, _END])
        if token.pos == "NOUN"
        and _alive(token.lemma)
        and not _is_modifier(token, following)
        and not (following.text in _APOSTROPHES and following.start == token.end)
    ]


def _is_modifier(token: Token, following: Token) -> bool:
    """Whether a noun stands before its head: the `tackle` of `a tackle box`."""
    return (
        following.pos in ("NOUN", "PROPN")
        and not token.lower.endswith("'s")
        and not _is_plural(token)
        and not (
            following.lower.endswith(("s", "ing", "ed"))
            and "VERB" in parts_of_speech(following.lower)
        )
    )


def _setting_phrase(sentence: Sequence[Token]) -> int:
    """How many tokens `The scene takes place` and the like take: a place follows, not a subject."""
    for index, token in enumerate(sentence[:10]):
        following = sentence[index + 1].lower if index + 1 < len(sentence) else ""
        if (token.lower in ("takes", "take") and following == "place") or (
            token.lower in ("set", "unfolds", "occurs") and following in PREPOSITIONS
        ):
            said = _first_head(sentence[:index])
            return index + 2 if said is None or said in _META else 0
    return 0


_BACKDROP = frozenset(
    (
        "sky light sunlight sun wall floor ceiling window background room air ground water road "
        "street cloud table chair tree plant building house sign light lamp shelf banner poster "
        "weather shadow mountain grass sea ocean field snow rain area space"
    ).split()
)
"""A sentence that begins with one describes the surroundings rather than an actor."""


@lru_cache(maxsize=20_000)
def _is_person(lemma: str) -> bool:
    return lemma in _ALSO_PEOPLE or lexicon.is_first(lemma, "person")


_ALSO_PEOPLE = frozenset(
    "people commuter cleaner rafter anchor vlogger blogger streamer barista mover carrier climber "
    "racer biker kayaker gamer driver tattooist cheesemaker chocolatier".split()
)
"""People whom WordNet does not know, or knows as things first."""

_AGENTIVE = ("er", "or", "ist", "ian", "ant", "ent", "ee")


def _without_participle(sentence: Sequence[Token]) -> Sequence[Token]:
    """What follows `Wearing a white suit,` at the beginning of a sentence."""
    opens = sentence[0].lower if sentence else ""
    if not opens.endswith(("ing", "ed")) or "VERB" not in parts_of_speech(opens):
        return sentence
    comma = next((i for i, token in enumerate(sentence) if token.text == ","), None)
    follows = sentence[comma + 1 :] if comma is not None and sentence[1].pos != "NOUN" else []
    return follows or sentence


@lru_cache(maxsize=20_000)
def _is_setting(lemma: str) -> bool:
    """Whether a text that begins with it may be about someone in or at it."""
    return not _alive(lemma) and (
        any(lexicon.kind_of(lemma, kind) for kind in _SETTINGS.split())
        or not any(lexicon.is_first(lemma, kind) for kind in _ACTORS.split())
    )


_SETTINGS = "contest performance"
_ACTORS = (
    "vehicle food beverage container organism machine mechanism device toy sign firework light"
)


def _joined_heads(tokens: Sequence[Token], head: str) -> list[str]:
    """Owners and partners of a head: the chef of `a chef's hands`, the dog of `a man and a dog`."""
    found = []
    place = next((i for i, token in enumerate(tokens) if token.lemma == head), 0)
    if place and tokens[place - 1].lower.endswith("'s"):
        found.append(_bare(tokens[place - 1].lower))
    if place > 1 and tokens[place - 2].lower.endswith("'s"):
        found.append(_bare(tokens[place - 2].lower))
    rest = tokens[place + 1 : place + 6]
    if len(rest) > 2 and rest[0].lower == "and" and rest[1].pos in ("DET", "NUM", "ADJ", "NOUN"):
        found += [t.lemma for t in rest if t.pos == "NOUN"][:1]
    return found


def _first_head(tokens: Sequence[Token]) -> str | None:
    """Head noun of the first noun phrase that is about the content."""
    phrase: list[Token] = []
    for index, token in enumerate([*tokens, _END]):
        if (
            token.pos in ("NOUN", "PROPN")
            or (token.pos == "ADJ" and index + 1 < len(tokens) and _is_plural(tokens[index + 1]))
            or (token.text == "I" and phrase and phrase[-1].text[0].isupper())
        ):
            phrase.append(token)
            continue
        if (
            token.pos in ("ADJ", "NUM", "DET", "VERB")
            and phrase
            and _goes_on(tokens, index, phrase)
        ):
            phrase.append(token)
            continue
        nouns = [word for word in phrase if word.pos in ("NOUN", "PROPN")]
        if token.text in _APOSTROPHES and nouns and token.start == nouns[-1].end:
            phrase = []
            continue  # a farmers' auction
        if nouns:
            head = next((n for n in nouns if _is_plural(n) and _alive(n.lemma)), nouns[-1])
            if _one_thing(tokens, phrase) and _is_plural(head) and len(phrase) > 1:
                head = phrase[-2]  # "a mechanic lies": the last word is the verb
            of = token.lower == "of"
            about = lemmas(head.lower)
            if not about.isdisjoint(_META) or head.lower in _META:
                phrase = []
                continue
            if head.lower in COLOURS and token.lower == "and":
                phrase = []  # a blue and white car
                continue
            if of and not about.isdisjoint(_GROUPS):
                phrase = []
                continue
            if head.lemma not in _PARTS_OF_TIME:
                return head.lemma
        phrase = []
    return None


def _one_thing(tokens: Sequence[Token], phrase: list[Token]) -> bool:
    start = next(index for index, token in enumerate(tokens) if token is phrase[0])
    before = [token.lower for token in tokens[max(0, start - 3) : start]]
    return any(word in ("a", "an", "one") for word in before)


_APOSTROPHES = frozenset("'’")
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
    return _is_person(lemma) or lexicon.is_first(lemma, "animal") or _is_beast(lemma)


def _is_beast(lemma: str) -> bool:
    """Whether a word is an animal after its fur or its meat: `otter`, `chicken`."""
    return lexicon.kind_of(lemma, "animal") and not any(
        lexicon.is_first(lemma, kind) for kind in ("device", "structure", "vehicle", "act")
    )


def _mentions(caption: Text, subject: str, original: Text, *, named: bool = False) -> bool:
    """Whether the caption speaks of the subject; `named`: by a word that the original implies."""
    if not (lemmas(subject) | {subject}).isdisjoint(caption.lemmas):
        return True
    if subject == "couple" and caption.lemmas >= {"man", "woman"}:
        return True
    if _is_human(subject, original):
        return _mentions_person(caption, subject, original, named=named)
    if any(t.pos == "NOUN" and _is_named_by(t.lemma, subject, original) for t in caption.content):
        return True
    up = lexicon.implied(subject)
    for token in caption.content:
        if token.pos not in ("NOUN", "PROPN", "ADJ", "VERB"):
            continue
        for lemma in _lemmas(token.lower):
            if not lexicon.peers(lemma).isdisjoint((subject,)):
                return True
            if subject in lexicon.grounds(lemma) or lexicon.kind_of(lemma, subject):
                return True
            own = lexicon.main_senses(lemma, "NOUN")
            if own and not own.isdisjoint(up) and not _too_general(lemma):
                return True
    return False


def _is_named_by(lemma: str, subject: str, original: Text) -> bool:
    """Whether a word is the kind before the subject: the `retriever` of `a retriever puppy`."""
    return lexicon.is_first(lemma, "animal") and any(
        first.lemma == lemma and second.lemma == subject
        for first, second in itertools.pairwise(original.tokens)
    )


def _is_human(lemma: str, text: Text) -> bool:
    """Whether a word means people, or may and the text goes on about `him` or `her`."""
    if _is_person(lemma):
        return True
    if not lexicon.known(lemma):
        return not _HE_SHE.isdisjoint(text.lemmas)
    return lexicon.may_be(lemma, "person") and lemma.endswith(_AGENTIVE) and bool(_people(text))


_HE_SHE = frozenset("he she him his her who".split())


def _mentions_person(caption: Text, subject: str, original: Text, *, named: bool) -> bool:
    if not caption.lemmas.isdisjoint(("someone", "somebody", "individual", "human")):
        return True
    several = subject in ("people", "group") or any(
        _is_plural(token) for token in original.content if token.lemma == subject
    )
    for token in _heading(caption):
        for lemma in _lemmas(token.lower):
            if subject in lexicon.peers(lemma):
                return True
            if not _is_person(lemma):
                if lemma in _COLLECTIVES and (subject in lexicon.grounds(lemma) or several):
                    return True
                continue
            if several and lemma != subject and _is_somebody_else(token, original):
                continue  # the older woman is not the dancers
            if _is_about_another(lemma, subject, original, caption):
                continue  # nor is the girl who throws the fleece the shepherd
            other = not several and _is_plural(token)
            if other and lemma != "people" and lemma in original.lemmas:
                continue  # the customers are not the person at the laptop
            if _same_person(subject, lemma):
                if named or lemma in original.lemmas or lexicon.entails(subject, lemma):
                    return True
                if not _against_pronouns(lemma, original):
                    return grounding(original, caption) >= 0.34
            if not named and _compatible(subject, lemma) and _may_refer(lemma, original):
                return grounding(original, caption) >= 0.5
    if named:
        return False
    told_by_self = not _FIRST_PERSONS.isdisjoint(caption.lemmas)
    told_by_self = told_by_self and bool(r6(original="", caption=caption.text))
    return told_by_self or _first_head(caption.tokens) in _HANDS & original.lemmas


def _is_about_another(lemma: str, subject: str, original: Text, caption: Text) -> bool:
    """Whether a caption retells the sentence that brings in `a girl` beside the shepherd."""
    if subject in _GENERIC or lemma == subject or lemma not in original.lemmas:
        return False
    tokens = original.tokens
    if any(token.lemma == subject and _is_plural(token) for token in tokens):
        return False
    mentions = [index for index, token in enumerate(tokens) if token.lemma == lemma]
    spans = sentences(tokens)
    own = next((i for i, (s, e) in enumerate(spans) if mentions and s <= mentions[0] < e), 0)
    if own < _LATER or any(_is_apposed(i, tokens) or _is_predicate(i, tokens) for i in mentions):
        return False
    told = frozenset(t.lemma for t in caption.content if t.lemma not in _LIGHT)
    shared = [told.intersection([t.lemma for t in tokens[s:e]]) for s, e in spans]
    return len(shared[own]) >= _RETOLD * len(told & original.lemmas)


_LATER = 2
"""A main subject has been described by then."""
_RETOLD = 0.6


def _is_predicate(index: int, tokens: Sequence[Token]) -> bool:
    """Whether somebody is said to be it: `she is a woman of sixty`."""
    before = tokens[max(0, index - 5) : index]
    return any(token.pos == "AUX" or token.lower in ("as", "like") for token in before)


def _is_somebody_else(token: Token, original: Text) -> bool:
    """Whether one person of the caption is told apart in the original: `an older woman`."""
    if _is_plural(token) or token.lemma in ("people", "one"):
        return False
    mentions = [i for i, other in enumerate(original.tokens) if other.lower == token.lower]
    return bool(mentions) and all(_is_apposed(i, original.tokens) for i in mentions)


def _is_apposed(index: int, tokens: Sequence[Token]) -> bool:
    """Whether a noun explains another: the `woman` of `the instructor, an older woman`."""
    start = next((i for i in range(index - 1, max(0, index - 5), -1) if tokens[i].text == ","), 0)
    return (
        start > 0 and tokens[start + 1].lower in ("a", "an") and _is_person(tokens[start - 1].lemma)
    )


def _heading(text: Text) -> list[Token]:
    """Nouns that no other noun follows: not the `tackle` of `a tackle box`."""
    return [
        token
        for token, following in itertools.pairwise([*text.tokens, _END])
        if token.pos in ("NOUN", "PROPN") and not _is_modifier(token, following)
    ]


def _against_pronouns(lemma: str, original: Text) -> bool:
    """Whether a word is male where the original only has `she`, or the other way round."""
    for words, own, other in (
        (_MALE, ("he", "him", "his"), ("she", "her")),
        (_FEMALE, ("she", "her"), ("he", "him", "his")),
    ):
        if lemma in words and not original.lemmas.isdisjoint(other):
            return original.lemmas.isdisjoint(words.union(own))
    return False


def _may_refer(lemma: str, original: Text) -> bool:
    """Whether the original has no such person, or only after `the`, as one mentioned before."""
    mentions = [i for i, token in enumerate(original.tokens) if token.lemma == lemma]
    return all(i and original.tokens[i - 1].lower in ("the", "this") for i in mentions)


_FIRST_PERSONS = frozenset(("i", "we", "my", "our"))
_BODY_PARTS = frozenset(
    "arm back chest chin ear elbow eye face finger foot hand head hip knee lap leg lip mouth neck "
    "nose palm shoulder tail thumb toe tooth tongue waist wrist".split()
)
_HANDS = frozenset("hand finger arm leg foot face".split())
"""What may stand for the person."""


_COLLECTIVES = frozenset("couple pair duo team band group crew family crowd audience".split())
_MALE = frozenset(
    "man boy guy gentleman father son brother husband male king grandfather grandson uncle "
    "groom waiter schoolboy".split()
)
_FEMALE = frozenset(
    "woman girl lady mother daughter sister wife female queen grandmother granddaughter aunt "
    "bride waitress schoolgirl ballerina".split()
)
_YOUNG = frozenset("boy girl child kid baby toddler infant".split())
_GROWN = frozenset("man woman adult gentleman lady".split())
_GENERIC = frozenset(
    "man woman person people individual human adult child boy girl lady guy figure player "
    "worker performer kid couple friend someone daughter son mother father neighbor "
    "neighbour sister brother".split()
)


def _compatible(one: str, other: str) -> bool:
    """Whether two words for people may mean the same person, by sex and age."""
    return not any(
        (one in here and other in there) or (other in here and one in there)
        for here, there in ((_MALE, _FEMALE), (_YOUNG, _GROWN))
    )


def _same_person(subject: str, lemma: str) -> bool:
    if not _compatible(subject, lemma):
        return False
    if subject in _GENERIC or lemma in _GENERIC or subject in lexicon.peers(lemma):
        return True
    return lexicon.entails(subject, lemma) or lexicon.entails(lemma, subject)


@lru_cache(maxsize=20_000)
def _too_general(lemma: str) -> bool:
    return lemma in _LIGHT or lemma in (
        "whole unit entity artifact organism matter structure state being group".split()
    )


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
