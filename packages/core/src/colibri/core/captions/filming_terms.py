"""Words about how a scene is filmed: scale, angle, framing, camera, light as craft, look, editing.

A term of `FAMILIES` counts only where the original does not tell the same as content: a drone that
a man flies.
"""

from colibri.core.captions import tables
from colibri.core.captions.gate import Gated
from colibri.core.captions.surface import any_of

_MOVES = (
    r"(?:pan|tilt|zoom|doll|track|follow|move|rotate|circle|pull|push|remain|stay|hold|capture|"
    r"focus|focuse|glide|sweep|linger|shift|cut|drift|orbit|shake|sway|swing|rise|descend|fl(?:y|"
    r"ies)|hover|start|begin|show|reveal|keep|maintain|travel|advance|approach|transition|settle|"
    r"switch|return|close|is|was|turn|scan|survey|lower|lift|jib|crane|creep|spin|roll|angle|frame|"
    r"record|provide|work|perspective|ascend|slide|slowly|gently|smoothly|gradually|steadily|then|"
    r"quickly|subtly|first|briefly|now|does|never|barely|trail|tracks|whips|dips|pivots|dwells|"
    r"stops|pauses|goes|comes|takes|looks|peers|soars|floats)(?:s|es|ies|ed|ing|ning|ting|ming|med|"
    r"ned|ted)?"
)
_SCALE = (
    r"(?:wide|medium|long|close|close-?\s?up|extreme|aerial|drone|overhead|low-?angle|high-?angle|"
    r"tracking|dolly|crane|panning|static|steady|establishing|over-the-shoulder|pov|point-of-view|"
    r"macro|zoom|zoomed|zoomed-in|zoom-in|handheld|hand-held|slow-?motion|cinematic|single|opening|"
    r"final|closing|continuous|tight|mid|full|full-body|reverse|insert|cutaway|master|following|"
    r"push-in|pull-out|pull-back|bird's-eye|eye-level|dutch|dutch-angle|portrait|profile|reaction|"
    r"two|three|group|beauty|hero|product|establishing|extreme|locked|locked-off|fixed|stationary|"
    r"side|front|rear|top-down|sweeping|smooth|tilt|tilting|action|landscape|orbiting|orbital|"
    r"wide-angle|time-?lapse|medium-wide|medium-close|head-on|cowboy|american|ground-level|high|"
    r"low|first|next|second|third|last|split-screen|arc|whip|jib|steadicam|gimbal|still)"
)
TERMS = Gated(
    # shot scale
    rf"\b{_SCALE}(?:[- ](?:up|angle|level|wide|view|scale|length|"
    rf"to-medium))?(?:,\s*\w+)?[- ]shots?\b"
    r"(?!\s+(?:glass|put|clock|of\s+(?:whisk|vodka|tequila|espresso|rum|vaccine|liquor)))",
    r"\b(?:extreme\s+)?close-?ups?\b(?!\s+(?:shop|the\s+shop))",
    r"\bclose up\s+(?:of|on|view|shot|image|footage)\b",
    r"\b(?:the|this|each|a|an)\s+shot\s+(?:is|was|show|captur|pan|then|of|focus|reveal|frame|"
    r"begin|start|end|open|cut|from|widen|tighten|linger|hold|follow|transition|emphas|highlight|"
    r"composition|remain|move|zoom|tilt|changes)\w*(?!\s+(?:whisk|vodka|tequila|espresso|rum|"
    r"vaccine|liquor|glass|a\s+vaccine|medicine|ouzo|gin|insulin|bourbon|coffee))",
    r"\bshot\s+(?:on|with|in|at|using|against)\s+(?:an?\s+)?(?:\w+[- ]){0,2}?(?:film|camera|lens|"
    r"\d+\s?mm|iphone|drone|4k|8k|hd|black|slow|anamorphic|stock|location|style|light|angle|eye|"
    r"night|resolution|frames|fps|dslr|steadicam|gimbal)",
    r"\b(?:shot|filmed|captured|framed|viewed|seen|photographed|recorded|presented|shown)\s+"
    r"from\s+(?:a|an|the)?\s*(?:\w+[- ]){0,3}?(?:above|below|behind|angle|perspective|viewpoint|"
    r"vantage|overhead|point of view|height|side-on|distance)\b",
    r"\b(?:filmed|shot|captured|recorded)\s+(?:in|at|on|with|using|by|handheld|entirely|"
    r"mostly)\b\s+(?:a\s+|the\s+)?(?:single|one|slow|high|low|black|close|eye|wide|natural|drone|"
    r"4k|8k|hd|handheld|gimbal|macro|vivid|stunning|sharp|crisp|warm|cool|soft|real|detail|"
    r"portrait|medium)",
    r"\b(?:filmed|shot|captured|recorded)\s+hand-?held\b|\bhand-?held(?=\s*(?:[.,;]|with\b|in\b|"
    r"by\b|and\b|$))|\bdocumentary(?:-style|\s+(?:feel|style|look|footage|approach))",
    r"\b(?:fills?|filling|enters?|entering|leaves?|leaving|in|within|into|across|throughout|of|"
    r"before|as|until|when)\s+the\s+shot\b(?!\s+(?:glass|put|clock|of|is\s+(?:blocked|saved|"
    r"missed)|hits|goes|bounces|flies|misses|lands))",
    r"\bestablishing\s+(?:view|sequence)\b",
    r"\b(?<!picture )framing\b(?!\s+(?:a\s+(?:house|wall|picture|painting)|the\s+(?:house|wall|"
    r"painting)|shop|store|studio|workshop|hammer|nail|square|lumber|crew|table))",
    # angle
    r"\b(?:low|high|dutch|canted|oblique|camera|wide|top-?down|overhead|eye-level|bird'?s[- ]eye|"
    r"worm'?s[- ]eye|aerial|downward|upward|side|shifting|fixed|tilted|unusual|dramatic|"
    r"changing)[- ]angles?\b(?!\s+(?:grinder|bracket|iron|triangle))",
    r"\bangles?\s+(?:of the camera|shot|view)\b",
    r"\b(?:from|at)\s+(?:a|an)\s+(?:\w+\s+)?(?:low|high|slightly (?:low|high|elevated)|elevated|"
    r"overhead|tilted|dramatic|frontal)\s+(?:angle|vantage|viewpoint|perspective|position)\b",
    r"\bbird'?s[- ]eye\b|\bworm'?s[- ]eye\b|\beye[- ]level\s+(?:shot|view|angle|perspective|"
    r"camera)",
    r"\bat eye[- ]level\b",
    r"\b(?:aerial|overhead|top-?down|drone|panoramic|wide|close|elevated|first-person|"
    r"third-person|macro|zoomed-in|over-the-shoulder|isometric)\s+(?:view|perspective|footage|"
    r"viewpoint|pov|vantage point)s?\b",
    r"\bpoint[- ]of[- ]view\b|\bpov\b|\bover[- ]the[- ]shoulder\b|\bvantage point\b",
    # composition
    r"\brule of thirds\b|\bnegative space\b|\bleading lines\b|\bmise[- ]en[- ]sc[eè]ne\b",
    r"\b(?:symmetrical|balanced|centered|centred|visual|overall|tight|careful|minimalist|dynamic|"
    r"diagonal|well-balanced|asymmetrical|striking|artistic|the)\s+composition\b(?!\s+(?:book|"
    r"notebook|class|paper|for|by|on the piano))",
    r"\b(?:in|into|within|inside|across|from|out of|leaves?|leaving|enters?|entering|exits?|"
    r"exiting|fills?|filling|crosses|crossing|dominates?|dominating|occup(?:y|ies|ying)|"
    r"through)\s+(?:the\s+)?(?:entire\s+|whole\s+|center of the\s+|edge of the\s+|left of the\s+|"
    r"opening\s+)?frame\b(?!\s+(?:of\s+(?:the\s+(?!shot|video|clip|camera)|a|an|his|her)|on|house|"
    r"that|with|made|hang|above|around))",
    r"\b(?:center|centre|middle|edge|side|left|right|top|bottom|corner|part|half|third|"
    r"portion)s?\s+of\s+the\s+(?:frame|shot|composition|screen)\b(?!\s+(?:of|hang|door|tent|"
    r"protector|with|around|above|she|he|they|as he|as she))",
    r"\b(?:tightly|loosely|perfectly|beautifully|carefully|neatly|well|symmetrically|centrally|"
    r"closely)[- ]framed\b|\bframed\s+(?:in|within|centrally|tightly|against|symmetrically|so|"
    r"from|to)\b",
    r"\b(?:foreground|background)\s+(?:blur|bokeh|separation|framing)\b",
    # camera and its movement
    rf"\b(?:the|a|an|its|this|our|handheld|steady|moving|static|stationary|fixed|overhead|drone|"
    rf"shaky|slow|smooth|single|invisible)\s+camera(?:'s|work)?\s+(?:\w+ly\s+)?{_MOVES}\b",
    rf"\bcamera,\s[^,.]{{1,60}},\s+(?:\w+ly\s+)?{_MOVES}\b",
    r"\bthe\s+drone\s+(?:\w+ly\s+)?(?:circl|pan|tilt|orbit|sweep|track|reveal|captur|glid)\w*",
    r"\bcamera\s?(?:movements?|motions?|work|angles?|shake|position|positioning|perspective|view|"
    r"pans?|tilts?|zooms?|moves|techniques?|tracking|focus|follow\w*|remains|stays|panning|"
    r"cuts?)\b|\bcamerawork\b",
    r"\b(?:as|while|when|and|until|before|then|with)\s+the\s+camera\b(?!\s+(?:in\s+(?:his|her|"
    r"their)|strap|bag|around|on\s+(?:the|a)\s+(?:tripod|table)|hang|crew|to\s+(?:his|her)))",
    r"\b(?:handheld|hand-held|shaky|static|steady|roving|stationary|moving|tracking|"
    r"wandering)\s+(?:camera|footage|style|feel|look|quality|cinematography|camerawork|cam)\b",
    r"\bzoom(?:s|ed|ing)?\s+(?:slowly\s+|gradually\s+|smoothly\s+|gently\s+|further\s+|back\s+|"
    r"right\s+)?(?:in|out)\b|\bzoom-?(?:in|out)s?\b|\b(?:slow|gradual|gentle|quick|crash|smooth|"
    r"subtle|dolly|digital|rapid)\s+zoom\b",
    r"\bpann?(?:ed|ing)\s+(?:slowly\s+|smoothly\s+|gently\s+)?(?:shot|left|right|up|down|across|"
    r"over|around|out|from|to|towards?|along|motion|camera|movement|view|past|back|away|upwards?|"
    r"downwards?|through)\b",
    r"\b(?:slow|gentle|smooth|whip|quick|horizontal|vertical|leftward|rightward|sweeping|"
    r"steady)\s+pan\b(?!\s+(?:of\s+(?:soup|oil|stew|sauce|eggs|rice|water|food|butter)|on\s+"
    r"the\s+stove))",
    r"\bdoll(?:y|ies|ying|ied)\s+(?:in|out|shot|back|zoom|forward|toward|movement|track|past|left|"
    r"right|around|through|along|closer|away)\w*",
    r"\b(?:tracking|trucking|crane|jib|steadicam|gimbal|push-?in|pull-?back|dolly|arc)\s+(?:shot|"
    r"movement|motion|camera|footage|sequence)s?\b|\bsteadicam\b|\bwhip[- ]pan\w*|\bgimbal\b",
    r"\btilts?\s+(?:slowly\s+|smoothly\s+)?(?:up|down|upwards?|downwards?)\s+(?:to|from|toward)\b|"
    r"\b(?:slow|gentle|smooth|upward|downward)\s+tilt\s+(?:up|down|from|to|reveals|"
    r"of the camera)\b",
    r"\bdrone\s+(?:shot|footage|view|video|camera|perspective|flies over to reveal)\w*",
    r"\b(?:stock|aerial|archival|grainy|black-and-white|slow-motion|night-vision|raw|vintage|home|"
    r"sped-up|high-speed|cctv|security|body-cam|gopro|underwater|film|macro|b-roll)\s+footage\b",
    r"\bcinematograph\w*|\bcinematic\w*|\bfilmic\b|\bvideograph\w*\b(?=\s+(?:style|technique))",
    # light as craft
    r"\b(?:soft|natural|dramatic|warm|golden|ambient|diffused?|studio|moody|harsh|low-?key|"
    r"high-?key|rim|back|side|volumetric|bright|dim|even|professional|artificial|atmospheric|cool|"
    r"gentle|subtle|overhead|indoor|dynamic|three-point|fill|key|stage|contrasting|subdued|flat|"
    r"balanced|hard|directional|mood|lower|low|accent|theatrical|strong|stark|blue|neutral|"
    r"overall|practical|chiaroscuro|romantic|beautiful|rembrandt|butterfly|split|cold|"
    r"muted)[- ]lighting\b(?!\s+(?:fixture|store|rig is|shop|equipment|a\b|the\b|candles|up|"
    r"up the|technician))",
    r"\b(?:the|its|with)\s+lighting\s+(?:is|was|in|creates?|casts?|highlight|emphas|remains?|"
    r"setup|effect|scheme|adds?|gives?|enhanc|suggests?|shifts?|changes?|design|condition|and|"
    r"accentuat|appears|illuminat|makes|brings|throughout|dims)\w*",
    r"\bback-?li(?:t|ghts?|ghting)\b|\brim[- ]li(?:t|ght)\w*|\bkey light\b|\blens flares?\b|"
    r"\bgolden[- ]hour\b|\bchiaroscuro\b|\bwell-lit\b|\blow-key\b|\bhigh-key\b|\bblue[- ]hour\b|"
    r"\bvolumetric\b|\bsilhouette lighting\b|\blighting\s+(?:setup|conditions?|design|scheme|"
    r"effects?)\b",
    # colour and look
    r"\bcolou?r[- ](?:grad(?:e|ed|ing)|palettes?|correct\w*|temperature|treatment|tones?|scheme)\b",
    r"\b(?:warm|cool|muted|vibrant|earthy|desaturated|pastel|neutral|monochromatic|sepia|"
    r"saturated|earth|teal[- ]and[- ]orange|rich|soft|cold|golden|dark|bluish|"
    r"subdued)[- ](?:colou?r\s+)?(?:palette|grading|grade|tonality|hues? dominate)\b",
    r"\b(?:warm|cool|muted|sepia|desaturated|monochromatic|teal)[- ](?:colou?r\s+)?tones?\b",
    r"\bsepia(?:-toned)?\b|\bdesaturated\b|\bmonochrom(?:e|atic)\b|\bvignett(?:e|ing)\b|"
    r"\bfilm grain\b|\bgrainy\b(?=\s+(?:texture|look|quality|film|image|footage|video))|"
    r"\bfilm noir\b|\bnoir\b|\bhigh[- ]contrast\b|\blow[- ]contrast\b|\bhigh dynamic range\b|"
    r"\bhdr\b|\bover-?exposed\b|\bunder-?exposed\b|\bphotorealis\w*|\bhyper-?realis\w*|"
    r"\bblack[- ]and[- ]white\s+(?:film|footage|video|style|shot|cinematography|photography|image|"
    r"look|photo)\b|\bin\s+black[- ]and[- ]white\b(?!\s+(?:stripes|clothes|clothing|uniforms?|"
    r"outfits?|dress|suits?|costumes?|shirts?|tiles?))|\bvintage\s+(?:film|look|filter|"
    r"aesthetic)\b|\bretro filter\b|\b(?:visual|overall|film)\s+aesthetic\b|\bart(?:istic)?\s+"
    r"direction\b|\bfilm stock\b",
    # lens, focus, speed, format
    r"\bdepth[- ]of[- ]field\b|\bbokeh\b|\bfish-?eye\b|\btelephoto\b|\bwide-angle\b|"
    r"\banamorphic\b|\bmotion blur\b|\brack(?:s|ing)?\s+focus\b|\bfocus\s+(?:pull|rack)\w*|"
    r"\bdeep focus\b|\bshallow focus\b|\bsoft[- ]focus\b|\btilt-shift\b|\blong exposure\b|"
    r"\baperture\b",
    r"\b(?:in|into|out of)\s+(?:sharp\s+|crisp\s+|soft\s+|clear\s+|perfect\s+|full\s+)?focus\b|"
    r"\bout-of-focus\b|\bsharp(?:ly)?\s+(?:in\s+)?focus(?:ed)?\b|\bsharp focus\b",
    r"\bfocus\s+(?:shift|chang|mov|transition|is\s+(?:on|sharp|soft|placed|primarily|entirely|"
    r"maintained)|remains?\s+on|stays\s+on|then)\w*|\bthe\s+(?:main\s+)?focus\s+(?:of|on|is)\b",
    r"\b(?:is|are|appears?|remains?|stays?|becomes?)\s+(?:\w+ly\s+)?(?:blurred|blurry)\b",
    r"\bblurr(?:ed|y)\s+(?:background|foreground|backdrop|surroundings)\b|\b(?:background|"
    r"foreground|backdrop)\s+(?:\w+\s+){0,3}?(?:blurred|blurry|blurs)\b|\bblurs\s+the\s+"
    r"background\b",
    r"\bslow[- ]?motion\b|\bslo-?mo\b|\bin slow-mo\b|\btime-?\s?lapse\b|\bhyper-?lapse\b|"
    r"\bfast[- ]motion\b|\bsped[- ]up\b|\bspeed ramp\w*|\bfreeze[- ]frame\b|\bstop[- ]motion\b|"
    r"\bframes? per second\b|\bframe[- ]rate\b|\bfast-forward(?:s|ed|ing)?\b|"
    r"\breal-time footage\b|\b\d{2,3}\s?fps\b",
    r"\b(?:4k|8k|1080p|720p|uhd|ultra[- ]?hd|hd|full hd)\b|\b(?:ultra[- ])?high[- ](?:definition|"
    r"resolution|quality\s+(?:video|footage|image))\b|\b\d{2,3}\s?mm\b(?:\s+(?:film|lens))?|"
    r"\b(?:macro|prime|zoom|wide|camera|telephoto|vintage|spherical)\s+lens(?:es)?\b|\blens\s+"
    r"(?:captures|focus|compression|distortion|choice)\w*|\bthrough the lens\b|\bultra-?wide\b|"
    r"\bwidescreen\b|\baspect ratio\b|\bletterbox\w*",
    r"\b(?:vertical|phone|smartphone|mobile|handheld|selfie|drone|gopro|webcam|cctv)\s+"
    r"(?:phone\s+)?video\b(?!\s+(?:game|call|screen|feed|wall))",
    r"\bcamera\s+(?:opens|starts|begins)\s+(?:on|with)\b|\ba\s+(?:\w+\s+)?cut\s+(?:reveals|brings|"
    r"takes\s+us)\b",
    # editing
    r"\b(?:single|continuous|unbroken|uninterrupted|long)(?:,?\s+\w+)?\s+take\b|\b(?:in|as)\s+"
    r"one\s+take\b|\bintercut\w*|\bcross-?cut(?:s|ting)\s+between\b",
    r"\b(?:with|in|using)\s+(?:\w+\s+)?cuts\s+(?:between|from|to)\b|\bediting\s+cuts?\b|"
    r"\b(?:quick|fast|rapid|abrupt|frequent|hard)\s+cuts\b(?!\s+(?:of|on|along|across|into))",
    r"\bcut(?:s|ting)?\s+(?:between|among)\s+(?:[\w-]+\s+){0,4}?(?:cameras|shots|angles|views|"
    r"scenes|perspectives|close-?ups|faces|clips)\b",
    r"\b(?:cuts?|cutting)\s+(?:\w+ly\s+)?(?:to|away|back|between)\s+(?:a|an|the|another|black|her|"
    r"his)\s*(?:\w+[- ]){0,2}?(?:shot|scene|close|view|black|clip|wide|angle|face|frame|crowd|"
    r"medium)\w*|\bcuts? to black\b|\bfad(?:es?|ing)\s+(?:in|out)?\s*(?:to|from|into)?\s*(?:black|"
    r"white|the next|a new scene|credits)\b|\bfade-?(?:in|out)s?\b|\bdissolves?\s+(?:to|into)\s+"
    r"(?:a|the|another)\s+(?:new|next|shot|scene|different|wide)\w*|\bcross-?(?:fade|dissolve)\w*|"
    r"\bjump[- ]cuts?\b|\bmatch cuts?\b|\bmontage\b|\bsplit[- ]screen\b|\bb-roll\b|"
    r"\boff-?screen\b|\bon-?screen\b|\boff-?camera\b|\bon camera\b|\bvoice-?over\b|"
    r"\bestablishing\b(?=\s+(?:the scene|the setting))",
    r"\b(?:scene|video|shot|clip|footage|view|perspective|camera)\s+(?:then\s+|now\s+|slowly\s+|"
    r"smoothly\s+|abruptly\s+|seamlessly\s+|quickly\s+)?(?:transition|cut|fade|dissolve|switch|"
    r"shift|zoom|pan|tilt|widen)\w*\b",
    r"\btransitions?\s+(?:\w+ly\s+)?(?:to|into|between|from)\s+(?:a|an|the)?\s*(?:\w+\s+)?(?:shot|"
    r"scene|close|view|clip|frame|wide|angle|medium)\w*",
    r"\bview\s+(?:widens|shifts|pans|zooms|tilts|pulls|rises|rotates)\b|\bvisual(?:ly)? effects?\b",
)
PANS = Gated(
    r"\bpans?\s+(?:slowly\s+|smoothly\s+|gently\s+|gradually\s+|steadily\s+)?(?:left|right|up|"
    r"down|across|over|around|out|to|from|towards?|along|past|upwards?|downwards?|away|back|"
    r"through)\b",
)
GAZES = Gated(
    r"\b(?:look|smil|gaz|star|wav|fac|speak|talk|turn|glanc|point|pos|wink|grin|blow|nod|walk|mov|"
    r"approach|run|com|lean)\w*\s+(?:\w+\s+){0,3}?(?:at|into|to|toward|towards|for|in front of|"
    r"directly at|straight at|away from|from)?\s*(?:the\s+)?camera\b",
)
PERHAPS = Gated(
    r"\b(?:soft|warm|golden|dim|bright|harsh)\s+(?:light|glow)\b(?=\s+(?:illuminates|bathes|"
    r"falls))",
    r"\bframed by\b",
    r"\bfocus(?:es|ing|ed)?\s+(?:on|upon)\b",
    r"\b(?:silhouette|silhouetted)\b",
)


