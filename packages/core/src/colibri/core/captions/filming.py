"""R3: no words about how it is filmed, unless a camera, frame or screen stands in the scene."""

import re

from colibri.core.captions.filming_terms import FAMILIES, GAZES, PANS, PERHAPS, TERMS
from colibri.core.captions.surface import Span, finding, inside
from colibri.core.captions.told import is_plainly_told, is_told
from colibri.core.clip import Finding


def r3(*, original: str, caption: str) -> tuple[Finding, ...]:
    """No words about how it is filmed: scale, angle, framing, camera, light as craft, look."""
    found: list[Finding] = []
    taken: list[Span] = []
    for terms, is_content, doubt in _KINDS:
        for match in terms.finditer(caption):
            if inside(match.span(), taken) or is_content(match, original, caption):
                continue
            taken.append(match.span())
            message = f"{match.group()!r} is about how it is filmed; leave it out{doubt}"
            found.append(finding("R3", match.span(), caption, message, ambiguous=bool(doubt)))
    return tuple(sorted(found, key=lambda one: one.start or 0))


def _is_content_of_term(match: re.Match[str], original: str, caption: str) -> bool:
    return _is_thing(match, original, caption) or _is_of_the_scene(match, original, caption)


def _is_content_of_family(match: re.Match[str], original: str, caption: str) -> bool:
    if is_told(match.group(), original):
        return True
    return not _IS_SHOT.search(match.group()) and _is_thing(match, original, caption)


def _is_vessel(match: re.Match[str], original: str, caption: str) -> bool:
    """Whether `pans` are for cooking, by the word before."""
    before = caption[: match.start()].rstrip().rsplit(maxsplit=1)
    return bool(before) and before[-1].lower().strip(",;.") in _BEFORE_A_VESSEL


def _never(match: re.Match[str], original: str, caption: str) -> bool:
    return False


_KINDS = (
    (TERMS, _is_content_of_term, ""),
    (PANS, _is_vessel, ""),
    (FAMILIES, _is_content_of_family, ""),
    (GAZES, _never, " (a gaze at the camera)"),
    (PERHAPS, _never, " (perhaps plain)"),
)
"""Terms, what makes them content after all, and the doubt that leaves them to a judge."""
_BEFORE_A_VESSEL = frozenset(
    (
        "a an the two three four several some many hot large small big iron metal copper frying "
        "steel non-stick nonstick cake bread baking roasting sauce pots of his her their other "
        "empty dirty clean sheet shallow deep stacked hanging dust bed gold muffin warming "
        "heavy and these those"
    ).split()
)
_IS_SHOT = re.compile(r"\bshots?\b", re.IGNORECASE)


# ---- in the scene itself ----


def _is_of_the_scene(match: re.Match[str], original: str, caption: str) -> bool:
    """Whether the original has the same words of a frame that something there has, or of the tools
    of somebody who takes or sells pictures."""
    if _FILMING.search(original) and is_plainly_told(match.group(), original):
        return True
    if match.group().lower().endswith("frame"):
        return all(_HAS_A_FRAME.search(text) for text in (original, caption)) and is_told(
            match.group(), original
        )
    return (
        _GOODS.search(match.group()) is not None
        and _TRADE.search(original) is not None
        and is_told(match.group(), original)
    )


_FILMING = re.compile(
    r"\b(?:photograph(?:er|s)|film-?maker|camera(?:man|woman|\s+operator)|film\s+crew|director|"
    r"videographer|vlogger|(?:her|his|their|a|an\s+old)\s+(?:camera|lens|phone|drone|telescope|"
    r"microscope|binoculars))\b",
    re.IGNORECASE,
)
"""Somebody in the scene takes pictures."""
_HAS_A_FRAME = re.compile(
    r"\b(?:bike|bicycle|motorcycle|scooter|cyclist|wheelchair|door|window|mirror|paintings?|"
    r"posters?|glasses|spectacles|optician|hive|beekeeper|loom|tent|greenhouse|bed|saw|chassis)\b",
    re.IGNORECASE,
)
_GOODS = re.compile(
    r"\b(?:lens(?:es)?|camera|tripod|(?:zoom|focus)\s+ring|frames?)\b", re.IGNORECASE
)
_TRADE = re.compile(
    r"\b(?:camera|photo(?:graphy)?)\s+(?:shop|store|counter|repair|museum|workshop|studio|factory|"
    r"fair)\b|\b(?:opticians?|optometrist|lens\s+(?:grinder|maker))\b",
    re.IGNORECASE,
)
"""A place where cameras and lenses are goods."""


def _is_thing(match: re.Match[str], original: str, caption: str) -> bool:
    """A camera, lens, drone or screen that stands in the scene, as the original says too."""
    if _ON_SCREEN.search(match.group()):
        return bool(_A_SCREEN.search(original))
    apparatus = _APPARATUS.search(match.group())
    if apparatus is None or _MOVING_CAMERA.search(match.group()):
        return False
    word = apparatus.group(1).lower()
    low = original.lower()
    at = low.find(word)
    while at >= 0:
        near = low[max(0, at - 60) : at + 40]
        if _HANDLED.search(near) and not TERMS.search(low[max(0, at - 15) : at + 30]):
            return bool(_HANDLED.search(caption[max(0, match.start() - 60) : match.end() + 40]))
        at = low.find(word, at + 1)
    return False


_ON_SCREEN = re.compile(r"\bof\s+the\s+screen$|\bon-?screen$", re.IGNORECASE)
_A_SCREEN = re.compile(r"(?<!on-)(?<!off-)(?<!on )(?<!off )\bscreens?\b|\bmonitor\b", re.IGNORECASE)
_APPARATUS = re.compile(
    r"\b(camera|lens|tripod|gimbal|drone|montage|frame|film|zoom|dolly)\b", re.I
)
_MOVING_CAMERA = re.compile(
    r"\bcamera\s+(?:\w+ly\s+)?(?:pan|tilt|zoom|doll|track|follow|circl|glid|sweep|mov|rotat|"
    r"linger|shift|drift|orbit|pull|push|cut|reveal|show|captur|travel|rises|descends|hovers)",
    re.IGNORECASE,
)
_HANDLED = re.compile(
    r"\b(?:hold|holds|holding|carr\w+|adjust\w*|set\w*|mount\w*|clean\w*|rais\w+|lift\w*|with|"
    r"using|uses|his|her|their|photographer\w*|filmmaker\w*|cameraman|camera crew|operat\w+|"
    r"launch\w*|toy|disposable|old|vintage|polaroid|security|professional|dslr|digital|"
    r"cinematographer\w*|videographer\w*|pilot\w*|film crew|director\w*)\b",
    re.IGNORECASE,
)
