"""Rules that compare the caption with its original: R2 the main subject stays, R4 nothing new.

Words are compared by lemma; synonyms, kinds above and derivations are entailed, kinds below are
not. Colours, numbers, negation and names are compared by themselves.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from colibri.core.captions import lexicon
from colibri.core.captions.language import Token, lemmas, parts_of_speech, sentences, tokenize
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
        "among alone overhead where clad everywhere underneath"
    ).split()
)
"""Words that say too little to be a new detail."""

_PEER_GROUPS = (
    "woman lady, man guy gentleman fellow, child kid, sunset dusk sundown, sunrise dawn, "
    "sea ocean, bike bicycle, motorcycle motorbike bike, sofa couch, tv television, "
    "street road, forest wood woods, stone rock boulder, house home, shop store, dress gown, "
    "rain rainy, snow snowy, sun sunny sunlight sunlit, phone smartphone, laugh laughter, "
    "talk speak chat converse, garden yard, hat cap, boat ship, infant baby, "
    "photo photograph picture, autumn fall, jump leap hop, glass glasses, jog run, smile grin, "
    "look watch gaze, throw toss, cook prepare, fix repair, sunshine sunlight, path trail, "
    "cup mug, couple pair, jacket coat, cloud cloudy, automobile car, plane airplane aircraft, "
    "rug carpet, little small, big large, urban city town, cafe café coffeehouse, chef cook, "
    "preen groom, roof rooftop, pause stop halt, calf baby, spread open extend, crash break, "
    "branch tree, rural country countryside, sip drink, kitten cat, puppy dog, wave gesture, "
    "savanna savannah, canine dog, feline cat, crack fissure, wind meander cut run, flow run, "
    "pedestrian passerby walker, crosswalk crossing, ascend climb rise, descend fall lower, "
    "assemble build, document paper, raise lift, track rail, sit seat, "
    "check look examine inspect, scientist researcher, bustling busy crowded, offer sell, "
    "cast throw toss, thick dense, haul pull, mist fog, misty foggy, cycle bicycle bike, "
    "elderly old senior older aged, hike walk trek, shine glow gleam, young small little, "
    "city town, pour fill, close shut, ride drive cycle, near beside, stair step, bag sack, "
    "produce vegetable fruit, trousers pants, lawn grass grassy, sneaker shoe, hug embrace, "
    "strum play, spoon stir, pavement sidewalk, lorry truck, lift elevator, film movie, "
    "cab taxi, stroll walk, vapor steam, glide slide, picture painting, lab laboratory, "
    "ball football soccer, football soccer, countryside field, perch sit seat, "
    "wooden wood timber, sand sandy, rock rocky, mountain mountainous, wave ocean sea, "
    "grip hold clutch grasp, wear dress clothe don, wearing clad, "
    "attire clothes clothing outfit dress, converse talk discuss, "
    "discussion talk conversation discuss, peer look gaze stare, observe watch look, "
    "rush hurry, speed race rush, soar fly, drift float, swim float, blaze burn, "
    "twirl spin rotate, whirl spin, illuminate light lit, lit light illuminate, applaud clap, "
    "shimmer glisten sparkle glitter, skyscraper building, embroider stitch sew, knead press, "
    "leafy leaf, blossom bloom flower, blooming flower, grayscale monochrome, monochrome black, "
    "rest sit lie, recline lie, kneel crouch, wipe clean wash, cut slice chop, chop cut slice, "
    "slice cut, rotate turn spin, spin turn rotate, drop fall, fall drop, tumble fall, "
    "type write, pour stream, sprint run, stride walk, wander walk, march walk, tread walk, "
    "pace walk, tiny small little, huge large big, massive large huge big, enormous large huge, "
    "vast large, petite small, slender thin slim, joyful happy, happy cheerful joyful smile, "
    "glad happy, delighted happy, quick fast, rapid fast quick, rapidly quickly fast, "
    "swiftly quickly fast, swift fast quick"
)
_PEERS: dict[str, frozenset[str]] = {}
for _group in _PEER_GROUPS.split(", "):
    for _word in _group.split():
        _PEERS[_word] = _PEERS.get(_word, frozenset()) | frozenset(_group.split())
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
    said: frozenset[str]
    """The main senses of the text's words themselves."""
    attached: dict[str, frozenset[str]]
    """Colours, numbers and opposites said of each noun."""
    loose: frozenset[str]
    """Colours, numbers and opposites that stand before no noun."""


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
    words: set[str] = set()
    said: set[str] = set()
    content = []
    since = 99
    for index, token in enumerate(tokens):
        if token.pos == "PUNCT":
            if token.text in ".,;!?":
                since = 99
            continue
        if token.lower in _NEGATORS or token.lower.endswith("n't"):
            since = 0
        else:
            since += 1
        own = _lemmas(token.lower)
        all_lemmas |= own
        if "-" in token.lower:
            for piece in token.lower.split("-"):
                all_lemmas |= _lemmas(piece)
        if token.lower in COLOURS:
            colours.add(COLOURS[token.lower])
        if token.pos == "NUM":
            numbers.add(token.lemma)
        if token.pos in ("NOUN", "VERB", "ADJ", "NUM", "PROPN", "ADV"):
            content.append(token)
            if token.pos != "NUM":
                words.add(token.lower)
            if token.pos in ("NOUN", "VERB"):
                (negated if since <= 4 else plain).add(_bare(token.lemma))
                goes_on = index + 1 < len(tokens) and tokens[index + 1].pos == "NOUN"
                if since <= 4 and not token.lower.endswith("ing") and not goes_on:
                    since = 99
    for word in words:
        follows, own = _follows(word)
        implied |= follows
        said |= own
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
        frozenset(said),
        *_attached(tokens),
    )


