"""Prompt schedules: what a line may be, and the block with which a prompt begins."""

from pathlib import Path

import pytest
from colibri.core.errors import UserError
from colibri.core.wan.family import Causal
from colibri.infer.prompts_at import PromptAt, blocks_of, read_prompts_at


def _file(path: Path, text: str) -> Path:
    file = path / "prompts.txt"
    file.write_text(text, encoding="utf-8")
    return file


def test_times_are_seconds_or_minutes_and_remarks_are_left_out(tmp_path: Path) -> None:
    text = "﻿# a walk\n0s: a hall: empty\n\n 2.5s : a door \n1:05: the sea\n1:05.5: dusk"
    found = read_prompts_at(_file(tmp_path, text))
    assert [(one.at_s, one.prompt) for one in found] == [
        (0, "a hall: empty"),
        (2.5, "a door"),
        (65, "the sea"),
        (65.5, "dusk"),
    ]
    assert found[1].where.endswith("prompts.txt, line 4")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a red circle", "line 1: no time before the prompt; write 10s: a red circle"),
        ("0s: a\n5: b", "line 2: no time before the prompt"),
        ("0s: a\n-5s: b", "line 2: no time before the prompt"),
        ("0s: a\n5s:  ", "line 2: the prompt is empty"),
        ("1s: a", "line 1: the first prompt begins at 0s"),
        ("0s: a\n5s: b\n5s: c", "line 3: 5 s is not after 5 s; sort the lines"),
        ("0s: a\n1:00: b\n59s: c", "line 3: 59 s is not after 60 s"),
        ("# nothing\n", "holds no prompt; write lines as 0s:"),
    ],
)
def test_a_wrong_line_is_named(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_prompts_at(_file(tmp_path, text))
    assert expected in str(caught.value)


def test_a_file_that_is_none_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no prompt schedule"):
        read_prompts_at(tmp_path / "none.txt")
    with pytest.raises(UserError, match="cannot be read"):
        read_prompts_at(tmp_path)
    (tmp_path / "x.txt").write_bytes(b"0s: a\n\xff\xfe")
    with pytest.raises(UserError, match="line 2: not UTF-8"):
        read_prompts_at(tmp_path / "x.txt")


def _places(times: list[float], causal: Causal, blocks: int = 99) -> tuple[int, ...]:
    prompts = [PromptAt(at_s=at, prompt="a", where="p.txt") for at in times]
    return blocks_of(prompts, causal=causal, codec_time=4, fps=8, blocks=blocks)


def test_a_prompt_begins_with_the_block_in_which_its_time_lies() -> None:
    # Block 0 is frame 0, block 1 frames 1 to 8, block 2 frames 9 to 16.
    one = Causal(first_block=1, block=2)
    assert _places([0, 1.0, 1.125], one) == (0, 1, 2)
    assert _places([0, 0.125, 2.0, 2.125], one) == (0, 1, 2, 3)
    # Block 0 is frames 0 to 8.
    three = Causal(first_block=3, block=3)
    assert _places([0, 1.125, 2.625], three) == (0, 1, 2)
    with pytest.raises(UserError, match="is in the same block as the prompt before it"):
        _places([0, 1.0], three)
    with pytest.raises(UserError, match=r"2.125 s is after the video's end; use more --seconds"):
        _places([0, 2.125], one, blocks=3)