# ---- families ----


_WORDS = {name: any_of(words) for name, words in tables.table("filming").items()}
_EYE, _GOES = _WORDS["eye"], _WORDS["goes"]
_TAKEN, _WHENCE, _FROM_WHERE = _WORDS["taken"], _WORDS["whence"], _WORDS["from where"]
_SOFT, _RENDERED = _WORDS["soft"], _WORDS["rendered"]
FAMILIES = Gated(
    # who looks, and how it moves
    rf"\b(?:the|a|our|its|this)\s+(?:\w+\s+)?{_EYE}\s+(?:\w+ly\s+|then\s+|now\s+|also\s+"
    rf")*{_GOES}\b(?!\s+(?:frame|book|show))",
    r"\b(?:dolly|crane|tracking|boom|jib|drone|steadicam|two|three|wide|medium|long|close|master|"
    r"pan|aerial|low|high|cutaway|insert|reverse|push-in|pull-out|hero|beauty|drone|gimbal|"
    r"handheld|pov|reaction|tilt|zoom)[- ]shots?\b(?!\s+(?:glass|put|clock|from\s+the\s+(?:line|"
    r"three)))",
    rf"\b{_TAKEN}\s+(?:\w+ly\s+)?(?:from|at|in)\s+(?:\w+ly\s+|high\s+|just\s+|far\s+)?{_WHENCE}\b",
    rf"\b{_TAKEN}\s+(?:\w+ly\s+)?(?:in|from|at|through|on|with|by|against|within|under|across|over|"
    rf"to)\s+(?:the\s+|an?\s+|one\s+|its\s+|their\s+|his\s+|her\s+)?(?:[\w'’-]+\s+(?:and\s+|to\s+"
    rf")?){{0,3}}?{_FROM_WHERE}\b"
    r"(?!\s+(?:of\s+(?:the|a)\s+(?:room|house|box|car|street|road|table|bed|pool|building)))",
    r"\b(?:tracked|trailed|followed)\s+(?:smoothly|steadily|closely|slowly|fluidly)\b|"
    r"\bclosely\s+tracked\b",
    r"\bup[- ]close\b|\bat\s+(?:very\s+)?close\s+(?:range|quarters)\b|\bin\s+close\s+detail\b|"
    r"\bin\s+(?:extreme|macro|intimate|exquisite|minute|fine|sharp|crisp|vivid|stunning|high|"
    r"great)\s+(?:detail|relief|clarity)\b|\bextreme\s+detail\b",
    r"\b(?:viewed|seen)\s+(?:only\s+)?(?:head-on|in\s+profile|side-on|frontally|from\s+\w+)\b|"
    r"\bthrough\s+(?:a|the)\s+(?:\w+\s+)?(?:lens|viewfinder|wide-angle|fisheye)\b",
    r"\b(?:at|from)\s+(?:\w+\s+)?(?:eye|ground|knee|waist|hip|floor|street|shoulder|water|"
    r"roof)[- ]level\b(?=\s*(?:[,.;]|and\b|shots?\b|view|perspective|angle|as\b|while\b))|"
    r"\b(?:high|low|oblique|steep|skewed|dutch|canted|fixed|single|unusual|tilted|elevated|"
    r"raised)\s+(?:angle|viewpoint|vantage|perspective)\b|\bangled\s+(?:shot|view|down\s+from)\b",
    # place in the picture
    r"\bcropped\s+(?:at|to|by|tight|close|in)\w*\b|\b(?:left|right|upper|lower|middle|central|top|"
    r"bottom)\s+third\b|\b(?:centred|centered|positioned|placed|composed|off-centre|off-center|"
    r"dead\s+centre)\s+(?:in|within|at|on)\s+(?:the\s+)?(?:\w+\s+)?(?:frame|shot|composition|"
    r"picture|image|screen|third)\b|\b(?:fill|dominat|occup|enter|exit|leav|cross)\w*\s+"
    r"(?:most\s+of\s+|half\s+of\s+)?the\s+(?:frame|shot|picture|image|screen|foreground)\b|"
    r"\bedges?\s+of\s+(?:the\s+)?(?:frame|shot|picture|image)\b|\bcomposition(?:ally)?\b|"
    r"\bsymmetrically\b|\bout\s+of\s+(?:frame|shot|view\s+of\s+the)\b|\bin\s+(?:full|sharp)\s+"
    r"(?:frame|view\s+of\s+the\s+(?:camera|lens))\b|\boff-?frame\b|\bin\s+frame\b",
    # focus
    r"\bplane\s+of\s+focus\b|\b(?:narrow|thin|razor-thin|shallow|selective|soft|deep|sharp|tack|"
    r"pin|rack|pulled|crisp|split|limited)[- ](?:focus|sharp|depth)\b|\bfocus\s+(?:shift|pull|"
    r"rack|mov|slid|drift|chang|travel|jump|land|fall|snap)\w*|\b(?:against|before|with|amid|"
    r"in\s+front\s+of|by|of|into|over)\s+(?:an?\s+|the\s+)?(?:\w+ly[- ]|creamy\s+|soft\s+|"
    r"out-of-focus\s+)*(?:blurr(?:ed|y)|out-of-focus|defocus(?:s)?ed|hazy,?\s+unfocused|"
    r"unfocused)\b|\b(?:background|foreground|backdrop|surroundings|surrounding|rest|city|crowd|"
    r"street|lights|everything\s+(?:else|behind))\s+(?:\w+\s+){0,4}?(?:blurr(?:ed|y|ing|s)|"
    r"softly\s+out|out\s+of\s+focus|defocus\w*|a\s+(?:soft\s+)?blur)\b|\bblurs?\s+(?:into|away|"
    r"behind|to)\b|\bsoft(?:ly)?\s+blur\w*\b|\b(?:motion|background|bokeh|creamy|gaussian|"
    r"lens)\s+blur\w*\b|\bkept\s+(?:\w+ly\s+)?(?:sharp|in\s+focus)\b",
    # light and colour as craft
    r"\b(?:lit|illuminated)\s+(?:\w+ly\s+)?(?:by|with|in|under|from)\s+(?:an?\s+|the\s+"
    r")?(?:\w+,?\s+){0,2}?(?:lighting|key|rim|backlight|softbox|ring\s+light|above|behind|below|"
    r"beneath|one\s+side|the\s+side|fill|chiaroscuro)\b",
    rf"\b{_SOFT}[,-]?\s+(?:and\s+)?(?:\w+,?\s+(?:and\s+)?)?(?:lighting|illumination)\b|\b(?:soft|"
    rf"dramatical|harsh|warm|"
    r"cool|mood|even|subt|artful|beautiful|atmospherical|golden|professional|cinematical|"
    r"theatrical)[li]*y[- ]lit\b|\b(?:light|lighting)\s+(?:is|are|was|looks?|remains?|stays?)\s+"
    r"(?:\w+ly\s+|and\s+|,\s*)*(?:soft|diffused?|warm|natural|dramatic|harsh|flat|even|moody|"
    r"low-key|high-key|subdued|cool|bright|dim|ambient)\b|\bunder\s+(?:\w+,?\s+){0,3}?lighting\b|"
    r"\bthe\s+lighting\b|\blighting\b(?=\s*[,.;])",
    r"\b(?:in|with|of|into)\s+(?:an?\s+)?(?:\w+,?\s+(?:and\s+)?)?(?:warm|cool|muted|saturated|"
    r"desaturated|faded|washed-out|vivid|rich|sepia|monochrome|grey|gray|vibrant|pastel|earthy|"
    r"moody|teal|contrasting|high-contrast|bold|subdued|soft|grainy|golden)\s+(?:and\s+\w+\s+"
    r")?(?:tones?|hues?|palettes?|grading|grade|colou?r\s+(?:palette|scheme|grading|grade|tones?)|"
    r"contrast)\b",
    r"\b(?:over-?|de-?|highly\s+|richly\s+)?saturated\b|\bgr[ea]yscale\b|\bgrain(?:y|iness)\b|"
    r"\bcontrasty\b|\bfilm-like\b|\bnewsreels?\b|\bhigh\s+contrast\b|\bcolou?r-?\s?(?:graded|"
    r"corrected|treated|timed)\b|\b(?:instagram|colou?r|vintage|sepia|retro)\s+filter\b|"
    r"\bvisual\s+(?:style|effects?|quality|treatment|language|tone|texture)\b|\blens\s+(?:flares?|"
    r"distortion)\b|\blight\s+leaks?\b|\bsilhouetted\s+(?:by|against)\s+(?:the\s+)?(?:lighting|"
    r"backlight)\b|\bsun\s?flares?\b",
    # drawn and produced
    rf"\b{_RENDERED}\s+(?:\w+ly\s+)?(?:in|with|as|using|by)\s+(?:an?\s+|the\s+)?(?:[\w'’-]+,?\s+"
    rf"(?:and\s+)?){{0,4}}?(?:style|animation|cgi|"
    r"cg|2-?d|3-?d|graphics|technique|manner|aesthetic|look|film|stop-motion|outlines?|cel\s+"
    r"shading)\b",
    r"\b(?:in|with)\s+(?:an?\s+|the\s+)?(?:[\w'’-]+,?\s+(?:and\s+)?){0,3}?(?:documentary|"
    r"cinematic|film|filming|visual|animation|animated|cartoon|anime|comic|retro|vintage|vlog|"
    r"news|reportage|hand-?painted|hand-?drawn|2-?d|3-?d|cgi|photo|photographic|commercial|"
    r"music\s+video|home\s+video|noir|realistic|minimalist|painterly|pixel|watercolou?r|"
    r"home-movie|old-film)[- ](?:style|look|feel|aesthetic|manner|fashion|quality|art\s+style)\b",
    r"\b(?:computer-generated|cel-shaded|rotoscoped|stylised\s+animation|stylized\s+animation|"
    r"documentary-style|photo-?realistic|hyperrealistic|in\s+the\s+style\s+of\s+an?\s+(?:film|"
    r"documentary|movie|cartoon|painting|commercial|advert\w*))\b",
    # speed and play
    r"\b(?:at|in)\s+(?:half|double|twice|normal|reduced|full|high|low|triple|quarter|real|"
    r"variable|accelerated|natural)[- ](?:speed|time|the\s+speed)\b(?=\s*(?:[,.;]|as\b|while\b|"
    r"and\b|footage|playback|$))|\b(?:speeded|sped|slowed)[- ](?:up|down)\b|\b(?:played|plays|"
    r"playing|shown|runs?|running)\s+(?:back\s+)?(?:in\s+(?:reverse|slow|a\s+loop|rewind)|"
    r"backwards?\b|on\s+(?:a\s+)?loop)|\bslow(?:ed)?-?\s?mo(?:tion)?\b|\b(?:super|ultra|"
    r"extreme)[- ]slow\b|\bseamless\s+loop\b|\bframe\s+by\s+frame\b|\bin\s+rewind\b|"
    r"\b\d+(?:\.\d+)?x\s+speed\b|\bhigh[- ]speed\s+(?:camera|footage|video|photography)\b|"
    r"\btime-?\s?lapsed?\b",
    # cutting and writing over the picture
    r"\b(?:followed\s+by|with|before|ending\s+(?:with|in|on)|into|through|after|in|via)\s+"
    r"(?:an?\s+|the\s+|its\s+|several\s+|a\s+series\s+of\s+)?(?:\w+\s+){0,2}?(?:fade(?:-?outs?|"
    r"-?ins?)?|cross-?fades?|dissolves?|jump\s+cuts?|smash\s+cuts?|hard\s+cuts?|quick\s+cuts?|"
    r"cuts|cut\s+to|wipes|transitions?|intercuts?|intertitles?|title\s+cards?|end\s+cards?|"
    r"credits|editing|edits|montage|split-screen)\b",
    r"\b(?:intercut|cross-cut|cut\s+together|edited|spliced|juxtaposed\s+in\s+cuts)\b|"
    r"\b(?:closing|end|opening|rolling)\s+credits\b|\b(?:title|caption|end|text)\s+(?:card|"
    r"overlay|slate)s?\b|\btext\s+overlays?\b|\boverlaid\s+(?:text|titles?|captions?|graphics)\b|"
    r"\bsubtitles?\b|\bwatermarks?\b|\bslow\s+(?:fade|dissolve)\b|\bfad(?:e|es|ing)\s+(?:to|in|"
    r"out|from)\s+(?:black|white|view)\b|\bbackground\s+music\b|\bsoundtrack\b|\bvoice-?overs?\b|"
    r"\bnarrat(?:or|ion|ed)\b|\bsound\s+effects?\b",
    r"\bcrisp\s+(?:4k|hd|8k|detail|resolution|image|footage|quality)\b|\b(?:high|low|ultra|poor|"
    r"top|broadcast|studio)[- ](?:res|resolution|definition|quality\s+(?:image|picture|"
    r"recording))\b|\bfull[- ]?hd\b|\bultra-?hd\b|\bpixelated\s+(?:video|footage|image)\b|"
    r"\b(?:16:9|9:16|vertical\s+(?:video|format)|portrait\s+mode|landscape\s+mode|widescreen)\b|"
    r"\b\d+\s?(?:mm|fps|k)\s+(?:film|lens|footage|camera|video|resolution)\b|\b(?:gopro|camcorder|"
    r"steadicam|viewfinder|videographer|cinematographer|filmmaker|cameraman|camerawork|dashcam|"
    r"bodycam|webcam)\b|\bon\s+(?:film|video|tape|camera)\b",
)