@lru_cache(maxsize=100_000)
def _follows(word: str) -> tuple[frozenset[str], frozenset[str]]:
    """Senses that a word implies, and its main senses."""
    own = _lemmas(word) - _META
    implied = frozenset(sense for lemma in own for sense in lexicon.implied(lemma))
    return implied, frozenset(sense for lemma in own for sense in lexicon.main_senses(lemma))


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
    """What each noun is said to be (colours, opposites, numbers), and what stands by itself."""
    of_noun: dict[str, set[str]] = {}
    loose: set[str] = set()
    waiting: list[str] = []
    for index, token in enumerate(tokens):
        mark = COLOURS.get(token.lower) or (token.lemma if token.pos == "NUM" else None)
        mark = mark or (token.lower if token.lower in _OPPOSITES else None)
        if mark and not (token.pos == "VERB" and token.lower == "left"):
            waiting.append(mark)
        elif token.pos in ("NOUN", "PROPN"):
            following = tokens[index + 1] if index + 1 < len(tokens) else _END
            if waiting:
                of_noun.setdefault(token.lemma, set()).update(waiting)
                if following.pos != "NOUN":
                    waiting = []
        elif token.pos not in ("ADJ", "CONJ") and token.text not in (",", "-"):
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
        if any(start <= token.start < end for start, end in elsewhere):
            continue
        if cinema and token.lemma in _CINEMA:
            continue
        if token.pos in ("PUNCT", "DET", "PRON", "ADP", "CONJ", "AUX"):
            if token.lower in _OPPOSITES:
                found += _opposed(token, original)
            if token.lower in ("no", "without", "not", "never") or token.lower.endswith("n't"):
                found += _new_negation(index, original, caption)
            continue
        if token.lower in ("not", "never"):
            found += _new_negation(index, original, caption)
            continue
        finding = _new_word(index, token, original, caption)
        if finding:
            found.append(finding)
        elif token.pos in ("NOUN", "PROPN"):
            found += _misattached(token, original, caption)
    return (*found, *_swapped(original, caption))


def _of_other_rules(others: Sequence[Finding], caption: str) -> list[tuple[int, int]]:
    """Spans that break R1, R3, R5 or R6: what they say is not content. Analysis goes on to the end
    of its clause."""
    spans = []
    for finding in others:
        if finding.rule not in ("R1", "R3", "R5", "R6"):
            continue
        if finding.start is None or finding.end is None:
            continue
        end = finding.end
        recording = finding.rule == "R3" and _RECORDING.search(finding.text)
        if finding.rule == "R5" or recording:
            stop = (_RECORDED if recording else _CLAUSE_END).search(caption, end)
            end = stop.start() if stop else len(caption)
        lead = _LEADING.search(caption, 0, finding.start) if finding.rule == "R3" else None
        spans.append((lead.start() if lead else finding.start, end))
    return spans


