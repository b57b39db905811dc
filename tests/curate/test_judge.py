"""The embedded judge falls with planted damage."""

from colibri.core.captions.rules import check
from colibri.curate.judge import band, judge

ORIGINAL = (
    "The video shows a young woman in a red dress walking along a sandy beach at sunset. Two brown "
    "dogs run behind her, and a wooden boat lies near the water. The camera pans right."
)
GOOD = (
    "A young woman in a red dress walks along a sandy beach at sunset. Two brown dogs run behind "
    "her, and a wooden boat lies near the water."
)


def _score(caption: str) -> float:
    return judge(ORIGINAL, caption, check(ORIGINAL, caption)).score


def test_a_good_caption_scores_near_one() -> None:
    assert _score(GOOD) > 0.95


def test_every_planted_fault_costs_something() -> None:
    damaged = {
        "cut off": GOOD[:-40].rstrip(" .,"),
        "new things": GOOD.replace("dogs", "lions").replace("boat", "castle"),
        "subject lost": "A wooden boat lies near the water.",
        "repeats itself": f"{GOOD} {GOOD}",
        "too short": "A woman.",
        "no English": "Una mujer camina por la playa con dos perros marrones.",
        "doubled words": GOOD.replace("walks", "walks walks"),
    }
    for fault, caption in damaged.items():
        assert _score(caption) < _score(GOOD), fault


def test_new_things_lower_faithfulness_and_nothing_else_raises_it() -> None:
    clean = judge(ORIGINAL, GOOD, ())
    new = judge(ORIGINAL, GOOD.replace("dogs", "lions"), ())
    assert new.faithfulness < clean.faithfulness == 1.0


def test_the_band_allows_short_captions_of_short_originals_only() -> None:
    assert band(4, 4) == 1.0
    assert band(4, 130) == 0.0
    assert band(40, 130) == 1.0
    assert band(180, 130) == 0.0
