"""R1: start with the subject or the scene, not with the recording, its audience or a label."""

import re

from colibri.core.captions import tables
from colibri.core.captions.gate import words_in
from colibri.core.captions.language import tokenize
from colibri.core.captions.surface import any_of, any_pattern, finding, opening_end
from colibri.core.captions.told import told_words
from colibri.core.clip import Finding


def r1(*, original: str, caption: str) -> tuple[Finding, ...]:
    """The caption starts with its subject or scene, not with the video, a viewer or a label."""
    start = opening_end(caption)
    if _THINGS.match(caption, start):
        return ()
    match = _DIRECT.match(caption, start)
    shown = match and _SURFACE.search(match.group())
    if shown and _stands_in(shown.group(1).lower(), original):
        return ()
    if not match and not _SHOWN.isdisjoint(words_in(caption)):
        match = _IS_SHOWN.match(caption, start)
    match = match or _indirect(original, caption, start)
    if not match:
        return ()
    message = f"starts with {match.group()!r}; start with the main subject or scene instead"
    return (finding("R1", match.span(), caption, message),)


def label_end(caption: str, start: int) -> int:
    """Where the text behind a label such as `Caption:` begins; `start` without one."""
    match = _LABEL.match(caption, start)
    return match.end() if match else start


# ---- what stands in the scene itself ----


def _stands_in(word: str, original: str) -> bool:
    """Whether a screen or photograph stands in the scene: the original brings it in as a thing,
    after its first words, which may be about the video."""
    tokens = tokenize(original)
    return any(
        token.lemma == word
        and any(before.lower in _BRINGS_IN for before in tokens[max(0, index - 4) : index])
        for index, token in enumerate(tokens)
        if index > _FIRST_PLACE
    )


_FIRST_PLACE = 5
_BRINGS_IN = frozenset(
    "a an his her their its old large big small another one two three several wide framed".split()
)
_SURFACE = re.compile(r"^(?:the|an?)\b.*\b(screen|photo(?:graph)?|picture)\s+\w+s$", re.IGNORECASE)
_THINGS = re.compile(
    r"\W*(?:the|a|an|this|that)?\s*(?:\w+\s+){0,2}?(?:(?:penalty|free|jump|corner|flu|vaccine|"
    r"warning|espresso|gun|pistol|tennis|golf|rifle|cannon|winning|practice|basketball|"
    r"three-point|trick|bank) shot|shot (?:on|at|of (?:wh|es|vod|teq|rum|gin))|video game|"
    r"video call|video wall|video camera|video screen|film crew|film set|film reel|film projector|"
    r"film director|film student|movie theat|movie poster|movie star|movie screen|clip board|"
    r"picture frame|picture book|picture window|photo album|photo booth|photo frame|shot glass|"
    r"shot put|screen door|screen print|image of (?:a )?saint|short (?:man|woman|boy|girl|person|"
    r"dog|fence|wall|path|road|walk|pier|stack|tree|grass|flight|hair)|(?:crime|murder|accident|"
    r"nativity|fire) scene|frame (?:house|maker|shop)|screening|reel of|scene painter|"
    r"story (?:teller|time|book))",
    re.IGNORECASE,
)


# ---- the recording is named and shows ----


