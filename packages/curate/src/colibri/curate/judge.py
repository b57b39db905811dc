"""The small embedded judge: scores a caption by counting, not by reading.

It measures form, support by the original, how much of the original's matter is kept, and length.
It knows nothing of style or truth, and it does not see the video; a language model judges better.
"""

import itertools

from colibri.core.captions.content import analyse, main_subjects, nouns, overlap, r2_of
from colibri.core.captions.language import tokenize
from colibri.core.clip import Finding, Verdict

WEIGHTS = {"fluency": 0.3, "faithfulness": 0.35, "coverage": 0.25, "band": 0.1}
"""Share of each measure in the score."""

GOOD_WORDS = (8, 90)
"""Full marks for length between these."""

FAULTS = {"X-cutoff": 0.4, "X-repetition": 0.4, "X-language": 0.7, "X-quoted": 0.2}
"""What an extra check costs in fluency."""


def judge(original: str, caption: str, findings: tuple[Finding, ...]) -> Verdict:
    """Fluency, faithfulness, coverage and band in [0, 1], and their weighted mean."""
    parts = {
        "fluency": fluency(caption, findings),
        "faithfulness": overlap(original, caption),
        "coverage": coverage(original, caption),
        "band": band(len(caption.split()), len(original.split())),
    }
    score = sum(WEIGHTS[name] * value for name, value in parts.items())
    return Verdict(score=round(score, 6), **{k: round(v, 6) for k, v in parts.items()})


def fluency(caption: str, findings: tuple[Finding, ...]) -> float:
    """1 for a caption of whole sentences; less for each fault of form."""
    text = caption.strip()
    tokens = [token for token in tokenize(text) if token.pos != "PUNCT"]
    if not tokens:
        return 0.0
    lost = sum(FAULTS.get(rule, 0.0) for rule in {finding.rule for finding in findings})
    if not text[0].isupper() and not text[0].isdigit():
        lost += 0.15
    if not any(token.pos in ("VERB", "AUX") for token in tokens):
        lost += 0.2
    doubled = sum(first.lower == second.lower for first, second in itertools.pairwise(tokens))
    lost += min(0.4, 0.2 * doubled)
    return max(0.0, 1 - lost)


def coverage(original: str, caption: str) -> float:
    """Half for the main subject, half for the share of the original's first six things kept."""
    first, second = analyse(original), analyse(caption)
    subject = 0.5 if not main_subjects(first) or not r2_of(first, second) else 0.0
    things = list(dict.fromkeys(nouns(original)))[:6]
    if not things:
        return subject + 0.5
    kept = sum(thing in second.lemmas for thing in things)
    return subject + 0.5 * kept / len(things)


def band(words: int, original_words: int) -> float:
    """1 inside `GOOD_WORDS`, falling to 0 at half the lower and twice the upper bound.

    A short original cannot be made longer: its own length is then the lower bound.
    """
    low, high = min(GOOD_WORDS[0], max(1, original_words)), GOOD_WORDS[1]
    if words < low:
        return max(0.0, 2 * words / low - 1)
    return max(0.0, min(1.0, 2 - words / high))
