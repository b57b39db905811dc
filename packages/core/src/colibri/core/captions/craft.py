"""Words about how a scene is recorded, by families: who looks, how it is lit, cut and played.

A family does not count where the original tells the same as content: a drone that a man flies.
"""

import re
from collections.abc import Iterator

from colibri.core.captions.commentary import is_told
from colibri.core.captions.gate import Gated


def craft_terms(original: str, caption: str) -> Iterator[re.Match[str]]:
    """Matches of the families in the caption that are not content of the original."""
    for match in _FAMILIES.finditer(caption):
        if not is_told(match.group(), original):
            yield match


def _words(text: str) -> str:
    """An alternation of the words of a text; `_` stands for a space or a hyphen."""
    return "(?:" + "|".join(word.replace("_", r"[\s-]+") for word in text.split()) + ")"


_EYE = _words(
    "view viewpoint vantage vantage_point perspective point_of_view picture image frame lens zoom "
    "camcorder cam "
    "drone_camera shot"
)
"""What stands for the camera."""

_GOES = _words(
    "pans? tilts? zooms? orbits? circles? tracks? follows? glides? sweeps? swings? rotates? "
    "widens? narrows? "
    "tightens? drifts? settles? lingers? cuts? jumps? switches alternates? freezes rewinds slows? "
    "speeds? "
    "pulls? pushes closes_in moves? rises? drops? descends? ascends? shifts? changes? fades? "
    "dissolves? blurs? "
    "wobbles? shakes? loops? dollies trucks? cranes? arcs? travels? creeps? floats? flies dips? "
    "lowers? lifts? "
    "returns? stays? remains? holds? spins? whips? racks? trails? panning zooming tilting orbiting "
    "circling "
    "tracking following gliding sweeping rotating widening moving drifting shifting fading pulling "
    "pushing "
    "lingering closing cutting alternating is_held is_steady is_shaky is_static is_fixed is_tilted "
    "runs_alongside "
    "loses_focus comes_into_focus"
)
_TAKEN = _words(
    "seen viewed shown captured observed watched caught recorded filmed photographed presented "
    "tracked "
    "followed trailed framed rendered pictured depicted taken_in shot looked_at looking_down_on "
    "glimpsed "
    "displayed witnessed beheld portrayed traced isolated revealed picked_out kept held"
)
_WHENCE = _words(
    "above below behind overhead afar beneath underneath side-on head-on close_up up_close "
    "far_away high_up the_side "
    "the_front the_back the_rear the_air one_side the_sideline the_sidelines a_distance "
    "ground_level eye_level"
)
_FROM_WHERE = _words(
    "distance sideline air angle angles height heights perspective "
    "viewpoint vantage position lens camera phone drone window_of_a_car range profile detail view "
    "viewfinder shot "
    "close-up close_up closeup zoom focus frame plane "
    "elevation eye-level tripod gimbal speed take quality resolution definition lighting tones"
)
_SOFT = _words(
    "soft softly diffused? diffuse dramatic dramatically harsh harshly gentle gently warm warmly "
    "cool coolly "
    "low-key high-key moody moodily ambient cinematic studio natural even evenly subtle subtly "
    "artful artfully "
    "beautifully atmospheric atmospherically golden rich flattering directional theatrical "
    "theatrically professionally"
)
_RENDERED = _words(
    "drawn painted animated rendered illustrated sketched modelled modeled stylised stylized "
    "depicted produced "
    "designed created done presented shown filmed shot captured"
)

