"""What is said about a scene instead of shown in it: the families of R5, by kinds of words.

A family counts only where the original does not tell the same as content: a caption may repeat
that a man hurries because a bus leaves, but not that the mood is tense.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from colibri.core.captions.gate import Gated, words_in
from colibri.core.captions.language import (
    AUXILIARIES,
    CONJUNCTIONS,
    DETERMINERS,
    PREPOSITIONS,
    PRONOUNS,
    lemmas,
    parts_of_speech,
)


def comments(original: str, caption: str) -> Iterator[tuple[int, int]]:
    """Spans of reasoning, judging, guessing, teaching and talk about the task."""
    for match in _FAMILIES.finditer(caption):
        if not is_told(match.group(), original):
            yield match.span()
    for match in _COMMAND.finditer(caption):
        if _is_command(match):
            yield match.span("verb")


_WORD = re.compile(r"[a-z]+")


def _words(text: str) -> str:
    """An alternation of the words of a text; `_` stands for a space."""
    return "(?:" + "|".join(word.replace("_", r"\s+") for word in text.split()) + ")"


# ---- kinds of words ----

_DEED = _words(
    "process feat task sight gesture skill technique tradition practice art craft moment reminder "
    "tribute testament sign symbol display picture example proof choice habit ritual custom trick "
    "challenge achievement accomplishment triumph lesson experience journey story tale mystery "
    "routine treat pleasure delight joy hazard danger risk mistake spectacle effort attempt "
    "contrast "
    "balance harmony blend mark staple favourite favorite classic relic nod ode homage masterpiece "
    "metaphor victory scene snapshot glimpse portrait celebration demonstration illustration "
    "expression reflection embodiment showcase study symphony dance testimony statement hint echo "
    "throwback step duty job chore pastime hobby sport activity discipline labour labor act move "
    "way method approach strategy tactic means opportunity chance combination mixture touch "
    "warning memory dream vision evidence nightmare adventure escape retreat haven paradise "
    "oasis sanctuary role legacy piece_of_history work_of_art far_cry perfect_example"
)
"""Heads of a phrase behind a comma that weighs what was told: `a process that takes years`."""

_INNER = _words(
    "dedication devotion passion determination loneliness commitment resilience perseverance "
    "courage bravery camaraderie friendship loyalty mastery expertise professionalism patience "
    "enthusiasm excitement anxiety sorrow grief nostalgia emotions? feelings? thoughts? mood "
    "personality freedom solitude innocence anonymity happiness sadness affection "
    "tenderness pride shame guilt anger frustration boredom curiosity surprise confidence "
    "concentration skills? talent creativity imagination ambition dreams? hopes? wishes goals? "
    "intentions? motives? reasons? elegance beauty grace importance significance meaning purpose "
    "bond connection relationship trust respect faith hard_work efforts? experience "
    "attention_to_detail "
    "strength wisdom knowledge spirit identity heritage culture history lifestyle "
    "craftsmanship quality power reputation success failure future"
)
"""What cannot be seen in somebody."""

_JUDGED = _words(
    "dangerous risky hazardous unsafe remarkable impressive difficult hard easy tricky important "
    "common rare typical unusual illegal legal healthy unhealthy popular famous essential "
    "necessary "
    "impossible possible amazing incredible wonderful beautiful lovely nice good bad great "
    "excellent perfect terrible awful fun funny amusing boring interesting fascinating exciting "
    "relaxing soothing tiring exhausting surprising strange odd weird ironic sad tragic "
    "heartwarming "
    "touching moving inspiring memorable unforgettable recommended advisable wise unwise smart "
    "clever foolish silly reckless careless brave polite rude proper improper correct incorrect "
    "wrong right efficient effective useful useless helpful worthwhile valuable priceless "
    "expensive "
    "cheap iconic legendary timeless symbolic meaningful significant crucial vital critical "
    "traditional customary normal natural expected understandable inevitable cute adorable "
    "charming "
    "delightful delicious tasty tempting ideal suitable appropriate therapeutic satisfying "
    "rewarding "
    "challenging demanding stressful peaceful romantic nostalgic poetic magical majestic worth "
    "known considered regarded believed thought said required needed intended designed"
)
"""What a speaker thinks of something."""

_THINKS = _words(
    "enjoy savou?r relish cherish hope wish want wonder know think believe intend plan remember "
    "recall forget appreciate dream worry understand realiz realis anticipate expect prefer need "
    "regret envy suspect imagin assum suppos mean reckon guess yearn crave fancy dread trust "
    "matter deserve contemplate reminisce"
)
_ONES = _words("he she it they who we i you one somebody someone everybody everyone anyone nobody")
_MEDIUM = _words(
    "details? caption captions description descriptions sentence wording terms? references? "
    "mentions? "
    "information elements? language words? style_notes instructions? rules? prompt input output"
)

_FAMILIES = Gated(
    # reasons
    r"\bbecause\b|\bso\s+that\b|\bin\s+case\b|\blest\b|\bthereby\b|\bowing\s+to\b|\bthanks\s+to\b|"
    r"\bdue\s+to\b|\bfor\s+fear\b|\bhence\b|\baccordingly\b|\bafter\s+all\b|\bwhich\s+is\s+why\b|"
    r"\bno\s+(?:wonder|doubt|matter)\b|\bgiven\s+(?:the|how|his|her|their)\b|\bseeing\s+(?:as|that)\b",
    rf"[,;:–—-]\s*(?:and\s+)?so\s+(?:{_ONES}|the|a|an|this|there|much|as)\b",
    rf"\b(?:as|since)\s+{_ONES}\s+(?:\w+ly\s+)?(?:help|need|want|tr(?:y|ies)|know|like|love|has|have|"
    r"must|is\s+(?:important|likely|time)|seem|wish|hope|fear|expect|prepar|aim)\w*",
    rf"[,;]\s+for\s+{_ONES}\s+\w+",
    # aims
    r"\bto\s+(?:make\s+sure|ensure|guarantee|prove|symboli[sz]e|represent|demonstrate|convey|express|"
    r"emphasi[sz]e|signify|remind|impress|prevent|avoid|please|satisfy|motivate|encourage|inspire|"
    r"achieve|maintain|improve|maximi[sz]e|minimi[sz]e|relieve|commemorate|honou?r|preserve|"
    r"enhance|accommodate|suggest|imply|evoke|underline|underscore|help\s+\w+|let\s+\w+\s+know)\b",
    r"\bin\s+(?:an?\s+)?(?:\w+\s+)?(?:effort|attempt|bid|hopes?)\s+(?:to|of|that)\b|\bwith\s+the\s+"
    r"(?:aim|goal|intention|intent|hope|purpose|idea)\s+(?:of|to|that)\b|\bfor\s+the\s+(?:sake|"
    r"purpose|benefit)\s+of\b|\bmeant\s+(?:to|for|as)\b|\b(?:intended|designed|destined|supposed)\s+"
    r"(?:to|for)\b|\b(?:aim|aims|aiming|hopes|hoping|striving|strives|longing|yearning)\s+(?:to|for)\b",
    r"\b(?:ensur|guarantee|allow|enabl|prevent|caus|encourag|motivat|inspir|impress|entertain|"
    r"remind|symboli[sz]|embod|help)(?:s|es|ing|ies|ying)\s+(?:\w+\s+){0,3}?(?:to|that|of|from|them|"
    r"him|her|people|everyone|anyone|viewers?|audiences?)\b",
    # minds
    rf"(?<!I )\b{_THINKS}(?:s|es|ing|ed)?\s+(?:to|that|of|about|for|how|what|why|if|whether|every|"
    rf"each|the|"
    r"a|an|his|her|their|its|it|this|him|them|himself|herself|nothing|something|everything)\b",
    r"\b(?:about|ready|eager|determined|keen|happy|glad|anxious|reluctant|likely|unlikely|bound|sure|"
    r"certain|afraid|excited|proud|prepared|desperate|unable|free|content|pleased|careful)\s+to\s+\w+",
    r"\b(?:lost|deep)\s+in\s+(?:\w+\s+)?(?:thought|concentration|reflection|memor\w+|prayer|work)\b|"
    r"\bin\s+a\s+(?:hurry|rush|good\s+mood|bad\s+mood)\b|\bhaving\s+(?:a\s+)?(?:\w+\s+)?(?:fun|good\s+time)\b|"
    r"\b(?:unaware|aware|oblivious|conscious|mindful|tired|confident|certain|proud|fond|afraid)\s+(?:of|that)\b|"
    r"\b(?:for|just\s+for)\s+(?:fun|pleasure|enjoyment|the\s+fun)\b|\bfree\s+(?:from|of)\s+(?:worr|care|stress)\w*",
    rf"\b(?:his|her|their|its|one's|human|pure|sheer|great|true|deep|genuine|utter)\s+(?:[\w-]+\s+)?{_INNER}\b",
    rf"\b(?:full\s+of|filled\s+with|brimming\s+with|bursting\s+with|radiating|driven\s+by|fuelled\s+by|"
    rf"fueled\s+by|overcome\s+(?:with|by)|steeped\s+in|rooted\s+in)\s+(?:\w+\s+)?(?:{_INNER}|life|wonder|"
    r"hope|promise|energy|charm|tradition|mystery|warmth|anticipation)\b",
    r"(?:[,;–—-]|\b(?:is|are|looks?|seems?|feels?|and))\s+(?:\w+\s+){0,2}?(?:lonely|carefree|nostalgic|"
    r"wistful|melanchol\w+|hopeful|hopeless|anonymous|fearless|heroic|blissful\w*|homesick|lovesick|"
    r"heartbroken|grateful|thankful|jealous|ashamed|guilty|optimistic|pessimistic|fulfilled)\b",
    # judgements
    rf"[,;:–—-]\s*(?:(?:truly|certainly|surely|quite|almost|simply|perhaps|such|all|and|but|as|in)\s+)*"
    rf"(?:an?|the|one\s+of\s+the|another|no|this\s+is|that\s+is|it\s+is|what)\s+(?:(?!(?:of|in|on|and|with|who|at)\b)"
    rf"[\w'’-]+,?\s+){{0,4}}?{_DEED}(?=\s+(?:that|which|of|to|in|for|from|with|between|where|anyone|any|every|so|he|she|they|"
    r"it|one|known|worth|requiring|needing|few|we|you|as|not|passed|only|many|most|some|is|was)\b|[.!;])",
    rf"\b(?:which|this|that|it|all\s+of\s+which|doing\s+so)\s+(?:is|are|was|makes?\s+(?:it|this|him|her|them))"
    rf"\s+(?:(?:\w+ly|very|quite|so|also|not|never|always|often|a|an|the|most|more)\s+)*{_JUDGED}\b",
    r"\b(?:matters?|mattering)\b|\bspeaks?\s+volumes\b|\bsays?\s+(?:a\s+lot|much|something)\s+about\b|"
    r"\bis\s+worth\s+\w+ing\b|\bdeserv\w+\b|\bworthy\s+of\b|\bat\s+(?:its|their|his|her)\s+(?:best|finest|worst)\b|"
    r"\bcouldn't\b|\bcan\s+only\s+be\b|\bis\s+no\s+(?:easy|small|mean|ordinary)\b",
    r"\b(?:one\s+of\s+the\s+(?:most|best|world)|the\s+(?:most|best|worst|perfect|ideal|ultimate)\s+\w+|"
    r"like\s+(?:a\s+)?(?:true|real|professional|pros?|something)|as\s+(?:only|befits|one\s+would|usual|always|"
    r"ever|expected|any|in\s+(?:many|so\s+many|a\s+(?:dream|fairy\s?tale|film|movie|painting))))\b|\bstraight\s+out\s+of\b|"
    r"\bkind\s+of\s+\w+\s+(?:that|one|you|who)\b",
    r"\b(?:heart-?warming|heartfelt|awe-inspiring|breathtaking|unforgettable|thought-provoking|"
    r"captivating|mesmeri[sz]ing|spellbinding|eye-catching|jaw-dropping|bittersweet|poignant|"
    r"picture-perfect|picturesque|idyllic|postcard-perfect|wholesome|quintessential|otherworldly|"
    r"surreal|dreamlike|uplifting|soul-stirring|endearing|irresistible|remarkabl[ey]|impressively|"
    r"admirabl[ey]|commendabl[ey])\b",
    # the speaker's stance
    r"\bclearly\b(?!\s+(?:visible|lit|marked|seen|audible|written|heard|label|reads?|shows?|stat))|"
    r"\b(?:definitely|certainly|actually|really|understandably|interestingly|surprisingly|fortunately|"
    r"unfortunately|luckily|thankfully|ironically|curiously|strangely|importantly|ultimately|"
    r"essentially|basically|admittedly|allegedly|purportedly|inevitably|hopefully|conceivably)\b|"
    r"\bneedless\s+to\s+say\b|\bin\s+fact\b|\bindeed\b|\bwithout\s+(?:a\s+)?doubt\b|\bby\s+all\s+accounts\b|"
    r"\b(?:by|from)\s+the\s+looks?\s+of\b|\bso\s+to\s+speak\b|\bas\s+it\s+were\b|\bit\s+turns\s+out\b|"
    r"\bone\s+might\b|\bas\s+though\b|[,;]\s*(?:sadly|naturally|honestly|frankly)\b",
    r"\b(?:will|would|could|should|might|shall)\s+(?:not\s+|never\s+|soon\s+|probably\s+|surely\s+|"
    r"also\s+|all\s+|one\s+day\s+|later\s+|then\s+|have\s+|be\s+)*[a-z]+\b",
    r"\b(?:must|may|can't|cannot)\s+(?:not\s+)?(?:be|have|feel|know|think|want|need|like|mean|come|belong|"
    r"remember|wait\s+to|seem|indicate|explain|help\s+but)\b|\b(?:ought|needs?|has|have|had|going)\s+to\s+(?!the\b|a\b|an\b|her\b|his\b)\w+",
    r"(?<=\s)I(?:['’]d|['’]m|['’]ve|['’]ll)?\s+(?:\w+\s+){0,2}?(?:assum|think|say|guess|suppos|believ|imagin|feel|find|"
    r"reckon|suspect|wonder|hope|bet|love|like|left|remov|kept|doubt|expect|understand|know|sure|recommend|"
    r"suggest|note|add)\w*|\b(?:my|our|in\s+my|to\s+my)\s+(?:impression|opinion|view|guess|feeling|"
    r"sense|favou?rite|thoughts?|understanding|mind|interpretation|taste|imagination)\b",
    # teaching: habits of the world, numbers of years
    r"\b(?:usually|always|typically|traditionally|generally|commonly|frequently|normally|nowadays|"
    r"these\s+days|in\s+general|since\s+ancient|throughout\s+history|over\s+the\s+(?:years|centuries)|"
    r"for\s+(?:many\s+|\w+\s+)?(?:generations|centuries|decades|millennia)|around\s+the\s+world|"
    r"all\s+over\s+the\s+world|in\s+many\s+(?:cultures|countries|places)|every\s+(?:day|year|weekend|"
    r"summer|winter|time)|in\s+the\s+(?:past|future|old\s+days)|(?:years|decades|generations|centuries)\s+of\s+\w+|a\s+lifetime)\b",
    r"\b(?:requir|take|need)(?:s|ing|es)?\s+(?:\w+\s+){0,2}?(?:years|patience|skill|practice|strength|courage|"
    r"time|focus|concentration|precision|care|effort|discipline|balance|teamwork|training|coordination|"
    r"stamina|dedication)\b",
    # the reader and the task
    r"\b(?:you|your|yours|yourself)\b|\b(?:viewers?|the\s+reader|readers|onlookers?|anyone|whoever)\s+(?:can|may|might|will|would|who|to|into|is|are|feels?|gets?|knows?)\b|"
    r"\btake[ns]?\s+(?:us|me|one|you)\s+(?:back|on|to|into)\b|\bmak(?:es|ing)\s+(?:us|one|you|it|them|him|her)\s+"
    r"(?:\w+ly\s+)?(?:feel|look|seem|think|want|wonder|easy|hard|clear|look|more|one|an?|the)\b",
    r"\([^()]*\b(?:rule|note|word|caption|camera|original|omitted|removed|details?|description|"
    r"mentioned|specified|video|interpret\w*|probably|perhaps|likely)\b[^()]*\)?|\((?=[A-Z][^()]*[.!]\))",
    rf"\b{_MEDIUM}\s+(?:\w+\s+){{0,2}}?(?:(?:is|are|was|were|has\s+been|have\s+been|had)\s+)?(?:not\s+)?(?:removed|"
    r"needed|included|mentioned|omitted|given|provided|left\s+out|present|required|dropped|changed|kept|"
    r"specified|allowed|excluded|preserved|follow\w*|above|below|meets?|avoids?|contains?)\b",
    r"\b(?:in|within|under)\s+(?:\w+\s+){0,2}?\d+\s+words\b|\b(?:caption|rewrit\w+|paraphras\w+|"
    r"rephras\w+|reword\w*|summari[sz]\w+|wording|captioned)\b|\bto\s+(?:sum\s+up|be\s+(?:precise|exact|"
    r"fair|honest|clear)|put\s+it)\b|\bin\s+(?:short|brief|a\s+nutshell|a\s+word|one\s+sentence)\b|\bnot\s+to\s+mention\b|"
    r"\bfor\s+(?:example|instance)\b|\bthis\s+(?:way|means|suggests|shows|makes|helps)\b",
    r"\bwhat\s+an?\s+\w+|\bhow\s+(?:lovely|wonderful|cute|beautiful|amazing|nice)\b",
)

# `Crack two eggs`, `Then add the flour`
_COMMAND = re.compile(
    r"(?:^|[.!?;:]\s+)[\"“]?(?:(?:first|then|next|now|finally|lastly|second|afterwards?|please|always|"
    r"just|simply|after\s+that)\b,?\s+)?(?P<verb>[A-Za-z]{2,12})\s+(?P<next>[a-z]+)\b",
    re.IGNORECASE,
)
_OBJECTS = DETERMINERS | frozenset("two three four five six it them sure him".split())
_CLOSED = (
    DETERMINERS
    | PREPOSITIONS
    | CONJUNCTIONS
    | AUXILIARIES
    | PRONOUNS
    | frozenset("then once".split())
)


def _is_command(match: re.Match[str]) -> bool:
    """Whether a sentence begins with the plain form of a verb and its object."""
    verb, following = match["verb"].lower(), match["next"].lower()
    if verb in _CLOSED or following not in _OBJECTS:
        return False
    return _is_plain_verb(verb)


@lru_cache(maxsize=20_000)
def _is_plain_verb(word: str) -> bool:
    return (
        "VERB" in parts_of_speech(word)
        and not word.endswith(("ing", "ed", "s"))
        and len(lemmas(word)) == 1
    )


# ---- what the original tells ----

_TALK = Gated(
    r"\b(?:mood|atmosphere|ambian?ce|tone|vibe|overall|style|camera|viewers?|sense\s+of|feeling\s+of|"
    r"suggest\w*|evok\w*|convey\w*|symboli\w*|impl(?:y|ies|ying)|hint\w*|remind\w*|seems?|appears?\s+to|"
    r"likely|perhaps|possibly|emphasi\w*|aims?\s+to|invit\w+|testament|reflecting)\b"
)
_VIDEO = re.compile(
    r"\b(?:video|clip|footage|mood|atmosphere|ambiance|tone|viewers?|lighting|camera\s+(?:work|is|pans?|moves?|"
    r"follows|zooms?|tilts?|tracks|stays|remains|captures|glides|circles)|scene|shot\s+(?:from|in|with|is))\b",
    re.IGNORECASE,
)
"""Originals that speak of the recording, too; the others tell of the scene alone."""
_SENTENCE = re.compile(r"[^.!?]+[.!?]*")


def is_told(words: str, original: str) -> bool:
    """Whether the original has these words as content, in whatever forms."""
    stems = {word[:_STEM] for word in _WORD.findall(words.lower())}
    return bool(stems) and stems <= _told_stems(original)


_STEM = 4
"""Letters by which forms of a word agree."""


@lru_cache(maxsize=64)
def speaks_of_recording(original: str) -> bool:
    """Whether an original is about the video, its mood or its camera, too."""
    return _VIDEO.search(original) is not None


@lru_cache(maxsize=64)
def _told_stems(original: str) -> frozenset[str]:
    return frozenset(word[:_STEM] for word in told_words(original))


@lru_cache(maxsize=64)
def told_words(original: str) -> frozenset[str]:
    """Words of the original's sentences, those on mood, meaning and camera left out."""
    if not speaks_of_recording(original):
        return frozenset(_WORD.findall(original.lower()))
    told = [part for part in _SENTENCE.findall(original) if not _TALK.search(part)]
    return words_in(" ".join(told)) | frozenset(_WORD.findall(" ".join(told).lower()))
