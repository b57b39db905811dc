"""Ways to open a caption with the recording, its audience or a label instead of its subject."""

import re

from colibri.core.captions.commentary import told_words


def indirect_opening(original: str, caption: str, start: int) -> re.Match[str] | None:
    """What stands before the subject at `start` of the caption, if anything does."""
    for pattern in (_LABEL, _DEIXIS, _RECORDING):
        if pattern is _LABEL and not _may_be_label(caption, start):
            continue
        match = pattern.match(caption, start)
        if match and not _is_content(match, original):
            return match
    return None


def _may_be_label(caption: str, start: int) -> bool:
    """A quick look before a slow one."""
    head = caption[start : start + 80]
    return any(mark in head for mark in _LABEL_MARKS) or ". " in head[:30] or ") " in head[:5]


_LABEL_MARKS = (":", " - ", "–", "—", "[")


def label_end(caption: str, start: int) -> int:
    """Where the text behind a label such as `Caption:` begins; `start` without one."""
    match = _LABEL.match(caption, start)
    return match.end() if match else start


def _words(text: str) -> str:
    """An alternation of the words of a text; `_` stands for a space."""
    return "(?:" + "|".join(word.replace("_", r"[\s-]+") for word in text.split()) + ")"


_MEDIUM = _words(
    "video_clip videos? clips? footage recordings? film movie animation reel gif vlog tutorial "
    "documentary screencast slideshow trailer livestream live_stream commercial "
    "advert advertisement ad broadcast newsreel vignette snippet excerpt visuals? sequence segment "
    "depiction portrayal snapshot still photograph photo image picture rendering illustration "
    "screenshot scene scenario tableau compilation overview replay "
    "presentation short_film cutscene gameplay screen_capture capture snap episode "
    "instalment installment storyboard home_movie music_video demo fragment teaser "
    "screen_recording production material"
)
"""What a scene is recorded in."""

_AUDIENCE = _words(
    "the_viewers? viewers? the_audience audiences? the_observers? the_spectator onlookers_here "
    "the_eye our_eyes our_attention attention the_attention the_gaze our_gaze the_watcher"
)
_LABELS = _words(
    "caption captions original title titled heading headline description descriptions summary "
    "synopsis abstract content contents subject subjects topic theme scene scenario setting "
    "location place "
    "shot clip video footage recording image frame visual visuals action actions activity event "
    "output answer result results response reply rewrite rewritten version rewording paraphrase "
    "text prompt narration narrator voiceover voice-over transcript commentary report overview "
    "presentation commercial advertisement genre style category plot story storyline logline "
    "sequence chapter part episode step take segment example item entry note cast characters? "
    "protagonist focus who what where when int ext time_of_day time background foreground "
    "alt_text keywords tags tag short brief final draft option main_idea main_action in_short "
    "in_brief in_summary picture_this the_scene what_happens revised simplified edited tl;dr tldr"
)
"""Labels before a colon or a dash."""

