"""Rules that read the caption's own words: R1 direct start, R3 cinematography, R5 analysis, R6
first person; and the extra checks. Patterns are scanned over the raw text, so that spans are exact.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import zip_longest

from colibri.core.captions import lexicon
from colibri.core.captions.commentary import comments, is_told, speaks_of_recording
from colibri.core.captions.craft import craft_terms
from colibri.core.captions.gate import Gated, words_in
from colibri.core.captions.language import parts_of_speech, tokenize
from colibri.core.captions.openings import indirect_opening, label_end
from colibri.core.clip import Finding


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)


# ---- R1: start with the subject or the scene ----

_MEDIUM = (
    r"(?:video(?:\s+clip)?|clip|footage|film|movie|animation|recording|scene|shot|sequence|frame"
    r"|image|picture|photo(?:graph)?|visuals?|vignette|short|montage|timelapse|time-lapse|gif|reel"
    r"|snippet|segment|excerpt|screen|view|narrative|story|content|replay|tutorial|vlog|compilation"
    r"|screencast|slideshow|trailer|documentary|livestream|gameplay)"
)
_TELLS = (
    r"(?:show|depict|feature|open|begin|start|capture|present|display|portray|illustrate|focus"
    r"|follow|consist|contain|showcase|reveal|highlight|document|provide|offer|take|unfold|"
    r"transition|introduce|center|centre|revolve|zoom|pan|includ|exhibit|demonstrat|record"
    r"|convey|describ|tell|giv|featur|captur|showcas|illustrat|introduc|provid|revolv|reflect|evok"
    r"|explor|celebrat|invit|emphasi[sz]|underscor|suggest|take\s+us)"
    r"(?:s|es|ing|ed|e|ting)?"
)
_SHOWS = "shows|reveals|captures|depicts|presents|features|focuses|offers|gives|displays|introduces"
_R1 = _any(
    rf"(?:the|this|that|a|an|our|each|it's a|it is a|this is (?:the|a|an))\s+(?:\w+[- ]){{0,3}}?{_MEDIUM}"
    rf"(?:\s+(?:sequence|clip|footage|here|itself))?,?\s+(?:then\s+|slowly\s+|primarily\s+|simply\s+|"
    rf"mainly\s+|briefly\s+|clearly\s+|that\s+|which\s+|is\s+|of\s+a\s+)?(?:{_TELLS}|set|about|is|was)\b",
    r"(?:(?:the|this|a|an|some|stock|short|brief|raw|amateur|aerial|drone)\s+)*(?:\w+\s+)?"
    r"(?:video(?:\s+clip)?|clip|footage|movie|recording|animation|scene|sequence|gif|reel|snippet)"
    r"\s+(?:of|showing|depicting|featuring|capturing|where|in which|with)\b",
    # "A cooking tutorial video of", not "A man watches video of"
    r"an?\s+(?:\w+[- ])?(?!\w*(?:s|ed|ing)\s)\w+\s+(?:video(?:\s+clip)?|clip|footage|recording)\s+"
    r"(?:of|showing|depicting|featuring)\b",
    rf"the\s+(?:following|above|below)\s+(?:\w+\s+)?(?:{_TELLS}|is)\b",
    r"(?:we|you)(?:\s+are|['’]re)\s+(?:now\s+|here\s+|back\s+)?(?:on|in|at|inside|aboard|taken|looking"
    r"|playing|placed|invited)\b|(?:we|you)\s+(?:play|control)\s+(?:as\b|an?\b|the\b)",
    rf"(?:in|within|throughout|during|at the (?:start|beginning|end|opening) of|across|as)\s+"
    rf"(?:the|this|that)\s+(?:\w+\s+){{0,2}}?{_MEDIUM}\b(?!\s+(?:of|door|rate|game|store|shop|set))",
    r"(?:here|below|above)(?:['’]s|\s+(?:we|you|one|is|are|it))\b",
    r"(?:sure|certainly|of course|okay|ok|absolutely|alright|got it|understood)\b\s*[,!.:]",
    r"let(?:['’]s|\s+us)\b",
    r"(?:a|the)\s+(?:\w+\s+)?view\s+(?:of|over|across)\b",
    # "The camera, held at floor level, shows"
    rf"(?:the|this|a|an)\s+(?:\w+[- ])?(?:camera|lens|drone|{_MEDIUM}),\s[^,.]{{1,60}},\s+(?:\w+ly\s+)?"
    rf"(?:{_TELLS}|is|was)\b",
    r"(?:here|below)\s*(?:,|:)",
    rf"(?:the|this|an?)\s+(?:\w+[- ]){{0,2}}?(?:opening|perspective|viewpoint|angle|close-?up|beginning"
    rf"|setting|backdrop)\s+(?:\w+ly\s+)?(?:{_SHOWS})\b",
    r"(?:an?|the)\s+(?:\w+\s+)?(?:glimpse|overview|look|peek|depiction|portrayal)\s+(?:of|at|into)\b",
    r"what\s+(?:appears|seems|looks|we|you|is\s+(?:shown|seen))\b",
    r"(?:on|on the)[- ]?screen\b\s*,|(?:step into|welcome to)\b",
    r"(?:we|you|one|viewers?|the viewers?|the audience|i)(?:'re|\s+are|\s+is|\s+am)?\s+(?:can\s+|could\s+"
    r"|may\s+|also\s+|now\s+|then\s+)?(?:see|watch|observe|witness|view|notice|find|look|get|shown"
    r"|presented|taken|greeted|introduced|treated|given)(?:s|es|ing|ed)?\b",
    r"(?:the|a|our)\s+(?:\w+\s+)?(?:camera|lens|cinematographer|filmmaker|narrator|drone)\s+"
    r"(?:slowly\s+|gently\s+|smoothly\s+|then\s+)?(?:pan|tilt|zoom|doll|track|follow|move|rotate|"
    r"circle|pull|push|remain|stay|hold|capture|focus|glide|sweep|linger|shift|cut|drift|orbit|open"
    r"|show|reveal|start|begin|is|takes|captures|flies|rises|lowers|descends)\w*",
    r"(?:shown|seen|pictured|depicted|featured|captured|displayed|presented|filmed|recorded)\s+"
    r"(?:here|in|is|are|on|from|at)\b",
    r"(?:watch|witness|imagine|picture|behold|observe|see|notice|meet|join|experience|look|discover)"
    r"\s+(?:as|how|this|the|a|an|at|one|two|three|four|five|several|some|these|those|\d+)\b",
    r"(?:featuring|showing|depicting|displaying|portraying|introducing|presenting|opening|starting"
    r"|beginning|showcasing|capturing)\b(?=\s+(?:a|an|the|with|on|two|in|several|some|at)\b)",
    r"(?:title|caption|video|scene|description|shot|clip|visual|subject|setting|int\.|ext\.)\s*\d*:",
    r"(?:the\s+|an?\s+)?(?:[\w-]+\s+){0,2}?(?:caption|description|prompt|rewrite|version)\b"
    r"(?:\s*[,(][^.:]{1,60})?\s*:",
    r"(?:this|it)\s+(?:is|shows|depicts|features|captures|opens|begins|appears to)\b",
    r"behind[- ]the[- ]scenes\b|the making of\b",
    r"(?:set in|set against)\b(?=.{0,60}\b(?:video|clip|scene|footage)\b)",
    r"(?:there is|there are)\s+(?:a|an|some)?\s*(?:video|clip|scene|shot|footage)\b",
    r"(?:the|this)\s+(?:main\s+)?(?:subject|focus|protagonist|main character)\s+(?:of|in)\b",
    r"(?:the\s+)?(?:main\s+)?subject\s+(?:is|of)\b",
)
# "A chef is shown slicing", "An alley is the setting of this clip"
_R1_SHOWN = _any(
    r"(?:an?|the|two|three|some|several)\s+(?:[\w-]+\s+){1,8}?(?:is|are)\s+(?:shown|featured|captured|"
    rf"depicted|portrayed|pictured|showcased)\s+(?:\w+ing\b|as\b|in\s+(?:the|this)\s+{_MEDIUM}\b)",
    r"[^.,;]{1,80}?\s+(?:is|are)\s+the\s+(?:setting|subject|focus|topic|star)\s+of\s+(?:the|this)\s+"
    rf"{_MEDIUM}\b",
)
_SHOWN = frozenset(
    "shown featured captured depicted portrayed pictured showcased setting subject focus topic "
    "star".split()
)
_R1_OBJECTS = re.compile(
    r"\W*(?:the|a|an|this|that)?\s*(?:\w+\s+){0,2}?"
    r"(?:(?:penalty|free|jump|corner|flu|vaccine|warning|espresso|gun|pistol|tennis|golf|rifle|cannon|"
    r"winning|practice|basketball|three-point|trick|bank) shot|shot (?:on|at|of (?:wh|es|vod|teq|rum|gin))|"
    r"video game|video call|video wall|video camera|video screen|film crew|film set|film reel|"
    r"film projector|film director|film student|movie theat|movie poster|movie star|movie screen|"
    r"clip board|picture frame|picture book|picture window|photo album|photo booth|photo frame|"
    r"shot glass|shot put|screen door|screen print|image of (?:a )?saint|short (?:man|woman|boy|"
    r"girl|person|dog|fence|wall|path|road|walk|pier|stack|tree|grass|flight|hair)|"
    r"(?:crime|murder|accident|nativity|fire) scene|frame (?:house|maker|shop)|screening|reel of|scene painter|story (?:teller|time|book))",
    re.IGNORECASE,
)
_OPENING = re.compile(r"[\s\"'“”‘’*_#>\-(\[]*")


def r1(*, original: str, caption: str) -> tuple[Finding, ...]:
    """The caption starts with its subject or scene, not with the video, a viewer or a label."""
    start = _opening_end(caption)
    if _R1_OBJECTS.match(caption, start):
        return ()
    match = _R1.match(caption, start)
    shown = match and _SURFACE.search(match.group())
    if shown and _stands_in(shown.group(1).lower(), original):
        return ()
    if not match and not _SHOWN.isdisjoint(words_in(caption)):
        match = _R1_SHOWN.match(caption, start)
    match = match or indirect_opening(original, caption, start)
    if not match:
        return ()
    message = f"starts with {match.group()!r}; start with the main subject or scene instead"
    return (_finding("R1", match.start(), match.end(), caption, message),)


_SURFACE = re.compile(r"^(?:the|an?)\b.*\b(screen|photo(?:graph)?|picture)\s+\w+s$", re.IGNORECASE)
_BRINGS_IN = frozenset(
    "a an his her their its old large big small another one two three several wide framed".split()
)


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


def _opening_end(caption: str) -> int:
    match = _OPENING.match(caption)
    return match.end() if match else 0


# ---- R3: no cinematography terms ----

_MOVES = (
    r"(?:pan|tilt|zoom|doll|track|follow|move|rotate|circle|pull|push|remain|stay|hold|capture|focus"
    r"|focuse|glide|sweep|linger|shift|cut|drift|orbit|shake|sway|swing|rise|descend|fl(?:y|ies)|"
    r"hover|start|begin|show|reveal|keep|maintain|travel|advance|approach|transition|settle|switch|"
    r"return|close|is|was|turn|scan|survey|lower|lift|jib|crane|creep|spin|roll|angle|frame|record|"
    r"provide|work|perspective|ascend|slide|slowly|gently|smoothly|gradually|steadily|then|"
    r"quickly|subtly|first|briefly|now|does|never|barely|trail|tracks|whips|dips|pivots|dwells|"
    r"stops|pauses|goes|comes|takes|looks|peers|soars|floats)"
    r"(?:s|es|ies|ed|ing|ning|ting|ming|med|ned|ted)?"
)
_SCALE = (
    r"(?:wide|medium|long|close|close-?\s?up|extreme|aerial|drone|overhead|low-?angle|high-?angle|"
    r"tracking|dolly|crane|panning|static|steady|establishing|over-the-shoulder|pov|point-of-view|"
    r"macro|zoom|zoomed|zoomed-in|zoom-in|handheld|hand-held|slow-?motion|cinematic|single|opening|"
    r"final|closing|continuous|tight|mid|full|full-body|reverse|insert|cutaway|master|following|"
    r"push-in|pull-out|pull-back|bird's-eye|eye-level|dutch|dutch-angle|portrait|profile|reaction|"
    r"two|three|group|beauty|hero|product|establishing|extreme|locked|locked-off|fixed|stationary|"
    r"side|front|rear|top-down|sweeping|smooth|tilt|tilting|action|landscape|orbiting|orbital|"
    r"wide-angle|time-?lapse|medium-wide|medium-close|head-on|cowboy|american|ground-level|"
    r"high|low|first|next|second|third|last|split-screen|arc|whip|jib|steadicam|gimbal|still)"
)
_PLAIN_R3 = Gated(
    # shot scale
    rf"\b{_SCALE}(?:[- ](?:up|angle|level|wide|view|scale|length|to-medium))?(?:,\s*\w+)?[- ]shots?\b"
    r"(?!\s+(?:glass|put|clock|of\s+(?:whisk|vodka|tequila|espresso|rum|vaccine|liquor)))",
    r"\b(?:extreme\s+)?close-?ups?\b(?!\s+(?:shop|the\s+shop))",
    r"\bclose up\s+(?:of|on|view|shot|image|footage)\b",
    r"\b(?:the|this|each|a|an)\s+shot\s+(?:is|was|show|captur|pan|then|of|focus|reveal|frame|begin"
    r"|start|end|open|cut|from|widen|tighten|linger|hold|follow|transition|emphas|highlight|"
    r"composition|remain|move|zoom|tilt|changes)\w*"
    r"(?!\s+(?:whisk|vodka|tequila|espresso|rum|vaccine|liquor|glass|a\s+vaccine|medicine|ouzo|gin"
    r"|insulin|bourbon|coffee))",
    r"\bshot\s+(?:on|with|in|at|using|against)\s+(?:an?\s+)?(?:\w+[- ]){0,2}?(?:film|camera|lens|"
    r"\d+\s?mm|iphone|drone|4k|8k|hd|black|slow|anamorphic|stock|location|style|light|angle|eye|"
    r"night|resolution|frames|fps|dslr|steadicam|gimbal)",
    r"\b(?:shot|filmed|captured|framed|viewed|seen|photographed|recorded|presented|shown)\s+from\s+"
    r"(?:a|an|the)?\s*(?:\w+[- ]){0,3}?(?:above|below|behind|angle|perspective|viewpoint|vantage|"
    r"overhead|point of view|height|side-on|distance)\b",
    r"\b(?:filmed|shot|captured|recorded)\s+(?:in|at|on|with|using|by|handheld|entirely|mostly)\b"
    r"\s+(?:a\s+|the\s+)?(?:single|one|slow|high|low|black|close|eye|wide|natural|drone|4k|8k|hd|"
    r"handheld|gimbal|macro|vivid|stunning|sharp|crisp|warm|cool|soft|real|detail|portrait|medium)",
    r"\b(?:filmed|shot|captured|recorded)\s+hand-?held\b|\bhand-?held(?=\s*(?:[.,;]|with\b|in\b|by\b|and\b|$))"
    r"|\bdocumentary(?:-style|\s+(?:feel|style|look|footage|approach))",
    r"\b(?:fills?|filling|enters?|entering|leaves?|leaving|in|within|into|across|throughout|of|before|as|"
    r"until|when)\s+the\s+shot\b(?!\s+(?:glass|put|clock|of|is\s+(?:blocked|saved|missed)|hits|goes|"
    r"bounces|flies|misses|lands))",
    r"\bestablishing\s+(?:view|sequence)\b",
    r"\b(?<!picture )framing\b(?!\s+(?:a\s+(?:house|wall|picture|painting)|the\s+(?:house|wall|"
    r"painting)|shop|store|studio|workshop|hammer|nail|square|lumber|crew|table))",
    # angle
    r"\b(?:low|high|dutch|canted|oblique|camera|wide|top-?down|overhead|eye-level|bird'?s[- ]eye|"
    r"worm'?s[- ]eye|aerial|downward|upward|side|shifting|fixed|tilted|unusual|dramatic|changing)"
    r"[- ]angles?\b(?!\s+(?:grinder|bracket|iron|triangle))",
    r"\bangles?\s+(?:of the camera|shot|view)\b",
    r"\b(?:from|at)\s+(?:a|an)\s+(?:\w+\s+)?(?:low|high|slightly (?:low|high|elevated)|elevated|overhead|"
    r"tilted|dramatic|frontal)\s+(?:angle|vantage|viewpoint|perspective|position)\b",
    r"\bbird'?s[- ]eye\b|\bworm'?s[- ]eye\b|\beye[- ]level\s+(?:shot|view|angle|perspective|camera)",
    r"\bat eye[- ]level\b",
    r"\b(?:aerial|overhead|top-?down|drone|panoramic|wide|close|elevated|first-person|third-person|"
    r"macro|zoomed-in|over-the-shoulder|isometric)\s+(?:view|perspective|footage|viewpoint|pov|"
    r"vantage point)s?\b",
    r"\bpoint[- ]of[- ]view\b|\bpov\b|\bover[- ]the[- ]shoulder\b|\bvantage point\b",
    # composition
    r"\brule of thirds\b|\bnegative space\b|\bleading lines\b|\bmise[- ]en[- ]sc[eè]ne\b",
    r"\b(?:symmetrical|balanced|centered|centred|visual|overall|tight|careful|minimalist|dynamic|"
    r"diagonal|well-balanced|asymmetrical|striking|artistic|the)\s+composition\b"
    r"(?!\s+(?:book|notebook|class|paper|for|by|on the piano))",
    r"\b(?:in|into|within|inside|across|from|out of|leaves?|leaving|enters?|entering|exits?|exiting|"
    r"fills?|filling|crosses|crossing|dominates?|dominating|occup(?:y|ies|ying)|through)\s+"
    r"(?:the\s+)?(?:entire\s+|whole\s+|center of the\s+|edge of the\s+|left of the\s+|opening\s+)?"
    r"frame\b(?!\s+(?:of\s+(?:the\s+(?!shot|video|clip|camera)|a|an|his|her)|on|house|that|with|made|hang|above|around))",
    r"\b(?:center|centre|middle|edge|side|left|right|top|bottom|corner|part|half|third|portion)s?\s+of"
    r"\s+the\s+(?:frame|shot|composition|screen)\b(?!\s+(?:of|hang|door|tent|protector|with|around"
    r"|above|she|he|they|as he|as she))",
    r"\b(?:tightly|loosely|perfectly|beautifully|carefully|neatly|well|symmetrically|centrally|"
    r"closely)[- ]framed\b|\bframed\s+(?:in|within|centrally|tightly|against|symmetrically|so|from|"
    r"to)\b",
    r"\b(?:foreground|background)\s+(?:blur|bokeh|separation|framing)\b",
    # camera and its movement
    rf"\b(?:the|a|an|its|this|our|handheld|steady|moving|static|stationary|fixed|overhead|drone|"
    rf"shaky|slow|smooth|single|invisible)\s+camera(?:'s|work)?\s+(?:\w+ly\s+)?{_MOVES}\b",
    rf"\bcamera,\s[^,.]{{1,60}},\s+(?:\w+ly\s+)?{_MOVES}\b",
    r"\bthe\s+drone\s+(?:\w+ly\s+)?(?:circl|pan|tilt|orbit|sweep|track|reveal|captur|glid)\w*",
    r"\bcamera\s?(?:movements?|motions?|work|angles?|shake|position|positioning|perspective|view|"
    r"pans?|tilts?|zooms?|moves|techniques?|tracking|focus|follow\w*|remains|stays|panning|cuts?)\b"
    r"|\bcamerawork\b",
    r"\b(?:as|while|when|and|until|before|then|with)\s+the\s+camera\b(?!\s+(?:in\s+(?:his|her|their)|"
    r"strap|bag|around|on\s+(?:the|a)\s+(?:tripod|table)|hang|crew|to\s+(?:his|her)))",
    r"\b(?:handheld|hand-held|shaky|static|steady|roving|stationary|moving|tracking|wandering)\s+"
    r"(?:camera|footage|style|feel|look|quality|cinematography|camerawork|cam)\b",
    r"\bzoom(?:s|ed|ing)?\s+(?:slowly\s+|gradually\s+|smoothly\s+|gently\s+|further\s+|back\s+|right\s+)?"
    r"(?:in|out)\b|\bzoom-?(?:in|out)s?\b|\b(?:slow|gradual|gentle|quick|crash|smooth|subtle|dolly|"
    r"digital|rapid)\s+zoom\b",
    r"\bpann?(?:ed|ing)\s+(?:slowly\s+|smoothly\s+|gently\s+)?(?:shot|left|right|up|down|across|over|"
    r"around|out|from|to|towards?|along|motion|camera|movement|view|past|back|away|upwards?|"
    r"downwards?|through)\b",
    r"\b(?:slow|gentle|smooth|whip|quick|horizontal|vertical|leftward|rightward|sweeping|steady)\s+pan"
    r"\b(?!\s+(?:of\s+(?:soup|oil|stew|sauce|eggs|rice|water|food|butter)|on\s+the\s+stove))",
    r"\bdoll(?:y|ies|ying|ied)\s+(?:in|out|shot|back|zoom|forward|toward|movement|track|past|left|"
    r"right|around|through|along|closer|away)\w*",
    r"\b(?:tracking|trucking|crane|jib|steadicam|gimbal|push-?in|pull-?back|dolly|arc)\s+(?:shot|"
    r"movement|motion|camera|footage|sequence)s?\b|\bsteadicam\b|\bwhip[- ]pan\w*|\bgimbal\b",
    r"\btilts?\s+(?:slowly\s+|smoothly\s+)?(?:up|down|upwards?|downwards?)\s+(?:to|from|toward)\b"
    r"|\b(?:slow|gentle|smooth|upward|downward)\s+tilt\s+(?:up|down|from|to|reveals|of the camera)\b",
    r"\bdrone\s+(?:shot|footage|view|video|camera|perspective|flies over to reveal)\w*",
    r"\b(?:stock|aerial|archival|grainy|black-and-white|slow-motion|night-vision|raw|vintage|home|"
    r"sped-up|high-speed|cctv|security|body-cam|gopro|underwater|film|macro|b-roll)\s+footage\b",
    r"\bcinematograph\w*|\bcinematic\w*|\bfilmic\b|\bvideograph\w*\b(?=\s+(?:style|technique))",
    # light as craft
    r"\b(?:soft|natural|dramatic|warm|golden|ambient|diffused?|studio|moody|harsh|low-?key|"
    r"high-?key|rim|back|side|volumetric|bright|dim|even|professional|artificial|atmospheric|"
    r"cool|gentle|subtle|overhead|indoor|dynamic|three-point|fill|key|stage|contrasting|subdued|"
    r"flat|balanced|hard|directional|mood|lower|low|accent|theatrical|strong|stark|blue|neutral|"
    r"overall|practical|chiaroscuro|romantic|beautiful|rembrandt|butterfly|split|cold|muted)[- ]"
    r"lighting\b(?!\s+(?:fixture|store|rig is|shop|equipment|a\b|the\b|candles|up|up the|technician))",
    r"\b(?:the|its|with)\s+lighting\s+(?:is|was|in|creates?|casts?|highlight|emphas|remains?|setup|"
    r"effect|scheme|adds?|gives?|enhanc|suggests?|shifts?|changes?|design|condition|and|accentuat|"
    r"appears|illuminat|makes|brings|throughout|dims)\w*",
    r"\bback-?li(?:t|ghts?|ghting)\b|\brim[- ]li(?:t|ght)\w*|\bkey light\b|\blens flares?\b|\bgolden[- ]hour\b"
    r"|\bchiaroscuro\b|\bwell-lit\b|\blow-key\b|\bhigh-key\b|\bblue[- ]hour\b|\bvolumetric\b"
    r"|\bsilhouette lighting\b|\blighting\s+(?:setup|conditions?|design|scheme|effects?)\b",
    # colour and look
    r"\bcolou?r[- ](?:grad(?:e|ed|ing)|palettes?|correct\w*|temperature|treatment|tones?|scheme)\b",
    r"\b(?:warm|cool|muted|vibrant|earthy|desaturated|pastel|neutral|monochromatic|sepia|saturated|"
    r"earth|teal[- ]and[- ]orange|rich|soft|cold|golden|dark|bluish|subdued)[- ](?:colou?r\s+)?"
    r"(?:palette|grading|grade|tonality|hues? dominate)\b",
    r"\b(?:warm|cool|muted|sepia|desaturated|monochromatic|teal)[- ](?:colou?r\s+)?tones?\b",
    r"\bsepia(?:-toned)?\b|\bdesaturated\b|\bmonochrom(?:e|atic)\b|\bvignett(?:e|ing)\b|\bfilm grain\b"
    r"|\bgrainy\b(?=\s+(?:texture|look|quality|film|image|footage|video))|\bfilm noir\b|\bnoir\b"
    r"|\bhigh[- ]contrast\b|\blow[- ]contrast\b|\bhigh dynamic range\b|\bhdr\b|\bover-?exposed\b"
    r"|\bunder-?exposed\b|\bphotorealis\w*|\bhyper-?realis\w*|\bblack[- ]and[- ]white\s+(?:film|"
    r"footage|video|style|shot|cinematography|photography|image|look|photo)\b"
    r"|\bin\s+black[- ]and[- ]white\b(?!\s+(?:stripes|clothes|clothing|uniforms?|outfits?|dress|suits?"
    r"|costumes?|shirts?|tiles?))|\bvintage\s+(?:film|look|filter|aesthetic)\b|\bretro filter\b"
    r"|\b(?:visual|overall|film)\s+aesthetic\b|\bart(?:istic)?\s+direction\b|\bfilm stock\b",
    # lens, focus, speed, format
    r"\bdepth[- ]of[- ]field\b|\bbokeh\b|\bfish-?eye\b|\btelephoto\b|\bwide-angle\b|\banamorphic\b"
    r"|\bmotion blur\b|\brack(?:s|ing)?\s+focus\b|\bfocus\s+(?:pull|rack)\w*|\bdeep focus\b"
    r"|\bshallow focus\b|\bsoft[- ]focus\b|\btilt-shift\b|\blong exposure\b|\baperture\b",
    r"\b(?:in|into|out of)\s+(?:sharp\s+|crisp\s+|soft\s+|clear\s+|perfect\s+|full\s+)?focus\b"
    r"|\bout-of-focus\b|\bsharp(?:ly)?\s+(?:in\s+)?focus(?:ed)?\b|\bsharp focus\b",
    r"\bfocus\s+(?:shift|chang|mov|transition|is\s+(?:on|sharp|soft|placed|primarily|entirely|"
    r"maintained)|remains?\s+on|stays\s+on|then)\w*|\bthe\s+(?:main\s+)?focus\s+(?:of|on|is)\b",
    r"\b(?:is|are|appears?|remains?|stays?|becomes?)\s+(?:\w+ly\s+)?(?:blurred|blurry)\b",
    r"\bblurr(?:ed|y)\s+(?:background|foreground|backdrop|surroundings)\b|\b(?:background|foreground|"
    r"backdrop)\s+(?:\w+\s+){0,3}?(?:blurred|blurry|blurs)\b|\bblurs\s+the\s+background\b",
    r"\bslow[- ]?motion\b|\bslo-?mo\b|\bin slow-mo\b|\btime-?\s?lapse\b|\bhyper-?lapse\b|\bfast[- ]motion"
    r"\b|\bsped[- ]up\b|\bspeed ramp\w*|\bfreeze[- ]frame\b|\bstop[- ]motion\b|\bframes? per second\b"
    r"|\bframe[- ]rate\b|\bfast-forward(?:s|ed|ing)?\b|\breal-time footage\b|\b\d{2,3}\s?fps\b",
    r"\b(?:4k|8k|1080p|720p|uhd|ultra[- ]?hd|hd|full hd)\b|\b(?:ultra[- ])?high[- ](?:definition|"
    r"resolution|quality\s+(?:video|footage|image))\b|\b\d{2,3}\s?mm\b(?:\s+(?:film|lens))?"
    r"|\b(?:macro|prime|zoom|wide|camera|telephoto|vintage|spherical)\s+lens(?:es)?\b"
    r"|\blens\s+(?:captures|focus|compression|distortion|choice)\w*|\bthrough the lens\b"
    r"|\bultra-?wide\b|\bwidescreen\b|\baspect ratio\b|\bletterbox\w*",
    r"\b(?:vertical|phone|smartphone|mobile|handheld|selfie|drone|gopro|webcam|cctv)\s+(?:phone\s+)?video\b"
    r"(?!\s+(?:game|call|screen|feed|wall))",
    r"\bcamera\s+(?:opens|starts|begins)\s+(?:on|with)\b|\ba\s+(?:\w+\s+)?cut\s+(?:reveals|brings|takes\s+us)\b",
    # editing
    r"\b(?:single|continuous|unbroken|uninterrupted|long)(?:,?\s+\w+)?\s+take\b"
    r"|\b(?:in|as)\s+one\s+take\b|\bintercut\w*|\bcross-?cut(?:s|ting)\s+between\b",
    r"\b(?:with|in|using)\s+(?:\w+\s+)?cuts\s+(?:between|from|to)\b|\bediting\s+cuts?\b"
    r"|\b(?:quick|fast|rapid|abrupt|frequent|hard)\s+cuts\b(?!\s+(?:of|on|along|across|into))",
    r"\bcut(?:s|ting)?\s+(?:between|among)\s+(?:[\w-]+\s+){0,4}?(?:cameras|shots|angles|views|scenes|"
    r"perspectives|close-?ups|faces|clips)\b",
    r"\b(?:cuts?|cutting)\s+(?:\w+ly\s+)?(?:to|away|back|between)\s+(?:a|an|the|another|black|her|his)"
    r"\s*(?:\w+[- ]){0,2}?(?:shot|scene|close|view|black|clip|wide|angle|face|frame|crowd|medium)\w*"
    r"|\bcuts? to black\b|\bfad(?:es?|ing)\s+(?:in|out)?\s*(?:to|from|into)?\s*(?:black|white|the next"
    r"|a new scene|credits)\b|\bfade-?(?:in|out)s?\b|\bdissolves?\s+(?:to|into)\s+(?:a|the|another)\s+"
    r"(?:new|next|shot|scene|different|wide)\w*|\bcross-?(?:fade|dissolve)\w*|\bjump[- ]cuts?\b"
    r"|\bmatch cuts?\b|\bmontage\b|\bsplit[- ]screen\b|\bb-roll\b|\boff-?screen\b|\bon-?screen\b"
    r"|\boff-?camera\b|\bon camera\b|\bvoice-?over\b|\bestablishing\b(?=\s+(?:the scene|the setting))",
    r"\b(?:scene|video|shot|clip|footage|view|perspective|camera)\s+(?:then\s+|now\s+|slowly\s+|"
    r"smoothly\s+|abruptly\s+|seamlessly\s+|quickly\s+)?(?:transition|cut|fade|dissolve|switch|shift|"
    r"zoom|pan|tilt|widen)\w*\b",
    r"\btransitions?\s+(?:\w+ly\s+)?(?:to|into|between|from)\s+(?:a|an|the)?\s*(?:\w+\s+)?(?:shot|scene|"
    r"close|view|clip|frame|wide|angle|medium)\w*",
    r"\bview\s+(?:widens|shifts|pans|zooms|tilts|pulls|rises|rotates)\b|\bvisual(?:ly)? effects?\b",
)
_PAN_VERB = Gated(
    r"\bpans?\s+(?:slowly\s+|smoothly\s+|gently\s+|gradually\s+|steadily\s+)?(?:left|right|up|down|"
    r"across|over|around|out|to|from|towards?|along|past|upwards?|downwards?|away|back|through)\b",
)
_PAN_NOUN_BEFORE = frozenset(
    (
        "a an the two three four several some many hot large small big iron metal copper frying "
        "steel non-stick nonstick cake bread baking roasting sauce pots of his her their other "
        "empty dirty clean sheet shallow deep stacked hanging dust bed gold muffin warming "
        "heavy and these those"
    ).split()
)
_CAMERA_GAZE = Gated(
    r"\b(?:look|smil|gaz|star|wav|fac|speak|talk|turn|glanc|point|pos|wink|grin|blow|nod|walk|mov|"
    r"approach|run|com|lean)\w*\s+(?:\w+\s+){0,3}?(?:at|into|to|toward|towards|for|in front of|"
    r"directly at|straight at|away from|from)?\s*(?:the\s+)?camera\b",
)
_R3_AMBIGUOUS = Gated(
    r"\b(?:soft|warm|golden|dim|bright|harsh)\s+(?:light|glow)\b(?=\s+(?:illuminates|bathes|falls))",
    r"\bframed by\b",
    r"\bfocus(?:es|ing|ed)?\s+(?:on|upon)\b",
    r"\b(?:silhouette|silhouetted)\b",
)


def r3(*, original: str, caption: str) -> tuple[Finding, ...]:
    """No words about how it is filmed: scale, angle, framing, camera, light as craft, look, lens."""
    found: list[Finding] = []
    taken: list[tuple[int, int]] = []
    for match in _PLAIN_R3.finditer(caption):
        if _is_thing(match, original, caption) or _is_of_the_scene(match, original, caption):
            continue
        taken.append(match.span())
        found.append(_cinema(match, caption))
    for match in _PAN_VERB.finditer(caption):
        before = caption[: match.start()].rstrip().rsplit(maxsplit=1)
        word = before[-1].lower().strip(",;.") if before else ""
        if word not in _PAN_NOUN_BEFORE and not _inside(match.span(), taken):
            taken.append(match.span())
            found.append(_cinema(match, caption))
    for match in craft_terms(original, caption):
        if not _inside(match.span(), taken) and (
            _IS_SHOT.search(match.group()) or not _is_thing(match, original, caption)
        ):
            taken.append(match.span())
            found.append(_cinema(match, caption))
    for pattern, why in ((_CAMERA_GAZE, "a gaze at the camera"), (_R3_AMBIGUOUS, "perhaps plain")):
        for match in pattern.finditer(caption):
            if not _inside(match.span(), taken):
                taken.append(match.span())
                found.append(_cinema(match, caption, ambiguous=True, why=why))
    return tuple(sorted(found, key=lambda finding: finding.start or 0))


def _is_of_the_scene(match: re.Match[str], original: str, caption: str) -> bool:
    """Whether the original has the same words of a frame that something there has, or of the tools
    of somebody who takes or sells pictures."""
    if _FILMING.search(original) and _is_plainly_told(match, original):
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


_HAS_A_FRAME = re.compile(
    r"\b(?:bike|bicycle|motorcycle|scooter|cyclist|wheelchair|door|window|mirror|paintings?|posters?|"
    r"glasses|spectacles|optician|hive|beekeeper|loom|tent|greenhouse|bed|saw|chassis)\b",
    re.IGNORECASE,
)
_TRADE = re.compile(
    r"\b(?:camera|photo(?:graphy)?)\s+(?:shop|store|counter|repair|museum|workshop|studio|factory|fair)\b"
    r"|\b(?:opticians?|optometrist|lens\s+(?:grinder|maker))\b",
    re.IGNORECASE,
)
"""A place where cameras and lenses are goods."""
_GOODS = re.compile(
    r"\b(?:lens(?:es)?|camera|tripod|(?:zoom|focus)\s+ring|frames?)\b", re.IGNORECASE
)
_FILMING = re.compile(
    r"\b(?:photograph(?:er|s)|film-?maker|camera(?:man|woman|\s+operator)|film\s+crew|director|videographer|vlogger|"
    r"(?:her|his|their|a|an\s+old)\s+(?:camera|lens|phone|drone|telescope|microscope|binoculars))\b",
    re.IGNORECASE,
)
"""Somebody in the scene takes pictures."""
_APPARATUS = re.compile(
    r"\b(camera|lens|tripod|gimbal|drone|montage|frame|film|zoom|dolly)\b", re.I
)
_ON_SCREEN = re.compile(r"\bof\s+the\s+screen$|\bon-?screen$", re.IGNORECASE)
_IS_SHOT = re.compile(r"\bshots?\b", re.IGNORECASE)
_A_SCREEN = re.compile(r"(?<!on-)(?<!off-)(?<!on )(?<!off )\bscreens?\b|\bmonitor\b", re.IGNORECASE)
_MOVING_CAMERA = re.compile(
    r"\bcamera\s+(?:\w+ly\s+)?(?:pan|tilt|zoom|doll|track|follow|circl|glid|sweep|mov|rotat|linger|shift|"
    r"drift|orbit|pull|push|cut|reveal|show|captur|travel|rises|descends|hovers)",
    re.IGNORECASE,
)
_HANDLED = re.compile(
    r"\b(?:hold|holds|holding|carr\w+|adjust\w*|set\w*|mount\w*|clean\w*|rais\w+|lift\w*|with|using|"
    r"uses|his|her|their|photographer\w*|filmmaker\w*|cameraman|camera crew|operat\w+|launch\w*|"
    r"toy|disposable|old|vintage|polaroid|security|professional|dslr|digital|cinematographer\w*|"
    r"videographer\w*|pilot\w*|film crew|director\w*)\b",
    re.IGNORECASE,
)


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
        if _HANDLED.search(near) and not _PLAIN_R3.search(low[max(0, at - 15) : at + 30]):
            return bool(_HANDLED.search(caption[max(0, match.start() - 60) : match.end() + 40]))
        at = low.find(word, at + 1)
    return False


def _cinema(
    match: re.Match[str], caption: str, *, ambiguous: bool = False, why: str = ""
) -> Finding:
    message = f"{match.group()!r} is about how it is filmed; leave it out"
    if why:
        message += f" ({why})"
    return _finding("R3", match.start(), match.end(), caption, message, ambiguous=ambiguous)


# ---- R5: no analysis, reasoning, instructions, explanations ----

_INFERS = (
    r"(?:suggest|indicat|imply|impli|hint|convey|evok|symboli[sz]|signif|emphasi[sz]|underscor|"
    r"highlight|reinforc|demonstrat|showcas|creat|contribut|enhanc|reflect|represent|lend|add|giv|"
    r"mak|captur|invit|reveal|exud|express|embod|radiat|impart|draw|signal|foster|denot|stress|"
    r"accentuat|instill|inspir|prov|provok|remind|illustrat|show|underlin|channel|channell|tell|bring|"
    r"speak|honou?r|celebrat|testif|confirm|display)(?:s|es|ing|e|y|ies|ifying|ying|ings|ding)"
)
_ABSTRACT = (
    r"(?:sense|feeling|feel|atmosphere|mood|tone|ambian?ce|impression|emphasis|drama|vibe|notion|"
    r"idea|theme|emotions?|tension|intimacy|nostalgia|tranquil\w*|seren\w*|calm\w*|warmth|joy|"
    r"mystery|depth|urgency|beauty(?!\s+(?:vlog|blog|salon|product|pageant|queen|parlo|mask|spa))|importance|relationship|connection|bond|passage|story|"
    r"narrative|contrast between|viewer|energy|spirit|essence|charm|peace\w*|loneliness|"
    r"solitude|freedom|hope|determination|dedication|confidence|happiness|sadness|excitement|"
    r"anticipation|wonder|power|resilience|significance|character|professionalism|harmony|"
    r"friendship|celebration of|melancholy|longing|isolation|playfulness|elegance|grandeur|strength|"
    r"unity|culture|courage|love|compassion|efficiency|skills?|talent|passion|teamwork|discipline|"
    r"experience|patience|bonds|tradition|authority|innocence|curiosity|kindness|pride|respect|trust|"
    r"faith|wisdom|success|effort|childhood|camaraderie|tenderness|devotion|affection|expertise|"
    r"craftsmanship|mastery|precision|quality|identity|heritage|history|innovation|progress|values?|"
    r"authenticity|vulnerability|rhythm of|chaos|simplicity|magic|romance|optimism|pressure|stakes?)"
)
_R5 = Gated(
    r"\b(?:here(?:'s| is| are)|below is|this is|the following is)\s+(?:the|a|an|your|my|one)?\s*"
    r"(?:\w+,?\s+){0,3}?(?:caption|version|description|rewrite|summary|prompt|sentence|text|answer|"
    r"response|output|rephrasing|result)\b",
    r"^\W*(?:sure|certainly|of course|okay|ok|absolutely|great|no problem|got it|understood|alright|"
    r"yes)\b\s*[,!.:]",
    r"\b(?:rewritten|revised|new|updated|final|improved|simplified|edited|refined|clean(?:ed)?|short(?:ened)?)"
    r"\s+(?:video\s+)?(?:caption|version|description|text|prompt|output)\b\s*[:\-]?",
    r"^\W*(?:output|answer|result|response|rewrite|summary|revision|explanation|"
    r"reasoning|analysis|thought|text|rewritten|step \d+)\s*:",
    r"\b(?:note|nb|explanation|reasoning|analysis|rationale|justification|remark|disclaimer|tip|"
    r"warning|comment|summary|conclusion|interpretation|observation)\s*:",
    r"\(\s*(?:note|rule|i\.e\.|e\.g\.|this|word count|\d+ words|removed|omitted|rewritten|revised)\b"
    r"[^)]*\)?",
    r"\b(?:please note|note that|it is worth noting|worth noting|notably,|importantly,|keep in mind|"
    r"bear in mind|it should be noted|as mentioned|as noted|as described|as stated|as requested|"
    r"as instructed|as per|per your|in accordance with|following the (?:rules|instructions|guidelines)"
    r"|let me know|feel free|hope this|i hope)\b|\bas per\b|\bper your\b",
    r"\brules?\s+(?:#|no\.?\s*)?\d\b|\b(?:the|all|these|six|your|given)\s+(?:six\s+)?(?:rules|"
    r"guidelines|instructions|requirements)\b(?!\s+(?:of the (?:game|road|pool)|on the|posted|to the"
    r"|for the|printed|from|manual|sheet|booklet))",
    r"\b(?:the|this|that|your|given|provided|source)\s+(?:original|initial|input|source|above|given|"
    r"provided|previous|old)\s+(?:video\s+)?(?:caption|description|text|prompt|sentence|wording|"
    r"version|input)\b",
    r"\b(?:the|this|above|following)\s+(?:caption|prompt|description|rewrite|wording)\s+(?:has|have|is|"
    r"was|does|did|keeps?|focus|mention|describ|now|avoids?|removes?|preserv|only|above|states?|says?|"
    r"provided|follows?|starts?|contains?|omits?)\w*",
    r"\b(?:i|we)(?:'ve|\s+have|\s+had)?\s+(?:removed|kept|omitted|rewrote|rewritten|dropped|preserved|"
    r"changed|shortened|focused|avoided|followed|ensured|left out|simplified|rephrased|excluded)\b",
    r"\b(?:removed|omitted|excluded|dropped|avoiding|left out|without mentioning|rephrased|deleted)\s+"
    r"(?:all\s+|any\s+|the\s+)*(?:camera|cinemat|lighting|mood|reference|detail|mention|term|word|"
    r"phrase|sentence|irrelevant|meta|unnecessary|extra)\w*",
    r"\b(?:omitted|excluded|left out|condensed|rephrased|paraphrased|removed|shortened|kept|dropped|"
    r"simplified)\s+for\s+(?:brevity|clarity|simplicity|conciseness|length)\b"
    r"|\b(?:is|are|was|were)\s+(?:omitted|left out|condensed|rephrased|paraphrased)\b",
    r"\b(?:reflect|highlight|represent|illustrat)(?:s|es|ing)\b",
    r"\ba\s+(?:\w+\s+)?(?:sign|mark|hallmark|token|symbol|display|demonstration|show)\s+of\s+(?:years|"
    rf"(?:\w+\s+){{0,3}}?{_ABSTRACT})\b",
    r"\b(?:show|prov|display|express|demonstrat|exhibit|radiat|showcas)(?:s|es|ing)\b",
    r"\bfeels?\s+(?!(?:the|an?|his|her|its|their|for|along|around|with|under)\b)\w+",
    r"\bmood\b(?!\s+(?:light|ring|board))|\bambian?ce\b|\bvibes?\b"
    r"|\ban?\s+(?:[\w-]+,?\s+(?:and\s+)?){1,3}?atmosphere\b",
    r"\b(?:is|are)\s+(?:palpable|undeniable|contagious|infectious|evident|apparent|unmistakable|electric)\b"
    r"|\b(?:tension|excitement|anticipation|joy|emotion|energy)\s+(?:fills|hangs|builds|rises|lingers)\b",
    r"\bas an ai\b|\blanguage model\b|<think>|</think>|\bstep by step\b|\bword count\b|\bin summary\b"
    r"|\bin conclusion\b|\bto summari[sz]e\b|\bin other words\b|\bthat is to say\b|\bin essence\b",
    r"[,;–—-]\s*(?:\w+ly\s+|perhaps\s+|thereby\s+|thus\s+|further\s+|all\s+|possibly\s+)*"
    r"(?:suggesting|indicating|implying|hinting|signifying|symboli[sz]ing|conveying|evoking|"
    r"emphasi[sz]ing|underscoring|denoting|reinforcing|demonstrating|exuding|instilling)\b",
    r"[,;]\s*(?:\w+ly\s+)?(?:creating|adding|giving|lending|making|enhancing|contributing|reflecting|"
    r"highlighting|showcasing|representing|capturing|inviting|drawing|fostering|reminding|"
    rf"expressing|revealing|providing|bringing|imparting|offering)\b[^.;]{{0,60}}?\b{_ABSTRACT}\b",
    r"\b(?:which|this|that|it|all of which|posture|expression|setting|scene|gesture|presence|pace|"
    r"movement|attire|body language|demeanor|smile|composition|lighting|background|environment|"
    r"surroundings|clothing|contrast|image|video|moment|action|interaction|arrangement|design|"
    r"colou?rs?|outfit|gaze|decor|weather|sky|landscape|behaviou?r|appearance|both)\s+"
    r"(?:\w+ly\s+|may\s+|might\s+|could\s+|seems? to\s+|also\s+|further\s+|all\s+)*"
    r"(?:suggests?|indicates?|impl(?:y|ies)|hints? at|signif(?:y|ies)|symboli[sz]es?|conveys?|evokes?|"
    r"emphasi[sz]es?|underscores?|underlines?|denotes?|reinforces?|exudes?|embod(?:y|ies)|means that|"
    r"highlights?|proves?|illustrates?|demonstrates?|reflects?|(?:shows?|tells?|reveals?)\s+(?:how|that|of)|"
    r"speaks? to|is (?:likely|probably|presumably|meant|intended|designed) )\b",
    r"\b(?:prov|underlin|underscor|highlight|emphasi[sz]|illustrat|demonstrat|confirm|stress|remind)\w*\s+"
    r"(?:how|why|that|what|us)\b|\b(?:tell|inform|assur|remind)\w*\s+(?:us|you|one|the viewer|viewers)\s+"
    r"(?:that|how|why)\b|\bwhich\s+(?:shows?|tells?|proves?|makes?|gives?|adds?|creates?|lends?|"
    r"brings?)\s+(?!(?:the|a)\s+(?:time|map|picture|photo|score|number))",
    r"\blend(?:s|ing)?\s+(?:\w+\s+){1,4}?(?:an?|itself)\b|\bmak(?:es?|ing)\s+(?:one|you|us|viewers)\s+\w+",
    r"[,;–—-]\s*(?:an?|the)\s+(?:[\w-]+\s+){0,2}?(?:reminder|testament|tribute|proof|ode|metaphor|"
    r"expression|example|embodiment|reflection|moment|celebration|symbol|picture)\s+(?:of|that|to)\s+"
    r"(?!(?:the|a|an)\s+(?:sky|sun|tree|building|cloud|lake|water))",
    r"\b(?:based on|according to)\s+the\s+(?:original|given|provided|description|caption|text|prompt|video)"
    r"|\bthe user\b|^\W*(?:option|alternative|version|draft|final|attempt)\b\s*\w*\s*:"
    r"|\b(?:is|are)\s+not\s+(?:mentioned|specified|stated|described)\b|(?<!style )\breminiscent of\b"
    r"|\b(?:hoping|wishing|longing)\s+(?:to|for|that)\b|\bin order to\b|\bfuture generations\b"
    r"|\bwith the (?:precision|grace|skill|ease|confidence|care|patience|poise|focus) of\b"
    r"|\bremind\w*\s+(?:one|us|you)\b|\b(?:who|it|they|he|she|which)\s+might\b|\b(?:who|it|they|he|she|which)\s+may\b",
    r"\b(?:suggest(?:s|ing)?|impl(?:y|ies|ying)|hint(?:s|ing)?\s+(?:at|that)|evok(?:e|es|ing)|"
    r"convey(?:s|ing)?|exud(?:e|es|ing)|signif(?:y|ies|ying)|connot(?:es|ing)|emphasi[sz](?:e|es|ing)|"
    r"underscor(?:e|es|ing)|accentuat(?:e|es|ing)|embod(?:y|ies|ying)|epitomi[sz](?:es|ing)|"
    r"foreshadow(?:s|ing)?|exemplif(?:ies|ying))\b|\b(?:truly|obviously|undeniably|surely|of course)\b|\b(?:he|she|they|it|that)\s+will\b"
    r"|\b(?:that|which)\s+shows?\s+(?:he|she|they|it|how|that)\b",
    r"[,;]\s*(?:\w+ly\s+)?(?:showing|displaying|exhibiting|expressing|proving|testing|celebrating|"
    r"embodying|honou?ring|symboli[sz]ing|showcasing|demonstrating)\s+(?:\w+\s+){0,3}?(?:\w{3,}(?:ness|ity|"
    r"hood|dom|cy)|bravery|excellence|friendship|sportsmanship|concern|interest|emotion)\b",
    rf"\b{_INFERS}\s+(?:to\s+)?(?:a|an|the|its|their|his|her|this|some|to the|of)?\s*(?:\w+[- ]){{0,3}}?"
    rf"(?:and\s+\w+\s+)?{_ABSTRACT}\b",
    r"\ban?\s+(?:\w+\s+)?air\s+of\s+(?!burn|smoke|hot|cool|cold|fresh|fog)\w+",
    r"\b(?:a|the|with a|with an|an)\s+(?:\w+\s+){0,3}?(?:sense|feeling|atmosphere|mood|ambian?ce|"
    r"aura|vibe)\s+(?:of\s+(?!burn|smoke|hot|cool|cold|fresh|fog)|is|feels|remains|throughout|that|"
    r"prevails|and|conveyed|fills|pervades)\w*",
    r"\b(?:overall|general|whole)[,]?\s+(?:\w+\s+)?(?:mood|atmosphere|scene|tone|impression|effect|"
    r"feel|feeling|vibe|setting|ambian?ce|composition|the|it)\b|^\W*overall\b|[.]\s+overall,",
    r"\b(?:atmosphere|mood|ambian?ce|vibe|tone)\s+(?:of the \w+\s+)?(?:is|feels|remains|seems|appears|"
    r"becomes|shifts|suggests|are|of)\b",
    r"\b(?:possibly|probably|perhaps|presumably|apparently|seemingly|supposedly|evidently|"
    r"undoubtedly|arguably|likely|maybe|clearly\s+(?:in|a|enjoy|show|the))\b",
    r"\b(?:seems?|appears?|seemed|appeared)\s+(?:to\s+(?:be|have|suggest|indicate|enjoy|take|show|"
    r"represent|feel|express|reflect|hint|come|belong|know|want|think|consider|contemplat|lost|ponder)"
    r"|that|as if|as though|like|lost in|deep in|happy|sad|content|relaxed|determined|focused|engaged|"
    r"calm|excited|tired|nervous|confident|proud|thoughtful|contemplative|absorbed|peaceful|serene)\w*",
    r"\b(?:may|might|could|must)\s+(?:also\s+|well\s+)?(?:be|have|suggest|indicate|represent|imply|"
    r"symboli[sz]e|mean|reflect)\b|\bcan be (?:interpreted|inferred|seen as|assumed|understood|"
    r"described|considered)\b|\bit (?:is|seems|appears) (?:likely|possible|clear|evident|obvious|"
    r"unclear|important|assumed|apparent|probable|safe|implied|worth|that)\b|\bas if (?:to|he|she|they"
    r"|it|in|the|contemplat|trying|wait)\b|\bas though\b|\bone can (?:infer|assume|imagine|sense)\b",
    r"\b(?:therefore|thus|hence|consequently|because of this|this means|which means|meaning that|"
    r"as a result|for this reason|due to the fact|given that|it follows|since this|the reason)\b",
    r"\b(?:because|since)\s+(?:the|he|she|it|they|this|of (?:his|her|their|its))\b",
    r"\b(?:the|a|our|for|to)\s+viewers?\b(?!\s+(?:can\s+)?(?:sees?|watch|observe|is\s+shown))|\bviewer's\b|\bviewers?\b(?=\s+(?:to|is|are|can|may|might|"
    r"will|attention|into|feel|could|through|gets?|see\b))|\b(?:invit|draw|immers|captivat|remind|guid|"
    r"transport|allow|encourag|giv|lead|tak)\w*\s+(?:the\s+)?(?:viewer|observer|audience\s+(?:to|into|"
    r"in|of|a)\b)\w*|\b(?:invit|immers|captivat|remind|transport|allow)\w*\s+us\b",
    r"\b(?:metaphor|symbolism|allegory|represents? the (?:idea|concept|struggle|passage|cycle|beauty|"
    r"power|human|spirit|bond)|testament to|reminder of|celebration of (?:life|nature|love|friendship|"
    r"culture|tradition)|symbol of|serves? (?:as|to)\s+(?:a\s+)?(?:\w+\s+)?(?:reminder|metaphor|symbol|"
    r"highlight|emphasi|testament|contrast|focal|create|establish)\w*|juxtapos\w+|focal point|"
    r"in contrast to|can't help but|plays? (?:a|an) (?:\w+ )?role|interplay)\b",
    r"^\W*(?:describe|generate|create|write|rewrite|make sure|ensure|remember|do not|don't|avoid|"
    r"include|consider|note(?! (?:by|for|after) note)|use|focus on|please|add|provide|summarize|produce"
    r"|depict|try to|think|explain)\b(?=\s)",
    r"[.!?:]\s+(?:notice|pay attention|be sure|look at|enjoy|check out|learn more|subscribe|see how)\b",
    r"\b(?:typically|usually|commonly|traditionally|generally|often|widely|historically|originally)\s+"
    r"(?:used|seen|found|made|worn|eaten|known|associated|served)\b"
    r"|\b(?:technique|method|practice|tradition|custom)\s+(?:that|which)\s+(?:is|was|has|dates)\b|\b(?:known for|famous for|associated with|regarded as|essential "
    r"(?:for|to)|important (?:for|to|because)|is considered)\b",
    r"[.!?:]\s+(?:describe|generate|keep|rewrite|make sure|ensure|remember|do not|don't|avoid|include|"
    r"consider|note|please|summarize|try to|keep the|use (?:a|the|only|simple|this)|focus on the|"
    r"imagine|write|let's|explain|start with)\b",
    r"\b(?:you|one)\s+(?:should|can|could|may|might|must|need to|would|will)\b",
    r"\b(?:which|as)\s+is\s+(?:\w+ly\s+)?(?:typical|common|characteristic|standard|usual|customary|"
    r"traditional|normal)\b|\b(?:typical|characteristic)\s+(?:of|for)\b",
    r"\b(?:reason(?:ing)?|explanation|analysis|interpretation)\s+(?:for|of|is|behind)\b",
    r"\bthe purpose of\b|\bin order to (?:convey|create|emphasi|show|highlight)\w*|\bmeant to "
    r"(?:convey|evoke|symbol|represent|create)\w*|\bsymboli[sz](?:es|ing|e)\b|\bsignif(?:ies|ying)\b",
)
_REFLECTS = re.compile(r"(?:reflect|highlight|represent|illustrat)(?:s|es|ing)", re.IGNORECASE)
"""Analysis when its object is an idea."""
_SHOWS_WHAT = re.compile(
    r"(?:show|prov|display|express|demonstrat|exhibit|radiat|showcas)(?:s|es|ing)", re.IGNORECASE
)
"""Analysis when its object is a feeling or a trait."""
_R5_MARKUP = re.compile(
    r"^\s*(?:[-*•+]\s+\S|\d+[.)]\s+\S|#{1,6}\s|>\s|```|\|)|\*\*|```|__\w|\[/?\w+\](?!\()|^\s*---",
    re.MULTILINE,
)


def r5(*, original: str, caption: str) -> tuple[Finding, ...]:
    """Nothing but description: no analysis, reasoning, instructions, explanations or markup."""
    quoted = _quotes(caption)
    found = []
    opening: tuple[bool, int] | None = None
    taken: list[tuple[int, int]] = []
    for pattern, what in ((_R5, "explains or interprets"), (_R5_MARKUP, "is a list or markup")):
        for match in pattern.finditer(caption):
            if _inside(match.span(), quoted) or _inside(match.span(), taken):
                continue
            opening = opening or _before_subject(original, caption)
            if _is_opening(match, *opening):
                continue
            if pattern is _R5 and (
                _literal_r5(match, caption) or _is_plainly_told(match, original)
            ):
                continue
            if _REFLECTS.fullmatch(match.group()) and not _is_idea(
                _object_after(match.end(), caption)
            ):
                continue
            if _SHOWS_WHAT.fullmatch(match.group()) and not _is_temper(match.end(), caption):
                continue
            taken.append(match.span())
            message = f"{match.group().strip()!r} {what}; keep only what is seen"
            found.append(_finding("R5", match.start(), match.end(), caption, message))
    for span in comments(original, caption):
        opening = opening or _before_subject(original, caption)
        if span[0] >= opening[1] and not _inside(span, quoted) and not _inside(span, taken):
            message = (
                f"{caption[slice(*span)].strip()!r} explains or interprets; keep only what is seen"
            )
            found.append(_finding("R5", *span, caption, message))
    return tuple(sorted(found, key=lambda finding: finding.start or 0))


def _is_opening(match: re.Match[str], label: bool, opening: int) -> bool:
    """Whether a match belongs to words before the subject, which R1 finds."""
    if opening and _SHOWS_WHAT.match(match.group()):
        return match.start() < opening + _MEDIUM_NEAR
    return label and match.start() < opening


_MEDIUM_NEAR = 20
"""Characters behind an opening in which `showing` still belongs to it."""


def _before_subject(original: str, caption: str) -> tuple[bool, int]:
    """Whether a label opens the caption, and where an opening that R1 finds ends: it is no analysis
    too, unless it talks to the reader."""
    start = _opening_end(caption)
    if _TALKS.match(caption, start):
        return False, 0
    label = label_end(caption, start)
    if label > start:
        return True, 0 if "rule" in caption[start:label] else label
    found = r1(original=original, caption=caption)
    return False, found[0].end or 0 if found else 0


_TALKS = re.compile(
    r"(?:sure|certainly|of course|okay|ok|absolutely|alright|got it|understood|yes|great|no problem|"
    r"here(?:['’]s| is| are| you)|below is|the following is|this is)\b",
    re.IGNORECASE,
)


def _is_plainly_told(match: re.Match[str], original: str) -> bool:
    """Whether an original that tells of the scene alone has these words."""
    return not speaks_of_recording(original) and is_told(match.group(), original)


_LITERAL = re.compile(
    r"\b(?:shows? (?:a|an|the|his|her|their) (?:\w+ )?(?:skills?|talent|value|quality|character)\b(?= (?:card|show))|"
    r"(?:tells?|reads?|telling|reading) (?:(?:us|him|her|them|me) )?(?:an?|the|his|her) (?:\w+ )?story|"
    r"gives? (?:a|the) (?:history|culture|quality) (?:lesson|class)|makes? (?:a|the) (?:character|story)|drawing (?:a|the) (?:character|power)|"
    r"draws? (?:a|the) (?:viewer|character)|reading (?:a|the) story|power (?:drill|line|tool)|"
    r"gives? (?:a|the) story|adds? (?:a|the) (?:character|story))",
    re.IGNORECASE,
)


_READING = re.compile(r"(?:indicat|show|signal|display)\w*\b", re.IGNORECASE)
_GAUGE = re.compile(
    r"\b(?:dial|gauge|needle|pointer|meter|thermometer|speedometer|scoreboard|scale|arrow|monitor|display)s?"
    r"\s+(?:\w+ly\s+)?$",
    re.IGNORECASE,
)
"""An instrument before a word: what it indicates is a reading, not a meaning."""
_POINTS = re.compile(r"\b(?:indicat|signal|represent|denot|symboli[sz])\w*$", re.IGNORECASE)
_CLAUSE = re.compile(r"\s+(?:that|how|why|what|he|she|it|they|there)\b|[,;]?\s*$", re.IGNORECASE)


def _literal_r5(match: re.Match[str], caption: str) -> bool:
    """`adds a character card`; arrows that indicate sunlight: what is indicated can be seen."""
    if _LITERAL.search(match.group()) or (
        _READING.match(match.group()) and _GAUGE.search(caption, 0, match.start())
    ):
        return True
    if not _POINTS.search(match.group()) or _CLAUSE.match(caption, match.end()):
        return False
    told = _object_after(match.end(), caption)
    return any(lexicon.is_first(told, kind) for kind in ("object", "matter", "phenomenon"))


def _object_after(place: int, caption: str) -> str:
    """Lemma of the head of the noun phrase that follows a place in the caption, or nothing."""
    head = ""
    for token in tokenize(caption[place : place + 80]):
        if token.pos == "NOUN":
            head = token.lemma
        elif head or not (token.pos in ("DET", "ADJ", "ADV") or token.lower.endswith("ing")):
            break
    return head


def _is_temper(place: int, caption: str) -> bool:
    """Whether what is shown up to the next mark is a feeling or a trait: training and loyalty."""
    clause = _CLAUSE_MARK.split(caption[place : place + 60], maxsplit=1)[0]
    tokens = tokenize(clause)
    return any(
        token.pos == "NOUN"
        and (following is None or following.pos != "NOUN")
        and any(lexicon.is_first(token.lemma, kind) for kind in ("feeling", "trait", "quality"))
        for token, following in zip_longest(tokens, tokens[1:])
    )


_CLAUSE_MARK = re.compile(r"[.,;]|\s(?:as|while|with|in|on|at|to|near|from|how|where)\s")


def _is_idea(lemma: str) -> bool:
    """Whether a noun is something that cannot be seen: a concern, but no colour or sign."""
    return lexicon.known(lemma) and not any(lexicon.is_first(lemma, kind) for kind in _SEEN.split())


_SEEN = (
    "object matter phenomenon event person animal color shape group measure communication "
    "location pattern position light time"
)


# ---- R6: no first person ----

_FIRST = re.compile(
    r"\b(?:I(?:['’](?:m|ve|ll|d))?|[Mm]e|[Mm]y|[Mm]yself|[Ww]e(?:['’](?:re|ve|ll|d))?|us|[Oo]ur|[Oo]urs|"
    r"[Oo]urselves|[Ll]et['’]s|[Ll]et us|MY|WE|OUR|i(?:['’](?:m|ve|ll|d)))\b|\b(?:of|is|are|was) mine\b"
    r"|(?<![\w.])i(?=\s+(?:am|was|see|saw|can|have|think|will|would|love|like|watch|feel|do|did|want|"
    r"notice|believe|could|walk|hear|know|look|find|just|also|really|filmed|took)\b)"
)
_FIRST_WORDS = frozenset("i me my myself we us our ours ourselves let mine".split())
_NUMERAL_BEFORE = re.compile(
    r"(?:\b(?:War|Part|Type|Class|Phase|Chapter|Volume|Act|Stage|Level|Mark|Section|Elizabeth|"
    r"Charles|Henry|James|George|Napoleon|Wilhelm|William|Francis|Nicholas|Leopold|Catherine|Peter|"
    r"Alexander|Book|Grade|Division|Category|Roman|numeral|letter|Model|Series|Formula|Schedule|Title|"
    r"Pope \w+|King \w+|Queen \w+|Emperor \w+|Ramesses|Ramses|Tier|Group|Unit|Route|Interstate|Apollo"
    r"|Saturn|Tsar \w+|Article|Psalm|Episode|Season|Rocky|Superman)\s+|[\"“'(/&-])$",
    re.IGNORECASE,
)
_TITLE_OUR = re.compile(r"\s+(?:Lady|Father|Savior|Saviour|Town|World|Planet)\b")
_TITLE_MY = re.compile(r"\s+(?:Little Pony|Fair Lady|Neighbor Totoro|Chemical)\b")


def r6(*, original: str, caption: str) -> tuple[Finding, ...]:
    """No I, we, my, our or us, except in quoted speech, titles and numerals."""
    if caption.isascii() and _FIRST_WORDS.isdisjoint(words_in(caption)):
        return ()
    quoted = _quotes(caption)
    found = []
    for match in _FIRST.finditer(caption):
        if _inside(match.span(), quoted) or not _is_first_person(match, caption):
            continue
        message = f"{match.group()!r} is first person; tell it from outside"
        found.append(_finding("R6", match.start(), match.end(), caption, message))
    return tuple(found)


def _is_first_person(match: re.Match[str], caption: str) -> bool:
    word, after = match.group(), caption[match.end() :]
    before = caption[: match.start()]
    if word == "I":
        if _NUMERAL_BEFORE.search(before) or after.startswith(("-", "/", ".")):
            return False
        if re.search(r"[A-Z][a-z]+\s+$", before) and not re.match(
            r"\s+(?:am|was|see|saw|can|have|had|think|will|would|love|like|watch|feel|do|did|want|"
            r"notice|believe|could|walk|hear|know|look|find|just|also|really|filmed|took|stand|sit)",
            after,
        ):
            return False
    if word == "us" and re.match(r"\s*(?:\$|dollar)", after):
        return False
    if word == "Our" and _TITLE_OUR.match(after):
        return False
    opens = not before.strip() or before.rstrip()[-1:] in '.!?:"“('
    if word == "My" and (_TITLE_MY.match(after) or not opens):
        return False
    if word in ("Me", "We") and not opens:
        return False
    return not (word.endswith("mine") and re.match(r"\s+(?:shaft|cart|entrance|worker)", after))


_QUOTE = re.compile(
    r"\"[^\"]{1,400}\"|“[^”]{1,400}”|«[^»]{1,400}»|(?<!\w)['‘][^'’\n]{2,200}['’](?!\w)"
)


_QUOTES = frozenset("\"“«'‘")


def _quotes(caption: str) -> list[tuple[int, int]]:
    """Spans of quoted speech. A caption that is quoted as a whole is not speech."""
    if _QUOTES.isdisjoint(caption):
        return []
    stripped = caption.strip()
    spans = [match.span() for match in _QUOTE.finditer(caption)]
    return [span for span in spans if span[1] - span[0] < len(stripped) - 2]


# ---- extra checks: never a violation ----

BAND = (5, 120)
"""Words that a caption should have at least and at most."""

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_COMMON = frozenset(
    (
        "a an the in on at of and with is are to his her its as by from over under while for it "
        "that"
    ).split()
)


def x_length(*, original: str, caption: str) -> tuple[Finding, ...]:
    """Between 5 and 120 words, and not longer than a long original."""
    count = len(_words(caption))
    if BAND[0] <= count <= BAND[1]:
        return ()
    message = f"{count} words; between {BAND[0]} and {BAND[1]} are wanted"
    return (_finding("X-length", 0, len(caption), caption, message),)


def x_cutoff(*, original: str, caption: str) -> tuple[Finding, ...]:
    """Ends like a sentence, not in the middle of one."""
    text = caption.rstrip()
    if not text or text[-1] in ".!?\"”'’)…":
        return ()
    last = _words(caption)[-1:] or (text[-1],)
    start = text.rfind(last[0])
    message = "ends without a full stop; it may be cut off"
    return (_finding("X-cutoff", max(0, start), len(text), caption, message),)


def x_repetition(*, original: str, caption: str) -> tuple[Finding, ...]:
    """No run of four words said twice, no word three times in a row."""
    words = _lower_words(caption)
    runs = list(zip(words, words[1:], words[2:], (*words[3:], ""), strict=False))
    triples = [run for run in runs if run[0] == run[1] == run[2]]
    if not triples and len(set(runs)) == len(runs):
        return ()
    seen: set[tuple[str, ...]] = set()
    for index, run in enumerate(runs):
        if run in triples or (run in seen and run[3] and not _COMMON.issuperset(run)):
            spans = [match.span() for match in _WORD.finditer(caption)]
            start, end = spans[index][0], spans[min(index + 3, len(spans) - 1)][1]
            message = f"says {' '.join(run).strip()!r} again"
            return (_finding("X-repetition", start, end, caption, message),)
        seen.add(run)
    return ()


def x_language(*, original: str, caption: str) -> tuple[Finding, ...]:
    """English."""
    if not _words(caption) or is_english(caption):
        return ()
    return (_finding("X-language", 0, len(caption), caption, "does not read as English"),)


@lru_cache(maxsize=64)
def is_english(text: str) -> bool:
    """Whether most words are in the English lexicon and some are English function words."""
    words = _lower_words(text)[:120]
    if not words:
        return False
    known = sum([bool(word in _COMMON or parts_of_speech(word)) for word in words])
    return known >= 0.6 * len(words) and (len(words) < 5 or not _COMMON.isdisjoint(words))


@lru_cache(maxsize=16)
def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text))


@lru_cache(maxsize=16)
def _lower_words(text: str) -> tuple[str, ...]:
    return tuple([word.lower() for word in _words(text)])


def x_quoted(*, original: str, caption: str) -> tuple[Finding, ...]:
    """Not put into quotation marks as a whole."""
    text = caption.strip()
    if len(text) < 3 or (text[0], text[-1]) not in (('"', '"'), ("“", "”"), ("'", "'"), ("`", "`")):
        return ()
    if text[0] in text[1:-1]:
        return ()
    return (_finding("X-quoted", 0, len(caption), caption, "the whole caption is in quotes"),)


# ---- shared ----


def _inside(span: tuple[int, int], spans: list[tuple[int, int]]) -> bool:
    return any(start <= span[0] and span[1] <= end for start, end in spans)


def _finding(
    rule: str, start: int, end: int, caption: str, message: str, *, ambiguous: bool = False
) -> Finding:
    return Finding(
        rule=rule,
        start=start,
        end=end,
        text=caption[start:end],
        message=message,
        ambiguous=ambiguous,
    )


def words_of(text: str) -> Iterator[str]:
    """Words of a text in lower case."""
    for match in _WORD.finditer(text):
        yield match.group().lower()
