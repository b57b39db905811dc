"""Words that explain, interpret, judge, guess, teach or talk about the task: the patterns of R5.

A term of `FAMILIES` counts only where the original does not tell the same as content: a caption
may repeat that a man hurries because a bus leaves, but not that the mood is tense.
"""

import re

from colibri.core.captions import tables
from colibri.core.captions.gate import Gated
from colibri.core.captions.surface import any_of

_INFERS = (
    r"(?:suggest|indicat|imply|impli|hint|convey|evok|symboli[sz]|signif|emphasi[sz]|underscor|"
    r"highlight|reinforc|demonstrat|showcas|creat|contribut|enhanc|reflect|represent|lend|add|giv|"
    r"mak|captur|invit|reveal|exud|express|embod|radiat|impart|draw|signal|foster|denot|stress|"
    r"accentuat|instill|inspir|prov|provok|remind|illustrat|show|underlin|channel|channell|tell|"
    r"bring|speak|honou?r|celebrat|testif|confirm|display)(?:s|es|ing|e|y|ies|ifying|ying|ings|"
    r"ding)"
)
_ABSTRACT = (
    r"(?:sense|feeling|feel|atmosphere|mood|tone|ambian?ce|impression|emphasis|drama|vibe|notion|"
    r"idea|theme|emotions?|tension|intimacy|nostalgia|tranquil\w*|seren\w*|calm\w*|warmth|joy|"
    r"mystery|depth|urgency|beauty(?!\s+(?:vlog|blog|salon|product|pageant|queen|parlo|mask|spa))|"
    r"importance|relationship|connection|bond|passage|story|narrative|contrast between|viewer|"
    r"energy|spirit|essence|charm|peace\w*|loneliness|solitude|freedom|hope|determination|"
    r"dedication|confidence|happiness|sadness|excitement|anticipation|wonder|power|resilience|"
    r"significance|character|professionalism|harmony|friendship|celebration of|melancholy|longing|"
    r"isolation|playfulness|elegance|grandeur|strength|unity|culture|courage|love|compassion|"
    r"efficiency|skills?|talent|passion|teamwork|discipline|experience|patience|bonds|tradition|"
    r"authority|innocence|curiosity|kindness|pride|respect|trust|faith|wisdom|success|effort|"
    r"childhood|camaraderie|tenderness|devotion|affection|expertise|craftsmanship|mastery|"
    r"precision|quality|identity|heritage|history|innovation|progress|values?|authenticity|"
    r"vulnerability|rhythm of|chaos|simplicity|magic|romance|optimism|pressure|stakes?)"
)
EXPLANATIONS = Gated(
    r"\b(?:here(?:'s| is| are)|below is|this is|the following is)\s+(?:the|a|an|your|my|"
    r"one)?\s*(?:\w+,?\s+){0,3}?(?:caption|version|description|rewrite|summary|prompt|sentence|"
    r"text|answer|response|output|rephrasing|result)\b",
    r"^\W*(?:sure|certainly|of course|okay|ok|absolutely|great|no problem|got it|understood|"
    r"alright|yes)\b\s*[,!.:]",
    r"\b(?:rewritten|revised|new|updated|final|improved|simplified|edited|refined|clean(?:ed)?|"
    r"short(?:ened)?)\s+(?:video\s+)?(?:caption|version|description|text|prompt|output)\b\s*[:\-]?",
    r"^\W*(?:output|answer|result|response|rewrite|summary|revision|explanation|reasoning|"
    r"analysis|thought|text|rewritten|step \d+)\s*:",
    r"\b(?:note|nb|explanation|reasoning|analysis|rationale|justification|remark|disclaimer|tip|"
    r"warning|comment|summary|conclusion|interpretation|observation)\s*:",
    r"\(\s*(?:note|rule|i\.e\.|e\.g\.|this|word count|\d+ words|removed|omitted|rewritten|"
    r"revised)\b[^)]*\)?",
    r"\b(?:please note|note that|it is worth noting|worth noting|notably,|importantly,|"
    r"keep in mind|bear in mind|it should be noted|as mentioned|as noted|as described|as stated|"
    r"as requested|as instructed|as per|per your|in accordance with|following the (?:rules|"
    r"instructions|guidelines)|let me know|feel free|hope this|i hope)\b|\bas per\b|\bper your\b",
    r"\brules?\s+(?:#|no\.?\s*)?\d\b|\b(?:the|all|these|six|your|given)\s+(?:six\s+)?(?:rules|"
    r"guidelines|instructions|requirements)\b(?!\s+(?:of the (?:game|road|pool)|on the|posted|"
    r"to the|for the|printed|from|manual|sheet|booklet))",
    r"\b(?:the|this|that|your|given|provided|source)\s+(?:original|initial|input|source|above|"
    r"given|provided|previous|old)\s+(?:video\s+)?(?:caption|description|text|prompt|sentence|"
    r"wording|version|input)\b",
    r"\b(?:the|this|above|following)\s+(?:caption|prompt|description|rewrite|wording)\s+(?:has|"
    r"have|is|was|does|did|keeps?|focus|mention|describ|now|avoids?|removes?|preserv|only|above|"
    r"states?|says?|provided|follows?|starts?|contains?|omits?)\w*",
    r"\b(?:i|we)(?:'ve|\s+have|\s+had)?\s+(?:removed|kept|omitted|rewrote|rewritten|dropped|"
    r"preserved|changed|shortened|focused|avoided|followed|ensured|left out|simplified|rephrased|"
    r"excluded)\b",
    r"\b(?:removed|omitted|excluded|dropped|avoiding|left out|without mentioning|rephrased|"
    r"deleted)\s+(?:all\s+|any\s+|the\s+)*(?:camera|cinemat|lighting|mood|reference|detail|"
    r"mention|term|word|phrase|sentence|irrelevant|meta|unnecessary|extra)\w*",
    r"\b(?:omitted|excluded|left out|condensed|rephrased|paraphrased|removed|shortened|kept|"
    r"dropped|simplified)\s+for\s+(?:brevity|clarity|simplicity|conciseness|length)\b|\b(?:is|are|"
    r"was|were)\s+(?:omitted|left out|condensed|rephrased|paraphrased)\b",
    r"\b(?:reflect|highlight|represent|illustrat)(?:s|es|ing)\b",
    r"\ba\s+(?:\w+\s+)?(?:sign|mark|hallmark|token|symbol|display|demonstration|show)\s+of\s+"
    r"(?:years|"
    rf"(?:\w+\s+){{0,3}}?{_ABSTRACT})\b",
    r"\b(?:show|prov|display|express|demonstrat|exhibit|radiat|showcas)(?:s|es|ing)\b",
    r"\bfeels?\s+(?!(?:the|an?|his|her|its|their|for|along|around|with|under)\b)\w+",
    r"\bmood\b(?!\s+(?:light|ring|board))|\bambian?ce\b|\bvibes?\b|\ban?\s+(?:[\w-]+,?\s+"
    r"(?:and\s+)?){1,3}?atmosphere\b",
    r"\b(?:is|are)\s+(?:palpable|undeniable|contagious|infectious|evident|apparent|unmistakable|"
    r"electric)\b|\b(?:tension|excitement|anticipation|joy|emotion|energy)\s+(?:fills|hangs|"
    r"builds|rises|lingers)\b",
    r"\bas an ai\b|\blanguage model\b|<think>|</think>|\bstep by step\b|\bword count\b|"
    r"\bin summary\b|\bin conclusion\b|\bto summari[sz]e\b|\bin other words\b|\bthat is to say\b|"
    r"\bin essence\b",
    r"[,;–—-]\s*(?:\w+ly\s+|perhaps\s+|thereby\s+|thus\s+|further\s+|all\s+|possibly\s+"
    r")*(?:suggesting|indicating|implying|hinting|signifying|symboli[sz]ing|conveying|evoking|"
    r"emphasi[sz]ing|underscoring|denoting|reinforcing|demonstrating|exuding|instilling)\b",
    r"[,;]\s*(?:\w+ly\s+)?(?:creating|adding|giving|lending|making|enhancing|contributing|"
    r"reflecting|highlighting|showcasing|representing|capturing|inviting|drawing|fostering|"
    r"reminding|"
    rf"expressing|revealing|providing|bringing|imparting|offering)\b[^.;]{{0,60}}?\b{_ABSTRACT}\b",
    r"\b(?:which|this|that|it|all of which|posture|expression|setting|scene|gesture|presence|pace|"
    r"movement|attire|body language|demeanor|smile|composition|lighting|background|environment|"
    r"surroundings|clothing|contrast|image|video|moment|action|interaction|arrangement|design|"
    r"colou?rs?|outfit|gaze|decor|weather|sky|landscape|behaviou?r|appearance|both)\s+(?:\w+ly\s+|"
    r"may\s+|might\s+|could\s+|seems? to\s+|also\s+|further\s+|all\s+)*(?:suggests?|indicates?|"
    r"impl(?:y|ies)|hints? at|signif(?:y|ies)|symboli[sz]es?|conveys?|evokes?|emphasi[sz]es?|"
    r"underscores?|underlines?|denotes?|reinforces?|exudes?|embod(?:y|ies)|means that|highlights?|"
    r"proves?|illustrates?|demonstrates?|reflects?|(?:shows?|tells?|reveals?)\s+(?:how|that|of)|"
    r"speaks? to|is (?:likely|probably|presumably|meant|intended|designed) )\b",
    r"\b(?:prov|underlin|underscor|highlight|emphasi[sz]|illustrat|demonstrat|confirm|stress|"
    r"remind)\w*\s+(?:how|why|that|what|us)\b|\b(?:tell|inform|assur|remind)\w*\s+(?:us|you|one|"
    r"the viewer|viewers)\s+(?:that|how|why)\b|\bwhich\s+(?:shows?|tells?|proves?|makes?|gives?|"
    r"adds?|creates?|lends?|brings?)\s+(?!(?:the|a)\s+(?:time|map|picture|photo|score|number))",
    r"\blend(?:s|ing)?\s+(?:\w+\s+){1,4}?(?:an?|itself)\b|\bmak(?:es?|ing)\s+(?:one|you|us|"
    r"viewers)\s+\w+",
    r"[,;–—-]\s*(?:an?|the)\s+(?:[\w-]+\s+){0,2}?(?:reminder|testament|tribute|proof|ode|metaphor|"
    r"expression|example|embodiment|reflection|moment|celebration|symbol|picture)\s+(?:of|that|"
    r"to)\s+(?!(?:the|a|an)\s+(?:sky|sun|tree|building|cloud|lake|water))",
    r"\b(?:based on|according to)\s+the\s+(?:original|given|provided|description|caption|text|"
    r"prompt|video)|\bthe user\b|^\W*(?:option|alternative|version|draft|final|"
    r"attempt)\b\s*\w*\s*:|\b(?:is|are)\s+not\s+(?:mentioned|specified|stated|described)\b|"
    r"(?<!style )\breminiscent of\b|\b(?:hoping|wishing|longing)\s+(?:to|for|that)\b|"
    r"\bin order to\b|\bfuture generations\b|\bwith the (?:precision|grace|skill|ease|confidence|"
    r"care|patience|poise|focus) of\b|\bremind\w*\s+(?:one|us|you)\b|\b(?:who|it|they|he|she|"
    r"which)\s+might\b|\b(?:who|it|they|he|she|which)\s+may\b",
    r"\b(?:suggest(?:s|ing)?|impl(?:y|ies|ying)|hint(?:s|ing)?\s+(?:at|that)|evok(?:e|es|ing)|"
    r"convey(?:s|ing)?|exud(?:e|es|ing)|signif(?:y|ies|ying)|connot(?:es|ing)|emphasi[sz](?:e|es|"
    r"ing)|underscor(?:e|es|ing)|accentuat(?:e|es|ing)|embod(?:y|ies|ying)|epitomi[sz](?:es|ing)|"
    r"foreshadow(?:s|ing)?|exemplif(?:ies|ying))\b|\b(?:truly|obviously|undeniably|surely|"
    r"of course)\b|\b(?:he|she|they|it|that)\s+will\b|\b(?:that|which)\s+shows?\s+(?:he|she|they|"
    r"it|how|that)\b",
    r"[,;]\s*(?:\w+ly\s+)?(?:showing|displaying|exhibiting|expressing|proving|testing|celebrating|"
    r"embodying|honou?ring|symboli[sz]ing|showcasing|demonstrating)\s+(?:\w+\s+"
    r"){0,3}?(?:\w{3,}(?:ness|ity|hood|dom|cy)|bravery|excellence|friendship|sportsmanship|"
    r"concern|interest|emotion)\b",
    rf"\b{_INFERS}\s+(?:to\s+)?(?:a|an|the|its|their|his|her|this|some|to the|"
    rf"of)?\s*(?:\w+[- ]){{0,3}}?(?:and\s+\w+\s+)?{_ABSTRACT}\b",
    r"\ban?\s+(?:\w+\s+)?air\s+of\s+(?!burn|smoke|hot|cool|cold|fresh|fog)\w+",
    r"\b(?:a|the|with a|with an|an)\s+(?:\w+\s+){0,3}?(?:sense|feeling|atmosphere|mood|ambian?ce|"
    r"aura|vibe)\s+(?:of\s+(?!burn|smoke|hot|cool|cold|fresh|fog)|is|feels|remains|throughout|"
    r"that|prevails|and|conveyed|fills|pervades)\w*",
    r"\b(?:overall|general|whole)[,]?\s+(?:\w+\s+)?(?:mood|atmosphere|scene|tone|impression|"
    r"effect|feel|feeling|vibe|setting|ambian?ce|composition|the|it)\b|^\W*overall\b|[.]\s+"
    r"overall,",
    r"\b(?:atmosphere|mood|ambian?ce|vibe|tone)\s+(?:of the \w+\s+)?(?:is|feels|remains|seems|"
    r"appears|becomes|shifts|suggests|are|of)\b",
    r"\b(?:possibly|probably|perhaps|presumably|apparently|seemingly|supposedly|evidently|"
    r"undoubtedly|arguably|likely|maybe|clearly\s+(?:in|a|enjoy|show|the))\b",
    r"\b(?:seems?|appears?|seemed|appeared)\s+(?:to\s+(?:be|have|suggest|indicate|enjoy|take|show|"
    r"represent|feel|express|reflect|hint|come|belong|know|want|think|consider|contemplat|lost|"
    r"ponder)|that|as if|as though|like|lost in|deep in|happy|sad|content|relaxed|determined|"
    r"focused|engaged|calm|excited|tired|nervous|confident|proud|thoughtful|contemplative|"
    r"absorbed|peaceful|serene)\w*",
    r"\b(?:may|might|could|must)\s+(?:also\s+|well\s+)?(?:be|have|suggest|indicate|represent|"
    r"imply|symboli[sz]e|mean|reflect)\b|\bcan be (?:interpreted|inferred|seen as|assumed|"
    r"understood|described|considered)\b|\bit (?:is|seems|appears) (?:likely|possible|clear|"
    r"evident|obvious|unclear|important|assumed|apparent|probable|safe|implied|worth|that)\b|"
    r"\bas if (?:to|he|she|they|it|in|the|contemplat|trying|wait)\b|\bas though\b|"
    r"\bone can (?:infer|assume|imagine|sense)\b",
    r"\b(?:therefore|thus|hence|consequently|because of this|this means|which means|meaning that|"
    r"as a result|for this reason|due to the fact|given that|it follows|since this|the reason)\b",
    r"\b(?:because|since)\s+(?:the|he|she|it|they|this|of (?:his|her|their|its))\b",
    r"\b(?:the|a|our|for|to)\s+viewers?\b(?!\s+(?:can\s+)?(?:sees?|watch|observe|is\s+shown))|"
    r"\bviewer's\b|\bviewers?\b(?=\s+(?:to|is|are|can|may|might|will|attention|into|feel|could|"
    r"through|gets?|see\b))|\b(?:invit|draw|immers|captivat|remind|guid|transport|allow|encourag|"
    r"giv|lead|tak)\w*\s+(?:the\s+)?(?:viewer|observer|audience\s+(?:to|into|in|of|a)\b)\w*|"
    r"\b(?:invit|immers|captivat|remind|transport|allow)\w*\s+us\b",
    r"\b(?:metaphor|symbolism|allegory|represents? the (?:idea|concept|struggle|passage|cycle|"
    r"beauty|power|human|spirit|bond)|testament to|reminder of|celebration of (?:life|nature|love|"
    r"friendship|culture|tradition)|symbol of|serves? (?:as|to)\s+(?:a\s+)?(?:\w+\s+)?(?:reminder|"
    r"metaphor|symbol|highlight|emphasi|testament|contrast|focal|create|establish)\w*|juxtapos\w+|"
    r"focal point|in contrast to|can't help but|plays? (?:a|an) (?:\w+ )?role|interplay)\b",
    r"^\W*(?:describe|generate|create|write|rewrite|make sure|ensure|remember|do not|don't|avoid|"
    r"include|consider|note(?! (?:by|for|after) note)|use|focus on|please|add|provide|summarize|"
    r"produce|depict|try to|think|explain)\b(?=\s)",
    r"[.!?:]\s+(?:notice|pay attention|be sure|look at|enjoy|check out|learn more|subscribe|"
    r"see how)\b",
    r"\b(?:typically|usually|commonly|traditionally|generally|often|widely|historically|"
    r"originally)\s+(?:used|seen|found|made|worn|eaten|known|associated|served)\b|\b(?:technique|"
    r"method|practice|tradition|custom)\s+(?:that|which)\s+(?:is|was|has|dates)\b|\b(?:known for|"
    r"famous for|associated with|regarded as|essential (?:for|to)|important (?:for|to|because)|"
    r"is considered)\b",
    r"[.!?:]\s+(?:describe|generate|keep|rewrite|make sure|ensure|remember|do not|don't|avoid|"
    r"include|consider|note|please|summarize|try to|keep the|use (?:a|the|only|simple|this)|"
    r"focus on the|imagine|write|let's|explain|start with)\b",
    r"\b(?:you|one)\s+(?:should|can|could|may|might|must|need to|would|will)\b",
    r"\b(?:which|as)\s+is\s+(?:\w+ly\s+)?(?:typical|common|characteristic|standard|usual|"
    r"customary|traditional|normal)\b|\b(?:typical|characteristic)\s+(?:of|for)\b",
    r"\b(?:reason(?:ing)?|explanation|analysis|interpretation)\s+(?:for|of|is|behind)\b",
    r"\bthe purpose of\b|\bin order to (?:convey|create|emphasi|show|highlight)\w*|"
    r"\bmeant to (?:convey|evoke|symbol|represent|create)\w*|\bsymboli[sz](?:es|ing|e)\b|"
    r"\bsignif(?:ies|ying)\b",
)
MARKUP = re.compile(
    r"^\s*(?:[-*•+]\s+\S|\d+[.)]\s+\S|#{1,6}\s|>\s|```|\|)|\*\*|```|__\w|\[/?\w+\](?!\()|^\s*---",
    re.MULTILINE,
)