_LABEL = re.compile(
    r"(?:original|before|source|input)\s*:.{1,200}?\b(?:re\w+|after|output|new\s+\w+|captions?|result)\s*:\s*|"
    r"\d{1,2}[.)]\s+(?=[A-Z])|"
    rf"(?:[\w'’&/-]+,?\s+){{0,5}}?{_LABELS}(?:\s+(?:\d+|[A-Z]|here|of\s+the\s+\w+))?[\"”*_]*"
    rf"\s*(?::|\s[-–—]|[–—])[\s*_]*[\"“]?|\[[^\]]{{1,40}}\]\s*|[\"“]?{_LABELS}[\"”]?\s*[.]\s+(?=[A-Z])",
    re.IGNORECASE,
)
_DEIXIS = re.compile(
    # "What follows is", "In what we have here"
    r"(?:in\s+)?what\s+(?:follows|unfolds|happens|comes|is|was|you|we|one|the|can|starts|begins|greets|"
    r"emerges|plays|meets|looks|seems|appears)\b|"
    rf"as\s+(?:(?:can|may|could)\s+be\s+|is\s+|are\s+|if\s+)?(?:seen|shown|depicted|captured|featured|observed|"
    rf"presented|displayed|described|the\s+(?:\w+\s+)?{_MEDIUM}\s+\w+|we\b|you\b)|"
    r"(?:this|that|these|those|it)(?:['’]s|\s+(?:is|are|was|were|here|shows?|depicts?|captures?|features?|"
    r"has|have|looks?|follows?|starts?|begins?|one|time))\b|"
    r"there(?:['’]s|\s+(?:is|are|can\s+be|we|you|appears?|seems?))\b(?=.{0,60}\b(?:seen|shown|video|clip|"
    r"visible|on\s+(?:the\s+)?screen|in\s+(?:the\s+)?(?:frame|scene|shot|footage|picture|image))\b)|"
    r"(?:depicted|shown|seen|captured|featured|presented|pictured|displayed|portrayed|illustrated|"
    r"visible|recorded|filmed|showcased|documented|highlighted|observed|included|introduced|visualised|"
    r"visualized|rendered|caught|preserved)\s*(?:,|:|here\b|in\b|is\b|are\b|by\b|within\b|throughout\b|"
    r"during\b|at\b|above\b|below\b|on\b|before\b|from\b|centre|center|as\b|against\b|to\b|with\b)|"
    r"(?:presenting|introducing|featuring|behold|meet|welcome|ladies\s+and\s+gentlemen|picture|imagine|"
    r"enter|witness|observe|feast|take\s+a|have\s+a|get\s+ready|check\s+out|look|tune|see|notice)\b"
    r"\s*(?:[,:!]|the\b|this\b|a\b|an\b|two\b|three\b|our\b|your\b|how\b|as\b|at\b|to\b|in\b|look\b|peek\b)|"
    rf"{_AUDIENCE}\s+(?:\w+ly\s+)?(?:is|are|can|may|will|gets?|sees?|watch\w*|follows?|observes?|finds?|"
    r"witness\w*|travels?|moves?|falls?|turns?|rests?|lands?|joins?|goes|enters?|meets?|settles?|shifts?)\b|"
    r"(?:the|this|a|our|its)\s+(?:main\s+|central\s+|primary\s+|key\s+|sole\s+|whole\s+|on-?screen\s+|visible\s+|"
    r"visual\s+)*(?:subjects?|focus|figure|action|activity|event|content|theme|topic|protagonist|attention|plot|"
    r"storyline|narrative|narration|story|account|description|caption|text|passage|prompt|material|spotlight|"
    r"centrepiece|centerpiece|focal\s+point|star|hero|emphasis|perspective|viewpoint|display|presentation|"
    r"opening|introduction|beginning)\s+(?:of\s+(?:the|this)\s+\w+\s+|here\s+|shown\s+|then\s+|now\s+)*(?:is|are|cent(?:er|re)s?|"
    r"involves?|shows?|revolves?|falls?|lies|focus\w*|follows?|concerns?|deals|takes?|begins?|starts?|opens?|"
    r"sees|features?|unfolds?|depicts?|presents?|captures?|describes?|tells?|introduces?|consists?|includes?|portrays?)\b|"
    r"(?:on|in|at|within)\s+(?:full\s+)?(?:display|view|frame|shot|camera|film|video|tape|screen|picture|focus)\b\s*"
    r"(?:,|here\b|is\b|are\b|we\b|:|a\b|the\b|an\b)|"
    r"(?:opening|beginning|starting|closing|ending)\s+(?:with|on|in|at|scene|shot)\b|"
    r"a\s+day\s+in\s+the\s+life|(?:a|an|the)\s+(?:\w+\s+)?(?:moment|instance|instant|occasion|situation|episode|example)\s+"
    r"(?:in\s+which|where|when|of|from|captured|shown|unfolds)\b|"
    r"(?:the|this|a|an)\s+(?:\w+\s+){0,2}?(?:glimpse|look|peek|glance|insight|window|overview|study|"
    r"portrait|snapshot|rendition|depiction|portrayal|representation|exploration|showcase|demonstration|visualisation|"
    r"visualization|impression)\s+(?:of|at|into|over|inside|across|on)\b|"
    r"(?:in\s+(?:short|brief|summary|essence|other\s+words|a\s+nutshell)|overall|basically|essentially|to\s+begin|"
    r"first(?:ly)?\s+of\s+all|so|well|now|right|alright|ok|okay|yes)\s*,",
    re.IGNORECASE,
)
_BETWEEN = (
    r"(?!(?:the|a|an|his|her|their|its|of|in|on|at|with|and|by|for|from|to|as|while|who|is|are|over|under|"
    r"into|near|through|behind|beside|holds?|holding|watch\w*|mak\w+|film\w+|record\w+|edit\w+|tak\w+|hang\w*)\b)"
)
_RECORDING = re.compile(
    rf"(?:(?:the|this|that|these|a|an|another|some|our|one|each|part\s+of\s+(?:a|the)|in\s+(?:a|an|the|this|our|one|another)|"
    rf"from\s+(?:a|the|this)|throughout\s+(?:a|the|this)|during\s+(?:a|the|this)|for\s+(?:the|this)|across\s+(?:the|this)|"
    rf"within\s+(?:a|the|this)|it['’]s\s+(?:a|an)|it\s+is\s+(?:a|an)|this\s+is\s+(?:a|an))\s+)?"
    rf"(?:{_BETWEEN}[\w'’-]+,?\s+){{0,5}}?(?P<medium>{_MEDIUM})"
    r"(?=\s+(?:of|on|about|from|by|for|with|in|at|that|which|where|when|who|here|showing|depicting|featuring|"
    r"capturing|following|presenting|portraying|documenting|taken|shot|filmed|shown|titled|called|is|are|was|has|"
    r"shows?|depicts?|features?|captures?|presents?|displays?|opens?|begins?|starts?|follows?|focus\w*|cent\w+|"
    r"introduces?|gives?|offers?|tells?|takes?|provides?|zooms?|pans?|reveals?|records?|documents?|portrays?|sees|"
    r"unfolds?|consists?|contains?|includes?|highlights?|illustrates?|transports?|brings?|plays|lets|invites?|"
    r"explores?|puts|places|sets|showcas\w+|cuts|ends|comes|finds|catches|concerns?|details?|then)\b|\s*[,:;–—]|\s+-\s)",
    re.IGNORECASE,
)


def _is_content(match: re.Match[str], original: str) -> bool:
    """Whether what is recorded stands in the scene itself: `a photo on the wall`."""
    medium = match.groupdict().get("medium")
    return medium is not None and medium.lower() in told_words(_FIRST_WORDS.sub("", original))


_FIRST_WORDS = re.compile(r"^\W*(?:\S+\s+){0,5}")