_RECORDING = re.compile(r"\b(?:camera|zoom|shot on|shot in|filmed|footage)", re.IGNORECASE)
_RECORDED = re.compile(r"[.,;!?]|\s(?:of|while|as)\s")
_CLAUSE_END = re.compile(r"[.,;!?]")
_LEADING = re.compile(r"(?:(?<=\s)(?:long|short|single|slow|smooth|bathed|shot|in|a|an|the)\s+)+$")

_CINEMA = frozenset(
    (
        "pan zoom tilt track dolly focus blur depth field shallow cinematic lens angle handheld "
        "bokeh aerial overhead low high wide static steady slow crane lighting exposure grade fade "
        "dissolve transition cut orbit sweep filmed film shoot capture frame bird eye level 4k hd "
        "resolution crisp sharp grain contrast soft smooth"
    ).split()
)


def _new_word(index: int, token: Token, original: Text, caption: Text) -> Finding | None:
    lower = _bare(token.lower)
    if token.pos == "NUM":
        return _new_number(index, token, original, caption)
    if lower in COLOURS and token.pos in ("ADJ", "NOUN", "PROPN"):
        if COLOURS[lower] in original.colours or lower in original.lemmas:
            return None
        return _new(token, f"colour {lower!r} is not in the original")
    own = _lemmas(lower)
    if not own.isdisjoint(original.lemmas):
        return _flipped(index, token, original, caption)
    opposed = _opposed(token, original)
    if opposed:
        return opposed[0]
    if not own.isdisjoint(_META) and token.pos == "NOUN":
        return None
    if lower in _PERSONS:
        if _is_said_of_someone(lower, original):
            return None
        return _new(token, f"person {lower!r} is not in the original")
    if not own.isdisjoint(_LIGHT):
        return None
    if token.pos == "ADV":
        return _new_manner(token, lower, original)
    if lower.endswith("less") and len(lower) > 6:
        if lower[:-4] in original.negated:
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
        if not _FOLLOWS_FROM.get(lemma, frozenset()).isdisjoint(original.lemmas):
            return True
        if not lexicon.main_senses(lemma, token.pos).isdisjoint(original.implied):
            return True
        if not lexicon.senses(lemma, token.pos).isdisjoint(original.said):
            return True
        if token.pos == "VERB" and not lexicon.narrower_verb(lemma).isdisjoint(original.said):
            return True
        if lemma.endswith(("ist", "er", "or")) and len(lemma) > 6:
            root = lemma[:-3] if lemma.endswith("ist") else lemma[:-2]
            if any(word.startswith(root) for word in original.lemmas):
                return True
        stem = lexicon._stem(lemma)
        if any(lexicon._stem(word) == stem for word in original.lemmas if word[:3] == lemma[:3]):
            return True
    return False


_FOLLOWS_FROM: dict[str, frozenset[str]] = {
    claimed: frozenset(said.split())
    for claimed, said in {
        "fly": "seagull gull bird eagle drone airplane plane helicopter butterfly bee circle wing",
        "scatter": "throw toss sprinkle",
        "seat": "sit",
        "asleep": "sleep nap",
        "band": "musician",
        "shake": "toss",
        "swim": "fish dolphin swimmer duck shark whale",
        "crowd": "fan spectator audience people commuter shopper pedestrian crowded onlooker",
        "athlete": "player runner swimmer gymnast surfer skateboarder skier boxer sprinter cyclist",
        "player": "athlete play",
        "prepare": "cook knead bake chop slice stir mix make cut",
        "cook": "fry boil grill stir bake saute simmer",
        "exit": "leave step get off out",
        "board": "step enter get",
        "shine": "stream sunlight light sun glow",
        "head": "walk move go toward towards run travel",
        "dust": "floured dusty",
        "slide": "insert glide",
        "stop": "block pause halt",
        "café": "cafe coffee coffeehouse",
        "cafe": "coffee coffeehouse",
        "drift": "move float",
        "float": "drift",
        "bread": "loaf",
        "blow": "wind flow flutter",
        "cross": "across over",
        "small": "kitten puppy child baby toddler calf tiny",
        "young": "kitten puppy child baby toddler calf boy girl kid",
        "floor": "carpet carpeted rug tile tiled",
        "tumble": "cascade",
        "plunge": "cascade",
        "spill": "cascade",
        "pass": "drive walk travel move",
        "climb": "ascend climber",
        "ground": "grass dirt earth soil road floor",
        "speech": "speak address talk",
        "speaker": "speak speech",
        "rider": "ride",
        "passenger": "ride board train bus",
        "customer": "shopper buy",
        "seller": "vendor sell",
        "shopper": "shop customer buy",
        "worker": "work",
        "musician": "guitar violin piano drum instrument guitarist pianist",
        "performer": "perform dancer singer musician",
        "singer": "sing",
        "driver": "drive",
        "animal": "wildlife creature",
        "vehicle": "traffic",
        "water": "sea ocean river lake pool rain wave stream",
        "tree": "branch forest wood",
        "daytime": "day sunny sunlight daylight",
        "nighttime": "night",
        "liquid": "water milk coffee tea juice",
        "food": "meal dish vegetable fruit meat pizza soup salad",
        "beverage": "coffee tea juice beer wine",
        "drink": "coffee tea juice beer wine sip",
        "computer": "laptop",
        "device": "phone smartphone laptop tablet",
        "cheer": "applaud",
        "crouch": "squat kneel",
        "squat": "crouch",
        "overlook": "above view",
        "adjust": "fix",
        "work": "fix repair type knead",
        "try": "attempt",
        "attempt": "try",
        "surf": "surfer wave surfboard",
        "dance": "dancer",
        "bathe": "bath sunlight",
        "light": "lit lamp illuminate sunlight",
        "wave": "surf",
    }.items()
}
"""Words that follow from others though the table does not say so."""