_FAMILIES = Gated(
    # who looks, and how it moves
    rf"\b(?:the|a|our|its|this)\s+(?:\w+\s+)?{_EYE}\s+(?:\w+ly\s+|then\s+|now\s+|also\s+)*{_GOES}\b(?!\s+(?:frame|book|show))",
    r"\b(?:dolly|crane|tracking|boom|jib|drone|steadicam|two|three|wide|medium|long|close|master|pan|aerial|low|high|"
    r"cutaway|insert|reverse|push-in|pull-out|hero|beauty|drone|gimbal|handheld|pov|reaction|tilt|"
    r"zoom)[- ]shots?\b"
    r"(?!\s+(?:glass|put|clock|from\s+the\s+(?:line|three)))",
    rf"\b{_TAKEN}\s+(?:\w+ly\s+)?(?:from|at|in)\s+(?:\w+ly\s+|high\s+|just\s+|far\s+)?{_WHENCE}\b",
    rf"\b{_TAKEN}\s+(?:\w+ly\s+)?(?:in|from|at|through|on|with|by|against|within|under|across|over|to)\s+"
    rf"(?:the\s+|an?\s+|one\s+|its\s+|their\s+|his\s+|her\s+)?(?:[\w'’-]+\s+(?:and\s+|to\s+)?){{0,3}}?{_FROM_WHERE}\b"
    r"(?!\s+(?:of\s+(?:the|a)\s+(?:room|house|box|car|street|road|table|bed|pool|building)))",
    r"\b(?:tracked|trailed|followed)\s+(?:smoothly|steadily|closely|slowly|fluidly)\b|\bclosely\s+tracked\b",
    r"\bup[- ]close\b|\bat\s+(?:very\s+)?close\s+(?:range|quarters)\b|\bin\s+close\s+detail\b|"
    r"\bin\s+(?:extreme|macro|"
    r"intimate|exquisite|minute|fine|sharp|crisp|vivid|stunning|high|great)\s+(?:detail|relief|clarity)\b|\bextreme\s+detail\b",
    r"\b(?:viewed|seen)\s+(?:only\s+)?(?:head-on|in\s+profile|side-on|frontally|from\s+\w+)\b|\bthrough\s+(?:a|the)\s+"
    r"(?:\w+\s+)?(?:lens|viewfinder|wide-angle|fisheye)\b",
    r"\b(?:at|from)\s+(?:\w+\s+)?(?:eye|ground|knee|waist|hip|floor|street|shoulder|water|roof)[- "
    r"]level\b(?=\s*(?:[,.;]|and\b|"
    r"shots?\b|view|perspective|angle|as\b|while\b))|\b(?:high|low|oblique|steep|skewed|dutch|canted|fixed|single|"
    r"unusual|tilted|elevated|raised)\s+(?:angle|viewpoint|vantage|perspective)\b|\bangled\s+(?:shot|view|down\s+from)\b",
    # place in the picture
    r"\bcropped\s+(?:at|to|by|tight|close|in)\w*\b|\b(?:left|right|upper|lower|middle|central|top|bottom)\s+third\b|"
    r"\b(?:centred|centered|positioned|placed|composed|off-centre|off-center|dead\s+centre)\s+(?:in|within|at|on)\s+(?:the\s+)?"
    r"(?:\w+\s+)?(?:frame|shot|composition|picture|image|screen|third)\b|\b(?:fill|dominat|occup|enter|exit|leav|cross)\w*\s+"
    r"(?:most\s+of\s+|half\s+of\s+)?the\s+(?:frame|shot|picture|image|screen|foreground)\b|\bedges?\s+of\s+(?:the\s+)?"
    r"(?:frame|shot|picture|image)\b|\bcomposition(?:ally)?\b|\bsymmetrically\b|\bout\s+of\s+(?:frame|shot|view\s+of\s+the)\b|"
    r"\bin\s+(?:full|sharp)\s+(?:frame|view\s+of\s+the\s+(?:camera|lens))\b|\boff-?frame\b|\bin\s+frame\b",
    # focus
    r"\bplane\s+of\s+focus\b|\b(?:narrow|thin|razor-thin|shallow|selective|soft|deep|sharp|tack|pin|rack|pulled|crisp|"
    r"split|limited)[- ](?:focus|sharp|depth)\b|\bfocus\s+(?:shift|pull|rack|mov|slid|drift|chang|"
    r"travel|jump|land|fall|snap)\w*"
    r"|\b(?:against|before|with|amid|in\s+front\s+of|by|of|into|over)\s+(?:an?\s+|"
    r"the\s+)?(?:\w+ly[- ]|creamy\s+|soft\s+|out-of-focus\s+)*"
    r"(?:blurr(?:ed|y)|out-of-focus|defocus(?:s)?ed|hazy,?\s+unfocused|unfocused)\b|\b(?:background|foreground|backdrop|"
    r"surroundings|surrounding|rest|city|crowd|street|lights|everything\s+(?:else|behind))\s+(?:\w+\s+){0,4}?(?:blurr(?:ed|y|ing|s)|"
    r"softly\s+out|out\s+of\s+focus|defocus\w*|a\s+(?:soft\s+)?blur)\b|\bblurs?\s+(?:into|away|behind|to)\b|\bsoft(?:ly)?\s+blur\w*\b|"
    r"\b(?:motion|background|bokeh|creamy|gaussian|lens)\s+blur\w*\b|\bkept\s+(?:\w+ly\s+)?(?:sharp|in\s+focus)\b",
    # light and colour as craft
    r"\b(?:lit|illuminated)\s+(?:\w+ly\s+)?(?:by|with|in|under|from)\s+(?:an?\s+|the\s+)?(?:\w+,?\s+){0,2}?(?:lighting|key|rim|"
    r"backlight|softbox|ring\s+light|above|behind|below|beneath|one\s+side|the\s+side|fill|chiaroscuro)\b",
    rf"\b{_SOFT}[,-]?\s+(?:and\s+)?(?:\w+,?\s+(?:and\s+)?)?(?:lighting|illumination)\b|\b(?:soft|dramatical|harsh|warm|"
    r"cool|mood|even|subt|artful|beautiful|atmospherical|golden|professional|cinematical|"
    r"theatrical)[li]*y[- ]lit\b|\b(?:light|lighting)\s+(?:is|are|was|looks?|"
    r"remains?|stays?)\s+(?:\w+ly\s+|and\s+|,\s*)*(?:soft|diffused?|warm|natural|dramatic|harsh|flat|even|moody|low-key|"
    r"high-key|subdued|cool|bright|dim|ambient)\b|\bunder\s+(?:\w+,?\s+){0,3}?lighting\b|\bthe\s+lighting\b|\blighting\b(?=\s*[,.;])",
    r"\b(?:in|with|of|into)\s+(?:an?\s+)?(?:\w+,?\s+(?:and\s+)?)?(?:warm|cool|muted|saturated|desaturated|faded|washed-out|vivid|rich|"
    r"sepia|monochrome|grey|gray|vibrant|pastel|earthy|moody|teal|contrasting|high-contrast|bold|subdued|soft|grainy|golden)\s+"
    r"(?:and\s+\w+\s+)?(?:tones?|hues?|palettes?|grading|grade|colou?r\s+(?:palette|scheme|grading|grade|tones?)|contrast)\b",
    r"\b(?:over-?|de-?|highly\s+|richly\s+)?saturated\b|\bgr[ea]yscale\b|\bgrain(?:y|iness)\b|\bcontrasty\b|\bfilm-like\b|\bnewsreels?\b|"
    r"\bhigh\s+contrast\b|\bcolou?r-?\s?(?:graded|corrected|treated|timed)\b|\b(?:instagram|colou?r|vintage|sepia|retro)\s+filter\b|"
    r"\bvisual\s+(?:style|effects?|quality|treatment|language|tone|texture)\b|\blens\s+(?:flares?|distortion)\b|\blight\s+leaks?\b|"
    r"\bsilhouetted\s+(?:by|against)\s+(?:the\s+)?(?:lighting|backlight)\b|\bsun\s?flares?\b",
    # drawn and produced
    rf"\b{_RENDERED}\s+(?:\w+ly\s+)?(?:in|with|as|using|by)\s+(?:an?\s+|the\s+)?(?:[\w'’-]+,?\s+(?:and\s+)?){{0,4}}?(?:style|animation|cgi|"
    r"cg|2-?d|3-?d|graphics|technique|manner|aesthetic|look|film|stop-motion|outlines?|cel\s+shading)\b",
    r"\b(?:in|with)\s+(?:an?\s+|the\s+)?(?:[\w'’-]+,?\s+(?:and\s+)?){0,3}?(?:documentary|cinematic|film|filming|visual|animation|animated|"
    r"cartoon|anime|comic|retro|vintage|vlog|news|reportage|hand-?painted|hand-?drawn|2-?d|3-?d|cgi|photo|photographic|"
    r"commercial|music\s+video|home\s+video|noir|realistic|minimalist|painterly|pixel|watercolou?r|home-movie|old-film)"
    r"[- ](?:style|look|feel|aesthetic|manner|fashion|quality|art\s+style)\b",
    r"\b(?:computer-generated|cel-shaded|rotoscoped|stylised\s+animation|stylized\s+animation|documentary-style|photo-?realistic|"
    r"hyperrealistic|in\s+the\s+style\s+of\s+an?\s+(?:film|documentary|movie|cartoon|painting|commercial|advert\w*))\b",
    # speed and play
    r"\b(?:at|in)\s+(?:half|double|twice|normal|reduced|full|high|low|triple|quarter|real|variable|"
    r"accelerated|natural)[- ]"
    r"(?:speed|time|the\s+speed)\b(?=\s*(?:[,.;]|as\b|while\b|and\b|footage|playback|$))|"
    r"\b(?:speeded|sped|slowed)[- ](?:up|down)\b|"
    r"\b(?:played|plays|playing|shown|runs?|running)\s+(?:back\s+)?(?:in\s+(?:reverse|slow|a\s+loop|rewind)|backwards?\b|on\s+(?:a\s+)?loop)|"
    r"\bslow(?:ed)?-?\s?mo(?:tion)?\b|\b(?:super|ultra|extreme)[- ]slow\b|\bseamless\s+loop\b|"
    r"\bframe\s+by\s+frame\b|\bin\s+rewind\b|"
    r"\b\d+(?:\.\d+)?x\s+speed\b|\bhigh[- ]speed\s+(?:camera|footage|video|photography)\b|"
    r"\btime-?\s?lapsed?\b",
    # cutting and writing over the picture
    r"\b(?:followed\s+by|with|before|ending\s+(?:with|in|on)|into|through|after|in|via)\s+(?:an?\s+|the\s+|its\s+|several\s+|a\s+series\s+of\s+)?"
    r"(?:\w+\s+){0,2}?(?:fade(?:-?outs?|-?ins?)?|cross-?fades?|dissolves?|jump\s+cuts?|smash\s+cuts?|hard\s+cuts?|quick\s+cuts?|cuts|"
    r"cut\s+to|wipes|transitions?|intercuts?|intertitles?|title\s+cards?|end\s+cards?|credits|editing|edits|montage|split-screen)\b",
    r"\b(?:intercut|cross-cut|cut\s+together|edited|spliced|juxtaposed\s+in\s+cuts)\b|\b(?:closing|end|opening|rolling)\s+credits\b|"
    r"\b(?:title|caption|end|text)\s+(?:card|overlay|slate)s?\b|\btext\s+overlays?\b|\boverlaid\s+(?:text|titles?|captions?|graphics)\b|"
    r"\bsubtitles?\b|\bwatermarks?\b|\bslow\s+(?:fade|dissolve)\b|\bfad(?:e|es|ing)\s+(?:to|in|out|from)\s+(?:black|white|view)\b|"
    r"\bbackground\s+music\b|\bsoundtrack\b|\bvoice-?overs?\b|\bnarrat(?:or|ion|ed)\b|\bsound\s+effects?\b",
    r"\bcrisp\s+(?:4k|hd|8k|detail|resolution|image|footage|quality)\b|\b(?:high|low|ultra|poor|"
    r"top|broadcast|studio)[- ](?:res|"
    r"resolution|definition|quality\s+(?:image|picture|recording))\b|\bfull[- ]?hd\b|\bultra-?hd\b|"
    r"\bpixelated\s+(?:video|footage|image)\b|"
    r"\b(?:16:9|9:16|vertical\s+(?:video|format)|portrait\s+mode|landscape\s+mode|widescreen)\b|\b\d+\s?(?:mm|fps|k)\s+(?:film|lens|footage|"
    r"camera|video|resolution)\b|\b(?:gopro|camcorder|steadicam|viewfinder|videographer|cinematographer|filmmaker|cameraman|"
    r"camerawork|dashcam|bodycam|webcam)\b|\bon\s+(?:film|video|tape|camera)\b",
)