_MEDIUM = (
    r"(?:video(?:\s+clip)?|clip|footage|film|movie|animation|recording|scene|shot|sequence|frame|"
    r"image|picture|photo(?:graph)?|visuals?|vignette|short|montage|timelapse|time-lapse|gif|reel|"
    r"snippet|segment|excerpt|screen|view|narrative|story|content|replay|tutorial|vlog|compilation|"
    r"screencast|slideshow|trailer|documentary|livestream|gameplay)"
)
_TELLS = (
    r"(?:show|depict|feature|open|begin|start|capture|present|display|portray|illustrate|focus|"
    r"follow|consist|contain|showcase|reveal|highlight|document|provide|offer|take|unfold|"
    r"transition|introduce|center|centre|revolve|zoom|pan|includ|exhibit|demonstrat|record|convey|"
    r"describ|tell|giv|featur|captur|showcas|illustrat|introduc|provid|revolv|reflect|evok|explor|"
    r"celebrat|invit|emphasi[sz]|underscor|suggest|take\s+us)(?:s|es|ing|ed|e|ting)?"
)
_SHOWS = "shows|reveals|captures|depicts|presents|features|focuses|offers|gives|displays|introduces"
_DIRECT = any_pattern(
    rf"(?:the|this|that|a|an|our|each|it's a|it is a|this is (?:the|a|an))\s+"
    rf"(?:\w+[- ]){{0,3}}?{_MEDIUM}(?:\s+(?:sequence|clip|footage|here|itself))?,?\s+(?:then\s+|"
    rf"slowly\s+|primarily\s+|simply\s+|mainly\s+|briefly\s+|clearly\s+|that\s+|which\s+|is\s+|"
    rf"of\s+a\s+)?(?:{_TELLS}|set|about|is|was)\b",
    r"(?:(?:the|this|a|an|some|stock|short|brief|raw|amateur|aerial|drone)\s+)*(?:\w+\s+"
    r")?(?:video(?:\s+clip)?|clip|footage|movie|recording|animation|scene|sequence|gif|reel|"
    r"snippet)\s+(?:of|showing|depicting|featuring|capturing|where|in which|with)\b",
    # "A cooking tutorial video of", not "A man watches video of"
    r"an?\s+(?:\w+[- ])?(?!\w*(?:s|ed|ing)\s)\w+\s+(?:video(?:\s+clip)?|clip|footage|"
    r"recording)\s+(?:of|showing|depicting|featuring)\b",
    rf"the\s+(?:following|above|below)\s+(?:\w+\s+)?(?:{_TELLS}|is)\b",
    r"(?:we|you)(?:\s+are|['’]re)\s+(?:now\s+|here\s+|back\s+)?(?:on|in|at|inside|aboard|taken|"
    r"looking|playing|placed|invited)\b|(?:we|you)\s+(?:play|control)\s+(?:as\b|an?\b|the\b)",
    rf"(?:in|within|throughout|during|at the (?:start|beginning|end|opening) of|across|as)\s+"
    rf"(?:the|this|that)\s+(?:\w+\s+){{0,2}}?{_MEDIUM}\b(?!\s+(?:of|door|rate|game|store|shop|"
    rf"set))",
    r"(?:here|below|above)(?:['’]s|\s+(?:we|you|one|is|are|it))\b",
    r"(?:sure|certainly|of course|okay|ok|absolutely|alright|got it|understood)\b\s*[,!.:]",
    r"let(?:['’]s|\s+us)\b",
    r"(?:a|the)\s+(?:\w+\s+)?view\s+(?:of|over|across)\b",
    # "The camera, held at floor level, shows"
    rf"(?:the|this|a|an)\s+(?:\w+[- ])?(?:camera|lens|drone|{_MEDIUM}),\s[^,.]{{1,60}},\s+"
    rf"(?:\w+ly\s+)?(?:{_TELLS}|is|was)\b",
    r"(?:here|below)\s*(?:,|:)",
    rf"(?:the|this|an?)\s+(?:\w+[- ]){{0,2}}?(?:opening|perspective|viewpoint|angle|close-?up|"
    rf"beginning|setting|backdrop)\s+(?:\w+ly\s+)?(?:{_SHOWS})\b",
    r"(?:an?|the)\s+(?:\w+\s+)?(?:glimpse|overview|look|peek|depiction|portrayal)\s+(?:of|at|"
    r"into)\b",
    r"what\s+(?:appears|seems|looks|we|you|is\s+(?:shown|seen))\b",
    r"(?:on|on the)[- ]?screen\b\s*,|(?:step into|welcome to)\b",
    r"(?:we|you|one|viewers?|the viewers?|the audience|i)(?:'re|\s+are|\s+is|\s+am)?\s+(?:can\s+|"
    r"could\s+|may\s+|also\s+|now\s+|then\s+)?(?:see|watch|observe|witness|view|notice|find|look|"
    r"get|shown|presented|taken|greeted|introduced|treated|given)(?:s|es|ing|ed)?\b",
    r"(?:the|a|our)\s+(?:\w+\s+)?(?:camera|lens|cinematographer|filmmaker|narrator|drone)\s+"
    r"(?:slowly\s+|gently\s+|smoothly\s+|then\s+)?(?:pan|tilt|zoom|doll|track|follow|move|rotate|"
    r"circle|pull|push|remain|stay|hold|capture|focus|glide|sweep|linger|shift|cut|drift|orbit|"
    r"open|show|reveal|start|begin|is|takes|captures|flies|rises|lowers|descends)\w*",
    r"(?:shown|seen|pictured|depicted|featured|captured|displayed|presented|filmed|recorded)\s+"
    r"(?:here|in|is|are|on|from|at)\b",
    r"(?:watch|witness|imagine|picture|behold|observe|see|notice|meet|join|experience|look|"
    r"discover)\s+(?:as|how|this|the|a|an|at|one|two|three|four|five|several|some|these|those|"
    r"\d+)\b",
    r"(?:featuring|showing|depicting|displaying|portraying|introducing|presenting|opening|"
    r"starting|beginning|showcasing|capturing)\b(?=\s+(?:a|an|the|with|on|two|in|several|some|"
    r"at)\b)",
    r"(?:title|caption|video|scene|description|shot|clip|visual|subject|setting|int\.|"
    r"ext\.)\s*\d*:",
    r"(?:the\s+|an?\s+)?(?:[\w-]+\s+){0,2}?(?:caption|description|prompt|rewrite|"
    r"version)\b(?:\s*[,(][^.:]{1,60})?\s*:",
    r"(?:this|it)\s+(?:is|shows|depicts|features|captures|opens|begins|appears to)\b",
    r"behind[- ]the[- ]scenes\b|the making of\b",
    r"(?:set in|set against)\b(?=.{0,60}\b(?:video|clip|scene|footage)\b)",
    r"(?:there is|there are)\s+(?:a|an|some)?\s*(?:video|clip|scene|shot|footage)\b",
    r"(?:the|this)\s+(?:main\s+)?(?:subject|focus|protagonist|main character)\s+(?:of|in)\b",
    r"(?:the\s+)?(?:main\s+)?subject\s+(?:is|of)\b",
)
# "A chef is shown slicing", "An alley is the setting of this clip"
_IS_SHOWN = any_pattern(
    r"(?:an?|the|two|three|some|several)\s+(?:[\w-]+\s+){1,8}?(?:is|are)\s+(?:shown|featured|"
    r"captured|"
    rf"depicted|portrayed|pictured|showcased)\s+(?:\w+ing\b|as\b|in\s+(?:the|this)\s+{_MEDIUM}\b)",
    r"[^.,;]{1,80}?\s+(?:is|are)\s+the\s+(?:setting|subject|focus|topic|star)\s+of\s+(?:the|"
    r"this)\s+"
    rf"{_MEDIUM}\b",
)
_SHOWN = frozenset(
    "shown featured captured depicted portrayed pictured showcased setting subject focus topic "
    "star".split()
)