def _is_compound(own: frozenset[str], original: Text) -> bool:
    """`skatepark` for `skate park`, `surfboard` for a surfer's board, `arm` for `forearm`."""
    for lemma in own:
        for cut in range(3, len(lemma) - 2):
            head, tail = lemma[:cut], lemma[cut:]
            if tail in original.lemmas and any(w.startswith(head) for w in original.lemmas):
                return True
        for word in original.lemmas:
            if len(word) >= len(lemma) + 3 and len(lemma) >= 3:
                if word.endswith(lemma) and lexicon.known(word):
                    return True
                if len(lemma) >= 5 and word.startswith(lemma) and lexicon.known(word[len(lemma) :]):
                    return True
    return False


def _pieces_known(word: str, original: Text) -> bool:
    return all(
        not (own := _lemmas(piece)).isdisjoint(original.lemmas)
        or not own.isdisjoint(_LIGHT)
        or piece in ("like", "up", "off", "in", "to", "of", "on", "clad", "old", "year")
        or not _PEERS.get(piece, frozenset()).isdisjoint(original.lemmas)
        or piece.removesuffix("ed") in original.lemmas
        or piece.removesuffix("d") in original.lemmas
        for piece in word.split("-")
        if piece
    )


def _new_manner(token: Token, lower: str, original: Text) -> Finding | None:
    """A new manner (`angrily`); adverbs of place, time and degree say too little."""
    adjective = lower.removesuffix("ly")
    if not lower.endswith("ly") or lower in _SOFT_MANNERS or adjective in original.lemmas:
        return None
    if adjective.endswith("i"):
        adjective = adjective[:-1] + "y"
    if not lexicon.known(adjective) or not lexicon.senses(adjective).isdisjoint(original.said):
        return None
    if adjective in original.lemmas:
        return None
    return _new(token, f"manner {lower!r} is not in the original")


_SOFT_MANNERS = frozenset(
    (
        "slightly softly smoothly calmly quietly closely directly occasionally gradually finally "
        "eventually initially subsequently simultaneously immediately suddenly periodically "
        "nearly mostly mainly partially lightly evenly neatly visibly evidently actively freely "
        "constantly frequently briefly momentarily shortly currently only early family daily "
        "primarily entirely completely tightly firmly upwardly downwardly seemingly apparently "
        "possibly likely lonely lovely friendly previously newly naturally simply occasionally"
    ).split()
)


def _is_said_of_someone(word: str, original: Text) -> bool:
    """Whether the original has a person who is surely a `word`, by noun or by pronoun."""
    if not _PERSONS[word].isdisjoint(original.lemmas):
        return True
    if word in ("man", "men", "woman", "women"):
        suffix = "woman" if word.startswith("w") else "man"
        own = [w for w in original.lemmas if w.endswith(suffix) and len(w) > len(suffix) + 2]
        if any(suffix == "woman" or not w.endswith("woman") for w in own):
            return True
        if word in ("man", "woman"):
            pronouns = ("he", "him", "his") if word == "man" else ("she", "her")
            named = _MALE if word == "man" else _FEMALE
            return any(p in original.lemmas for p in pronouns) and named.isdisjoint(original.lemmas)
    if word in ("child", "children", "kid", "kids"):
        return any(w in original.lemmas for w in ("schoolboy", "schoolgirl", "teenager"))
    return False


