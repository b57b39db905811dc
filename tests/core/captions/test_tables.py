"""Word lists are read as they are written."""

import pytest
from colibri.core.captions import tables

NAMES = (
    "colours commentary filming materials openings opposite_acts opposites people persons plain "
    "synonyms telling"
).split()


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_has_words_and_no_remark_is_one(name: str) -> None:
    entries = list(tables.entries(name))
    assert entries
    for head, words in entries:
        assert words, head
        assert not any("#" in word or ":" in word for word in (head, *words))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "synonyms"])
def test_no_head_stands_twice(name: str) -> None:
    heads = [head for head, _ in tables.entries(name)]
    assert len(set(heads)) == len(heads)


def test_an_indented_line_goes_on_with_the_one_before() -> None:
    people = tables.lists("people")["people"]
    assert {"commuter", "chocolatier"} <= people


def test_a_head_stands_over_its_words_and_against_its_opposites() -> None:
    assert tables.heads("colours")["navy"] == "blue"
    assert tables.opposites("opposites")["dark"] == {"light", "bright"}
    assert tables.opposites("opposites")["bright"] == {"dark", "dim"}