# ---- other ways round the subject ----


def _indirect(original: str, caption: str, start: int) -> re.Match[str] | None:
    """What stands before the subject at `start` of the caption, if anything does."""
    for pattern in (_LABEL, _DEIXIS, _RECORDING):
        if pattern is _LABEL and not _may_be_label(caption, start):
            continue
        match = pattern.match(caption, start)
        if match and not _is_content(match, original):
            return match
    return None


def _is_content(match: re.Match[str], original: str) -> bool:
    """Whether what is recorded stands in the scene itself: `a photo on the wall`."""
    medium = match.groupdict().get("medium")
    return medium is not None and medium.lower() in told_words(_FIRST_WORDS.sub("", original))


_FIRST_WORDS = re.compile(r"^\W*(?:\S+\s+){0,5}")


def _may_be_label(caption: str, start: int) -> bool:
    """A quick look before a slow one."""
    head = caption[start : start + 80]
    return any(mark in head for mark in _LABEL_MARKS) or ". " in head[:30] or ") " in head[:5]


_LABEL_MARKS = (":", " - ", "–", "—", "[")
_WORDS = tables.table("openings")
_RECORDED = any_of(_WORDS["recording"])
_AUDIENCE = any_of(_WORDS["audience"])
_LABELS = any_of(_WORDS["labels"])
_LABEL = re.compile(
    r"(?:original|before|source|input)\s*:.{1,200}?\b(?:re\w+|after|output|new\s+\w+|captions?|"
    r"result)\s*:\s*|\d{1,2}[.)]\s+(?=[A-Z])|"
    rf"(?:[\w'’&/-]+,?\s+){{0,5}}?{_LABELS}(?:\s+(?:\d+|[A-Z]|here|of\s+the\s+"
    rf"\w+))?[\"”*_]*\s*(?::|\s[-–—]|[–—])[\s*_]*[\"“]?|\[[^\]]{{1,40}}\]\s*|"
    rf"[\"“]?{_LABELS}[\"”]?\s*[.]\s+(?=[A-Z])",
    re.IGNORECASE,
)
_DEIXIS = re.compile(
    # "What follows is", "In what we have here"
    r"(?:in\s+)?what\s+(?:follows|unfolds|happens|comes|is|was|you|we|one|the|can|starts|begins|"
    r"greets|emerges|plays|meets|looks|seems|appears)\b|"
    rf"as\s+(?:(?:can|may|could)\s+be\s+|is\s+|are\s+|if\s+)?(?:seen|shown|depicted|captured|"
    rf"featured|observed|presented|displayed|described|the\s+(?:\w+\s+)?{_RECORDED}\s+\w+|we\b|"
    rf"you\b)|"
    r"(?:this|that|these|those|it)(?:['’]s|\s+(?:is|are|was|were|here|shows?|depicts?|captures?|"
    r"features?|has|have|looks?|follows?|starts?|begins?|one|time))\b|there(?:['’]s|\s+(?:is|are|"
    r"can\s+be|we|you|appears?|seems?))\b(?=.{0,60}\b(?:seen|shown|video|clip|visible|on\s+"
    r"(?:the\s+)?screen|in\s+(?:the\s+)?(?:frame|scene|shot|footage|picture|image))\b)|(?:depicted|"
    r"shown|seen|captured|featured|presented|pictured|displayed|portrayed|illustrated|visible|"
    r"recorded|filmed|showcased|documented|highlighted|observed|included|introduced|visualised|"
    r"visualized|rendered|caught|preserved)\s*(?:,|:|here\b|in\b|is\b|are\b|by\b|within\b|"
    r"throughout\b|during\b|at\b|above\b|below\b|on\b|before\b|from\b|centre|center|as\b|against\b|"
    r"to\b|with\b)|(?:presenting|introducing|featuring|behold|meet|welcome|ladies\s+and\s+"
    r"gentlemen|picture|imagine|enter|witness|observe|feast|take\s+a|have\s+a|get\s+ready|"
    r"check\s+out|look|tune|see|notice)\b\s*(?:[,:!]|the\b|this\b|a\b|an\b|two\b|three\b|our\b|"
    r"your\b|how\b|as\b|at\b|to\b|in\b|look\b|peek\b)|"
    rf"{_AUDIENCE}\s+(?:\w+ly\s+)?(?:is|are|can|may|will|gets?|sees?|watch\w*|follows?|observes?|"
    rf"finds?|"
    r"witness\w*|travels?|moves?|falls?|turns?|rests?|lands?|joins?|goes|enters?|meets?|settles?|"
    r"shifts?)\b|(?:the|this|a|our|its)\s+(?:main\s+|central\s+|primary\s+|key\s+|sole\s+|"
    r"whole\s+|on-?screen\s+|visible\s+|visual\s+)*(?:subjects?|focus|figure|action|activity|"
    r"event|content|theme|topic|protagonist|attention|plot|storyline|narrative|narration|story|"
    r"account|description|caption|text|passage|prompt|material|spotlight|centrepiece|centerpiece|"
    r"focal\s+point|star|hero|emphasis|perspective|viewpoint|display|presentation|opening|"
    r"introduction|beginning)\s+(?:of\s+(?:the|this)\s+\w+\s+|here\s+|shown\s+|then\s+|now\s+"
    r")*(?:is|are|cent(?:er|re)s?|involves?|shows?|revolves?|falls?|lies|focus\w*|follows?|"
    r"concerns?|deals|takes?|begins?|starts?|opens?|sees|features?|unfolds?|depicts?|presents?|"
    r"captures?|describes?|tells?|introduces?|consists?|includes?|portrays?)\b|(?:on|in|at|"
    r"within)\s+(?:full\s+)?(?:display|view|frame|shot|camera|film|video|tape|screen|picture|"
    r"focus)\b\s*(?:,|here\b|is\b|are\b|we\b|:|a\b|the\b|an\b)|(?:opening|beginning|starting|"
    r"closing|ending)\s+(?:with|on|in|at|scene|shot)\b|a\s+day\s+in\s+the\s+life|(?:a|an|the)\s+"
    r"(?:\w+\s+)?(?:moment|instance|instant|occasion|situation|episode|example)\s+(?:in\s+which|"
    r"where|when|of|from|captured|shown|unfolds)\b|(?:the|this|a|an)\s+(?:\w+\s+){0,2}?(?:glimpse|"
    r"look|peek|glance|insight|window|overview|study|portrait|snapshot|rendition|depiction|"
    r"portrayal|representation|exploration|showcase|demonstration|visualisation|visualization|"
    r"impression)\s+(?:of|at|into|over|inside|across|on)\b|(?:in\s+(?:short|brief|summary|essence|"
    r"other\s+words|a\s+nutshell)|overall|basically|essentially|to\s+begin|first(?:ly)?\s+of\s+"
    r"all|so|well|now|right|alright|ok|okay|yes)\s*,",
    re.IGNORECASE,
)
_BETWEEN = (
    r"(?!(?:the|a|an|his|her|their|its|of|in|on|at|with|and|by|for|from|to|as|while|who|is|are|"
    r"over|under|into|near|through|behind|beside|holds?|holding|watch\w*|mak\w+|film\w+|record\w+|"
    r"edit\w+|tak\w+|hang\w*)\b)"
)
_RECORDING = re.compile(
    rf"(?:(?:the|this|that|these|a|an|another|some|our|one|each|part\s+of\s+(?:a|the)|in\s+(?:a|an|"
    rf"the|this|our|one|another)|from\s+(?:a|the|this)|throughout\s+(?:a|the|this)|during\s+(?:a|"
    rf"the|this)|for\s+(?:the|this)|across\s+(?:the|this)|within\s+(?:a|the|this)|it['’]s\s+(?:a|"
    rf"an)|it\s+is\s+(?:a|an)|this\s+is\s+(?:a|an))\s+)?(?:{_BETWEEN}[\w'’-]+,?\s+"
    rf"){{0,5}}?(?P<medium>{_RECORDED})"
    r"(?=\s+(?:of|on|about|from|by|for|with|in|at|that|which|where|when|who|here|showing|"
    r"depicting|featuring|capturing|following|presenting|portraying|documenting|taken|shot|filmed|"
    r"shown|titled|called|is|are|was|has|shows?|depicts?|features?|captures?|presents?|displays?|"
    r"opens?|begins?|starts?|follows?|focus\w*|cent\w+|introduces?|gives?|offers?|tells?|takes?|"
    r"provides?|zooms?|pans?|reveals?|records?|documents?|portrays?|sees|unfolds?|consists?|"
    r"contains?|includes?|highlights?|illustrates?|transports?|brings?|plays|lets|invites?|"
    r"explores?|puts|places|sets|showcas\w+|cuts|ends|comes|finds|catches|concerns?|details?|"
    r"then)\b|\s*[,:;–—]|\s+-\s)",
    re.IGNORECASE,
)