_PERSONS: dict[str, frozenset[str]] = {
    form: frozenset(said.split())
    for forms, said in {
        "man men": "man guy gentleman fellow male father husband grandfather uncle groom king monk "
        "waiter grandpa dad chap bloke sir emperor prince actor",
        "woman women": "woman lady female mother wife grandmother aunt bride queen waitress "
        "actress nun grandma mom mum princess businesswoman ballerina",
        "lady ladies": "woman lady female mother wife grandmother bride queen",
        "boy boys": "boy son lad schoolboy",
        "girl girls": "girl daughter schoolgirl lass",
        "child children kid kids": "child kid boy girl toddler baby infant son daughter youngster "
        "youth schoolboy schoolgirl pupil",
        "baby infant": "baby infant newborn calf cub puppy kitten chick lamb foal",
    }.items()
    for form in forms.split()
}
"""Words for people by sex and age, with the words that imply each."""

_OPPOSITE_PAIRS = (
    "long short,straight curly,large small,big small,big little,large little,huge tiny,tall short,"
    "young old,young elderly,old new,wet dry,open closed,slow fast,slowly quickly,slowly rapidly,"
    "light dark,bright dark,bright dim,day night,left right,inside outside,indoors outdoors,"
    "indoor outdoor,upward downward,upstream downstream,forward backward,forwards backwards,"
    "clean dirty,empty full,smooth rough,hot cold,warm cold,thick thin,wide narrow,calm rough,"
    "bicycle motorcycle,bicycle motorbike,bike motorcycle,morning evening,morning night,"
    "morning afternoon,evening afternoon,afternoon night,sunrise sunset,dawn dusk,sunrise dusk,"
    "dawn sunset,summer winter,summer autumn,spring autumn,spring winter,winter autumn,"
    "clear cloudy,sunny cloudy,sunny rainy,crowded empty,crowded deserted,clockwise "
    "counterclockwise,shallow deep,smooth bumpy,lush dry,sleeveless long-sleeved,heavy light"
)
_OPPOSITES: dict[str, frozenset[str]] = {}
for _pair in _OPPOSITE_PAIRS.split(","):
    for _one, _other in (_pair.split(), reversed(_pair.split())):
        _OPPOSITES[_one] = _OPPOSITES.get(_one, frozenset()) | {_other}


def _opposed(token: Token, original: Text) -> list[Finding]:
    """A word whose opposite is all that the original has."""
    against = _OPPOSITES.get(token.lower)
    if not against or token.pos == "VERB" or token.lower in original.lemmas:
        return []
    said = sorted(against & original.lemmas)
    if not said or not _PEERS.get(token.lower, frozenset()).isdisjoint(original.lemmas):
        return []
    return [_new(token, f"{token.lower!r} where the original says {said[0]!r}")]


def _misattached(token: Token, original: Text, caption: Text) -> list[Finding]:
    """A colour, number or opposite that the original gives to another noun than the caption."""
    claimed = caption.attached.get(token.lemma)
    said = original.attached.get(token.lemma)
    if not claimed or not said:
        return []
    colours = frozenset(COLOURS.values())
    for mark in claimed - said - original.loose:
        against = said & (
            colours if mark in colours else _OPPOSITES.get(mark) or _numbers_but(mark, said)
        )
        if against and (mark in original.colours or mark in original.lemmas | original.numbers):
            return [_new(token, f"{mark} {token.lower!r} is {min(against)} in the original")]
    return []


def _numbers_but(mark: str, said: frozenset[str]) -> frozenset[str]:
    if not mark.isdigit() or mark == "1":
        return frozenset()
    return frozenset(other for other in said if other.isdigit() and other not in ("1", mark))