# ---- families ----


_WORDS = {name: any_of(words, space=r"\s+") for name, words in tables.table("commentary").items()}
_DEED, _INNER, _JUDGED = _WORDS["deed"], _WORDS["inner"], _WORDS["judged"]
_THINKS, _ONES, _WORDING = _WORDS["thinks"], _WORDS["ones"], _WORDS["wording"]
FAMILIES = Gated(
    # reasons
    r"\bbecause\b|\bso\s+that\b|\bin\s+case\b|\blest\b|\bthereby\b|\bowing\s+to\b|\bthanks\s+to\b|"
    r"\bdue\s+to\b|\bfor\s+fear\b|\bhence\b|\baccordingly\b|\bafter\s+all\b|\bwhich\s+is\s+why\b|"
    r"\bno\s+(?:wonder|doubt|matter)\b|\bgiven\s+(?:the|how|his|her|their)\b|\bseeing\s+(?:as|"
    r"that)\b",
    rf"[,;:–—-]\s*(?:and\s+)?so\s+(?:{_ONES}|the|a|an|this|there|much|as)\b",
    rf"\b(?:as|since)\s+{_ONES}\s+(?:\w+ly\s+)?(?:help|need|want|tr(?:y|ies)|know|like|love|has|"
    rf"have|"
    r"must|is\s+(?:important|likely|time)|seem|wish|hope|fear|expect|prepar|aim)\w*",
    rf"[,;]\s+for\s+{_ONES}\s+\w+",
    # aims
    r"\bto\s+(?:make\s+sure|ensure|guarantee|prove|symboli[sz]e|represent|demonstrate|convey|"
    r"express|emphasi[sz]e|signify|remind|impress|prevent|avoid|please|satisfy|motivate|encourage|"
    r"inspire|achieve|maintain|improve|maximi[sz]e|minimi[sz]e|relieve|commemorate|honou?r|"
    r"preserve|enhance|accommodate|suggest|imply|evoke|underline|underscore|help\s+\w+|let\s+"
    r"\w+\s+know)\b",
    r"\bin\s+(?:an?\s+)?(?:\w+\s+)?(?:effort|attempt|bid|hopes?)\s+(?:to|of|that)\b|\bwith\s+"
    r"the\s+(?:aim|goal|intention|intent|hope|purpose|idea)\s+(?:of|to|that)\b|\bfor\s+the\s+"
    r"(?:sake|purpose|benefit)\s+of\b|\bmeant\s+(?:to|for|as)\b|\b(?:intended|designed|destined|"
    r"supposed)\s+(?:to|for)\b|\b(?:aim|aims|aiming|hopes|hoping|striving|strives|longing|"
    r"yearning)\s+(?:to|for)\b",
    r"\b(?:ensur|guarantee|allow|enabl|prevent|caus|encourag|motivat|inspir|impress|entertain|"
    r"remind|symboli[sz]|embod|help)(?:s|es|ing|ies|ying)\s+(?:\w+\s+){0,3}?(?:to|that|of|from|"
    r"them|him|her|people|everyone|anyone|viewers?|audiences?)\b",
    # minds
    rf"(?<!I )\b{_THINKS}(?:s|es|ing|ed)?\s+(?:to|that|of|about|for|how|what|why|if|whether|every|"
    rf"each|the|"
    r"a|an|his|her|their|its|it|this|him|them|himself|herself|nothing|something|everything)\b",
    r"\b(?:about|ready|eager|determined|keen|happy|glad|anxious|reluctant|likely|unlikely|bound|"
    r"sure|certain|afraid|excited|proud|prepared|desperate|unable|free|content|pleased|"
    r"careful)\s+to\s+\w+",
    r"\b(?:lost|deep)\s+in\s+(?:\w+\s+)?(?:thought|concentration|reflection|memor\w+|prayer|"
    r"work)\b|\bin\s+a\s+(?:hurry|rush|good\s+mood|bad\s+mood)\b|\bhaving\s+(?:a\s+)?(?:\w+\s+"
    r")?(?:fun|good\s+time)\b|\b(?:unaware|aware|oblivious|conscious|mindful|tired|confident|"
    r"certain|proud|fond|afraid)\s+(?:of|that)\b|\b(?:for|just\s+for)\s+(?:fun|pleasure|enjoyment|"
    r"the\s+fun)\b|\bfree\s+(?:from|of)\s+(?:worr|care|stress)\w*",
    rf"\b(?:his|her|their|its|one's|human|pure|sheer|great|true|deep|genuine|utter)\s+"
    rf"(?:[\w-]+\s+)?{_INNER}\b",
    rf"\b(?:full\s+of|filled\s+with|brimming\s+with|bursting\s+with|radiating|driven\s+by|"
    rf"fuelled\s+by|fueled\s+by|overcome\s+(?:with|by)|steeped\s+in|rooted\s+in)\s+(?:\w+\s+"
    rf")?(?:{_INNER}|life|wonder|"
    r"hope|promise|energy|charm|tradition|mystery|warmth|anticipation)\b",
    r"(?:[,;–—-]|\b(?:is|are|looks?|seems?|feels?|and))\s+(?:\w+\s+){0,2}?(?:lonely|carefree|"
    r"nostalgic|wistful|melanchol\w+|hopeful|hopeless|anonymous|fearless|heroic|blissful\w*|"
    r"homesick|lovesick|heartbroken|grateful|thankful|jealous|ashamed|guilty|optimistic|"
    r"pessimistic|fulfilled)\b",
    # judgements
    rf"[,;:–—-]\s*(?:(?:truly|certainly|surely|quite|almost|simply|perhaps|such|all|and|but|as|"
    rf"in)\s+)*(?:an?|the|one\s+of\s+the|another|no|this\s+is|that\s+is|it\s+is|what)\s+"
    rf"(?:(?!(?:of|in|on|and|with|who|at)\b)[\w'’-]+,?\s+){{0,4}}?{_DEED}(?=\s+(?:that|which|of|to|"
    rf"in|for|from|with|between|where|anyone|any|every|so|he|she|they|"
    r"it|one|known|worth|requiring|needing|few|we|you|as|not|passed|only|many|most|some|is|was)\b|"
    r"[.!;])",
    rf"\b(?:which|this|that|it|all\s+of\s+which|doing\s+so)\s+(?:is|are|was|makes?\s+(?:it|this|"
    rf"him|her|them))\s+(?:(?:\w+ly|very|quite|so|also|not|never|always|often|a|an|the|most|"
    rf"more)\s+)*{_JUDGED}\b",
    r"\b(?:matters?|mattering)\b|\bspeaks?\s+volumes\b|\bsays?\s+(?:a\s+lot|much|something)\s+"
    r"about\b|\bis\s+worth\s+\w+ing\b|\bdeserv\w+\b|\bworthy\s+of\b|\bat\s+(?:its|their|his|"
    r"her)\s+(?:best|finest|worst)\b|\bcouldn't\b|\bcan\s+only\s+be\b|\bis\s+no\s+(?:easy|small|"
    r"mean|ordinary)\b",
    r"\b(?:one\s+of\s+the\s+(?:most|best|world)|the\s+(?:most|best|worst|perfect|ideal|"
    r"ultimate)\s+\w+|like\s+(?:a\s+)?(?:true|real|professional|pros?|something)|as\s+(?:only|"
    r"befits|one\s+would|usual|always|ever|expected|any|in\s+(?:many|so\s+many|a\s+(?:dream|"
    r"fairy\s?tale|film|movie|painting))))\b|\bstraight\s+out\s+of\b|\bkind\s+of\s+\w+\s+(?:that|"
    r"one|you|who)\b",
    r"\b(?:heart-?warming|heartfelt|awe-inspiring|breathtaking|unforgettable|thought-provoking|"
    r"captivating|mesmeri[sz]ing|spellbinding|eye-catching|jaw-dropping|bittersweet|poignant|"
    r"picture-perfect|picturesque|idyllic|postcard-perfect|wholesome|quintessential|otherworldly|"
    r"surreal|dreamlike|uplifting|soul-stirring|endearing|irresistible|remarkabl[ey]|impressively|"
    r"admirabl[ey]|commendabl[ey])\b",
    # the speaker's stance
    r"\bclearly\b(?!\s+(?:visible|lit|marked|seen|audible|written|heard|label|reads?|shows?|"
    r"stat))|\b(?:definitely|certainly|actually|really|understandably|interestingly|surprisingly|"
    r"fortunately|unfortunately|luckily|thankfully|ironically|curiously|strangely|importantly|"
    r"ultimately|essentially|basically|admittedly|allegedly|purportedly|inevitably|hopefully|"
    r"conceivably)\b|\bneedless\s+to\s+say\b|\bin\s+fact\b|\bindeed\b|\bwithout\s+(?:a\s+"
    r")?doubt\b|\bby\s+all\s+accounts\b|\b(?:by|from)\s+the\s+looks?\s+of\b|\bso\s+to\s+speak\b|"
    r"\bas\s+it\s+were\b|\bit\s+turns\s+out\b|\bone\s+might\b|\bas\s+though\b|[,;]\s*(?:sadly|"
    r"naturally|honestly|frankly)\b",
    r"\b(?:will|would|could|should|might|shall)\s+(?:not\s+|never\s+|soon\s+|probably\s+|"
    r"surely\s+|also\s+|all\s+|one\s+day\s+|later\s+|then\s+|have\s+|be\s+)*[a-z]+\b",
    r"\b(?:must|may|can't|cannot)\s+(?:not\s+)?(?:be|have|feel|know|think|want|need|like|mean|"
    r"come|belong|remember|wait\s+to|seem|indicate|explain|help\s+but)\b|\b(?:ought|needs?|has|"
    r"have|had|going)\s+to\s+(?!the\b|a\b|an\b|her\b|his\b)\w+",
    r"(?<=\s)I(?:['’]d|['’]m|['’]ve|['’]ll)?\s+(?:\w+\s+){0,2}?(?:assum|think|say|guess|suppos|"
    r"believ|imagin|feel|find|reckon|suspect|wonder|hope|bet|love|like|left|remov|kept|doubt|"
    r"expect|understand|know|sure|recommend|suggest|note|add)\w*|\b(?:my|our|in\s+my|to\s+my)\s+"
    r"(?:impression|opinion|view|guess|feeling|sense|favou?rite|thoughts?|understanding|mind|"
    r"interpretation|taste|imagination)\b",
    # teaching: habits of the world, numbers of years
    r"\b(?:usually|always|typically|traditionally|generally|commonly|frequently|normally|nowadays|"
    r"these\s+days|in\s+general|since\s+ancient|throughout\s+history|over\s+the\s+(?:years|"
    r"centuries)|for\s+(?:many\s+|\w+\s+)?(?:generations|centuries|decades|millennia)|around\s+"
    r"the\s+world|all\s+over\s+the\s+world|in\s+many\s+(?:cultures|countries|places)|every\s+"
    r"(?:day|year|weekend|summer|winter|time)|in\s+the\s+(?:past|future|old\s+days)|(?:years|"
    r"decades|generations|centuries)\s+of\s+\w+|a\s+lifetime)\b",
    r"\b(?:requir|take|need)(?:s|ing|es)?\s+(?:\w+\s+){0,2}?(?:years|patience|skill|practice|"
    r"strength|courage|time|focus|concentration|precision|care|effort|discipline|balance|teamwork|"
    r"training|coordination|stamina|dedication)\b",
    # the reader and the task
    r"\b(?:you|your|yours|yourself)\b|\b(?:viewers?|the\s+reader|readers|onlookers?|anyone|"
    r"whoever)\s+(?:can|may|might|will|would|who|to|into|is|are|feels?|gets?|knows?)\b|"
    r"\btake[ns]?\s+(?:us|me|one|you)\s+(?:back|on|to|into)\b|\bmak(?:es|ing)\s+(?:us|one|you|it|"
    r"them|him|her)\s+(?:\w+ly\s+)?(?:feel|look|seem|think|want|wonder|easy|hard|clear|look|more|"
    r"one|an?|the)\b",
    r"\([^()]*\b(?:rule|note|word|caption|camera|original|omitted|removed|details?|description|"
    r"mentioned|specified|video|interpret\w*|probably|perhaps|likely)\b[^()]*\)?|"
    r"\((?=[A-Z][^()]*[.!]\))",
    rf"\b{_WORDING}\s+(?:\w+\s+){{0,2}}?(?:(?:is|are|was|were|has\s+been|have\s+been|had)\s+"
    rf")?(?:not\s+)?(?:removed|"
    r"needed|included|mentioned|omitted|given|provided|left\s+out|present|required|dropped|"
    r"changed|kept|specified|allowed|excluded|preserved|follow\w*|above|below|meets?|avoids?|"
    r"contains?)\b",
    r"\b(?:in|within|under)\s+(?:\w+\s+){0,2}?\d+\s+words\b|\b(?:caption|rewrit\w+|paraphras\w+|"
    r"rephras\w+|reword\w*|summari[sz]\w+|wording|captioned)\b|\bto\s+(?:sum\s+up|be\s+(?:precise|"
    r"exact|fair|honest|clear)|put\s+it)\b|\bin\s+(?:short|brief|a\s+nutshell|a\s+word|one\s+"
    r"sentence)\b|\bnot\s+to\s+mention\b|\bfor\s+(?:example|instance)\b|\bthis\s+(?:way|means|"
    r"suggests|shows|makes|helps)\b",
    r"\bwhat\s+an?\s+\w+|\bhow\s+(?:lovely|wonderful|cute|beautiful|amazing|nice)\b",
)
