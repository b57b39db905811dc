"""R2: the caption keeps the original's main subject."""

from collections.abc import Sequence
from functools import lru_cache

from colibri.core.captions import lexicon
from colibri.core.captions.entailment import grounding
from colibri.core.captions.language import PREPOSITIONS, Token, parts_of_speech
from colibri.core.captions.mentions import HE_SHE, is_human, mentions
from colibri.core.captions.people import ANYONE, COLLECTIVES, is_alive, is_person, may_be_same
from colibri.core.captions.phrases import first_head, joined_heads, living_heads
from colibri.core.captions.text import Text, analyse
from colibri.core.captions.vocabulary import PLAIN, RECORDING
from colibri.core.clip import Finding


def r2(*, original: str, caption: str) -> tuple[Finding, ...]:
    """The caption keeps the original's main subject."""
    return r2_of(analyse(original), analyse(caption))


def r2_of(original: Text, caption: Text) -> tuple[Finding, ...]:
    """R2 on texts that are worked out already."""
    subjects = main_subjects(original)
    if not subjects or not caption.tokens:
        return ()
    lost = _left_out(original, caption)
    if lost is None:
        if any(mentions(caption, subject, original) for subject in subjects):
            return ()
        lost = subjects[0]
    message = f"the main subject {lost!r} is lost; make the caption about it"
    return (Finding(rule="R2", start=None, end=None, text=lost, message=message),)


def _left_out(original: Text, caption: Text) -> str | None:
    """Whom the original follows at its setting, if the caption is about somebody or something
    else there: the vendors at a market through which a woman rows, not the market itself."""
    setting, *others = main_subjects(original)
    actor = next((lemma for lemma in others if is_human(lemma, original)), None)
    if actor is None or not _is_setting(setting) or setting in COLLECTIVES:
        return None
    told = first_head(caption.tokens)
    if told is None or told == setting or told not in original.lemmas:
        return None
    follows = sum(
        any(token.lower in HE_SHE or _names(token, actor) for token in sentence)
        for sentence in original.sentences
    )
    if follows < _FOLLOWED or any(mentions(caption, lemma, original) for lemma in others):
        return None
    return actor


def _names(token: Token, actor: str) -> bool:
    """Whether a word is the actor's name or another for people of the kind: the `rider` of
    a cyclist."""
    if token.lemma == actor:
        return True
    return is_person(token.lemma) and actor in lexicon.peers(token.lemma)


_FOLLOWED = 2
"""Sentences about somebody whom a text follows."""


def may_be_subject(token: Token, lemma: str, original: Text, caption: Text) -> bool:
    """Whether a new word for a person may stand for the main subject, under another name."""
    if token.pos != "NOUN" or not lexicon.is_first(lemma, "person"):
        return False
    subjects = [s for s in main_subjects(original) if is_human(s, original)]
    if lemma in ANYONE and (
        len(original.people) > bool(subjects)
        or original.numbers
        or not _FURTHER.isdisjoint(original.lemmas)
    ):
        return True
    if not subjects or grounding(original, caption) < 0.5:
        return False
    if any(mentions(caption, subject, original, named=True) for subject in subjects):
        return False
    return any(may_be_same(subject, lemma) for subject in subjects)


_FURTHER = frozenset("second third another other".split())


# ---- what a text is about ----


@lru_cache(maxsize=64)
def main_subjects(text: Text) -> list[str]:
    """Lemmas that can stand for what the text is about, best first.

    The head of its first noun phrase after words about the video. Where that is a place or an
    event, whoever or whatever acts there counts too: the first living thing of the same sentence,
    else the heads of the next sentences up to the first that acts. A place that is only said to be
    where the video is set does not count once an actor is found.
    """
    heads: list[str] = []
    is_place = False
    for number, sentence in enumerate(map(_without_participle, text.sentences)):
        scene = _setting_phrase(sentence)
        head = first_head(sentence[scene:])
        if head is None:
            continue
        if not heads:
            is_place = scene > 0
            heads = [head, *joined_heads(sentence, head)]
            if not (_is_setting(head) or head in COLLECTIVES):
                break
            living = [lemma for lemma in _actors(sentence, head) if lemma not in heads]
            if living:
                heads += [living[0], *joined_heads(sentence, living[0])]
                break
        elif number > 3:
            break
        elif heads[0] in COLLECTIVES:
            heads += [lemma for lemma in living_heads(sentence) if is_person(lemma)]
            break
        elif head not in PLAIN["backdrop"]:
            heads.append(head)
            if not _is_setting(head) or is_human(head, text):
                break
    return list(dict.fromkeys(heads[1:] if is_place and len(heads) > 1 else heads))


def _actors(sentence: Sequence[Token], head: str) -> list[str]:
    """Living things in a sentence about a setting; for a team or a pair, up to its verb."""
    verbs = [i for i, token in enumerate(sentence) if token.pos in ("VERB", "AUX")]
    end = verbs[0] if verbs and head in COLLECTIVES else None
    return living_heads(sentence[:end])


def _without_participle(sentence: Sequence[Token]) -> Sequence[Token]:
    """What follows `Wearing a white suit,` at the beginning of a sentence."""
    opens = sentence[0].lower if sentence else ""
    if not opens.endswith(("ing", "ed")) or "VERB" not in parts_of_speech(opens):
        return sentence
    comma = next((i for i, token in enumerate(sentence) if token.text == ","), None)
    follows = sentence[comma + 1 :] if comma is not None and sentence[1].pos != "NOUN" else []
    return follows or sentence


def _setting_phrase(sentence: Sequence[Token]) -> int:
    """How many tokens `The scene takes place` and the like take: a place follows, not a subject."""
    for index, token in enumerate(sentence[:10]):
        following = sentence[index + 1].lower if index + 1 < len(sentence) else ""
        if (token.lower in ("takes", "take") and following == "place") or (
            token.lower in ("set", "unfolds", "occurs") and following in PREPOSITIONS
        ):
            said = first_head(sentence[:index])
            return index + 2 if said is None or said in RECORDING else 0
    return 0


@lru_cache(maxsize=20_000)
def _is_setting(lemma: str) -> bool:
    """Whether a text that begins with it may be about someone in or at it."""
    if is_alive(lemma):
        return False
    if lexicon.kind_of(lemma, "contest") or lexicon.kind_of(lemma, "performance"):
        return True
    forms = (lemma, lemma.removesuffix("s"))  # fireworks
    return not any(lexicon.is_first(form, kind) for form in forms for kind in _ACTORS)


_ACTORS = (
    "vehicle food beverage container organism machine mechanism device toy sign firework light"
).split()
