"""The six rules: what trips each, and what must not."""

import pytest
from colibri.core.captions.rules import EXTRA_CHECKS, RULES, check, violates
from hypothesis import given, settings
from hypothesis import strategies as st

BEACH = (
    "The video opens with a wide shot of a young woman in a red dress walking along a sandy beach "
    "at sunset. Two brown dogs run behind her without leashes, and a wooden boat lies near the "
    "water. The camera pans right. The atmosphere is calm."
)


@pytest.mark.parametrize(
    "caption",
    [
        "A young woman in a red dress walks along a sandy beach.",
        "A person strolls on the beach with two dogs.",
        "A lady wearing a red dress strolls along a beach, followed by 2 dogs.",
        "Two brown dogs run behind a woman, and a wooden boat lies near the water.",
        "A woman walks along a beach at dusk while a pair of dogs run behind her.",
    ],
)
def test_a_faithful_rewrite_breaks_no_rule(caption: str) -> None:
    assert violates(check(BEACH, caption)) == []


@pytest.mark.parametrize(
    ("caption", "rules"),
    [
        ("The video shows a young woman walking along a beach.", ["R1"]),
        ("In this clip, a young woman walks along a beach.", ["R1"]),
        ("A young woman walks along a beach in slow motion.", ["R3"]),
        ("A close-up of a young woman on a beach.", ["R3"]),
        ("A young woman walks along a beach with a shallow depth of field.", ["R3"]),
        ("A young woman in a blue dress walks along a beach.", ["R4"]),
        ("A young woman rides a horse along a beach.", ["R4"]),
        ("A young woman walks along a beach with three dogs.", ["R4"]),
        ("A young woman walks along a beach with two poodles.", ["R4"]),
        ("A young woman named Maria walks along a beach.", ["R4"]),
        ("A young woman walks along a beach, creating a sense of freedom.", ["R5"]),
        ("A young woman walks along a beach. Note: the dogs were left out.", ["R5"]),
        ("My friend, a young woman, walks along a beach.", ["R6"]),
        ("A young woman walks along our beach.", ["R6"]),
        ("We see a young woman on a beach.", ["R1", "R6"]),
    ],
)
def test_each_rule_is_tripped_by_its_violation(caption: str, rules: list[str]) -> None:
    found = violates(check(BEACH, caption))
    assert set(rules) <= set(found)
    assert set(found) - set(rules) <= {"R4"}


def test_a_replaced_subject_breaks_the_second_and_the_fourth_rule() -> None:
    assert violates(check("A man repairs a bicycle.", "A horse eats grass.")) == ["R2", "R4"]


@pytest.mark.parametrize(
    "caption",
    [
        "A man cooks eggs in a frying pan over a gas stove.",
        "A shot glass stands on the bar next to a lemon.",
        "A picture frame hangs on the wall of a narrow hallway.",
        "A soldier in a uniform from World War I stands beside a horse.",
        "A student focuses on her homework at a wooden desk.",
        'A girl shouts "I won!" and raises a silver cup.',
        "Pots and pans over the fire gleam in the kitchen.",
        "A photographer holds the camera to his eye.",
        "A worker cuts a pipe with an angle grinder.",
        "A film crew sets up lamps in a studio.",
        "A girl tilts her head and laughs.",
        "Cars zoom past a crowded bus stop.",
        "A nurse gives a flu shot to an old man.",
    ],
)
def test_words_that_only_look_like_violations_pass(caption: str) -> None:
    assert violates(check(caption, caption)) == []


def test_spans_are_code_points_of_the_caption() -> None:
    caption = "Ein Hund \U0001f436, a dog runs in slow motion."
    for finding in check("A dog runs.", caption):
        if finding.start is not None:
            assert caption[finding.start : finding.end] == finding.text


def test_what_the_original_denies_may_not_be_affirmed() -> None:
    original = "A man without a hat sits on a bench."
    assert violates(check(original, "A man with a hat sits on a bench.")) == ["R4"]
    assert violates(check(original, "A man without a hat sits on a bench.")) == []


@pytest.mark.parametrize(
    ("check_id", "caption"),
    [
        ("X-length", "Dog."),
        ("X-length", "word " * 200),
        ("X-cutoff", "A dog runs along the beach and"),
        ("X-repetition", "A dog runs on the beach. A dog runs on the grass."),
        ("X-language", "Una mujer joven camina por la playa al atardecer."),
        ("X-quoted", '"A dog runs along the beach."'),
    ],
)
def test_extra_checks_are_noted_and_violate_nothing(check_id: str, caption: str) -> None:
    assert EXTRA_CHECKS[check_id](original=caption, caption=caption)
    assert check_id not in violates(check(caption, caption))


@settings(deadline=None)  # the first example loads the word table
@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_at_all_can_be_checked(original: str, caption: str) -> None:
    for finding in check(original, caption):
        if finding.start is not None and finding.end is not None:
            assert 0 <= finding.start <= finding.end <= len(caption)
            assert caption[finding.start : finding.end] == finding.text


def test_the_table_names_six_rules() -> None:
    assert list(RULES) == ["R1", "R2", "R3", "R4", "R5", "R6"]


SCREEN = (
    "In the video, a man glues a picture frame in a framing shop. An old photograph lies on a mat, "
    "and a small screen on the wall shows a map. Text at the bottom of the screen reads LIVE."
)


@pytest.mark.parametrize(
    ("caption", "rules"),
    [
        ("A man in a framing shop glues a picture frame.", []),
        ("A man glues a frame near a screen with text at the bottom of the screen.", []),
        ("A small screen shows a map as a man glues a picture frame.", []),
        ("A man glues a frame and shows us how the photograph lies on a mat.", ["R6"]),
        ("A man glues a picture frame in one continuous take.", ["R3"]),
        ("A man glues a frame, with cuts between his hands and his face.", ["R3"]),
        ("A craft tutorial video of a man who glues a picture frame.", ["R1"]),
        ("The following shows a man who glues a picture frame.", ["R1"]),
        ("We are in a framing shop, where a man glues a picture frame.", ["R1", "R6"]),
        ("A man glues a frame in a shop, which is typical of the trade.", ["R5"]),
    ],
)
def test_things_in_the_scene_are_told_from_words_about_the_video(
    caption: str, rules: list[str]
) -> None:
    found = violates(check(SCREEN, caption))
    assert [rule for rule in found if rule != "R4"] == rules