def _swapped(original: Text, caption: Text) -> list[Finding]:
    """Who does what to whom, turned around: `a girl pushes a man` for `a man pushes a girl`."""
    claimed = _acts(caption.tokens)
    if not claimed:
        return []
    said = {act[:3] for act in _acts(original.tokens)}
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
    for index, token in enumerate(tokens):
        if token.text in ".;!?":
            who = verb = None
        elif token.pos == "VERB":
            passive = index + 1 < len(tokens) and tokens[index + 1].lower == "by"
            verb = None if passive else token
        elif token.pos == "NOUN" and _alive(token.lemma):
            if who and verb and who != token.lemma:
                found.append((who, verb.lemma, token.lemma, verb))
                verb = None
            elif not verb:
                who = who or token.lemma
    return found


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
    if value.isdecimal() and _with_others(int(value) - 1, original):
        return None
    return _new(token, f"number {token.text!r} is not in the original")


def _with_others(others: int, original: Text) -> bool:
    """`three soldiers` where the original has `a soldier` and `two other soldiers`."""
    return any(
        first.pos == "NUM" and first.lemma == str(others) and second.lower == "other"
        for first, second in itertools.pairwise(original.tokens)
    )


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
    before = caption.tokens[index - 1].pos if index else "PUNCT"
    noun_before = index and "NOUN" in parts_of_speech(caption.tokens[index - 1].lower)
    if (noun_before or before not in ("DET", "ADJ", "NUM", "ADP")) and "VERB" in parts_of_speech(
        token.lower
    ):
        return None  # `a girl in a yellow dress swings higher`
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
        if _mentions(caption, subject, original):
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
        sentence = text.tokens[start:end]
        head = _first_head(sentence)
        if head is None:
            continue
        if not heads:
            heads = [head, *_joined_heads(sentence, head)]
            if not _is_setting(head):
                break
            living = [t.lemma for t in sentence if t.pos == "NOUN" and _alive(t.lemma)]
            heads += living[:1]
            if living:
                break
        elif number <= 3 and _alive(head):
            heads.append(head)
            break
    return list(dict.fromkeys(heads))


@lru_cache(maxsize=20_000)
def _is_setting(lemma: str) -> bool:
    """Whether a text that begins with it may be about someone in or at it."""
    return not _alive(lemma) and not any(
        lexicon.is_first(lemma, kind)
        for kind in ("vehicle", "food", "beverage", "container", "plant", "machine")
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
        if token.pos in ("NOUN", "PROPN") or (
            token.pos == "ADJ" and index + 1 < len(tokens) and _is_plural(tokens[index + 1])
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
        if nouns:
            head = next((n for n in nouns if _is_plural(n) and _alive(n.lemma)), nouns[-1])
            if _one_thing(tokens, phrase) and _is_plural(head) and len(phrase) > 1:
                head = phrase[-2]  # "a mechanic lies": the last word is the verb
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


def _one_thing(tokens: Sequence[Token], phrase: list[Token]) -> bool:
    start = next(index for index, token in enumerate(tokens) if token is phrase[0])
    before = [token.lower for token in tokens[max(0, start - 3) : start]]
    return any(word in ("a", "an", "one") for word in before)


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
    return (
        lemma == "people" or lexicon.is_first(lemma, "person") or lexicon.is_first(lemma, "animal")
    )


def _mentions(caption: Text, subject: str, original: Text) -> bool:
    if subject in caption.lemmas or not lemmas(subject).isdisjoint(caption.lemmas):
        return True
    human = subject == "people" or lexicon.is_first(subject, "person")
    up = lexicon.implied(subject)
    if human and not caption.lemmas.isdisjoint(("someone", "somebody", "individual", "human")):
        return True
    for token in caption.content:
        if token.pos not in ("NOUN", "PROPN", "ADJ", "VERB"):
            continue
        if human and token.pos in ("ADJ", "VERB"):
            continue
        for lemma in _lemmas(token.lower):
            if human and (lemma == "people" or lexicon.is_first(lemma, "person")):
                other = subject not in ("people", "group") and _is_plural(token)
                if other and lemma != "people" and lemma in original.lemmas:
                    continue  # the customers are not the person at the laptop
                if _same_person(subject, lemma):
                    return True
                continue
            if human:
                continue
            if not _PEERS.get(lemma, frozenset()).isdisjoint((subject,)):
                return True
            own = lexicon.main_senses(lemma)
            if own and not own.isdisjoint(up) and not _too_general(lemma):
                return True
            if not human and lexicon.kind_of(lemma, subject):
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
    "worker performer kid couple friend someone daughter son mother father neighbor "
    "neighbour sister brother"
).split())  # fmt: skip
    if subject in generic or lemma in generic:
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
