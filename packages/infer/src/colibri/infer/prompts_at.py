"""A prompt schedule: what a long video shows from when on. Knows no model.

A text file with a line for each prompt, `0s: ...`, `12.5s: ...`, `1:30: ...`; # begins a remark.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from colibri.core.errors import UserError
from colibri.core.wan.family import Causal

LINE = re.compile(r"(?:(?P<minutes>\d+):(?P<rest>\d\d(?:\.\d+)?)|(?P<seconds>\d+(?:\.\d+)?)s)\s*:")


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptAt:
    """A prompt and when it begins."""

    at_s: float
    """Seconds from the video's beginning."""
    prompt: str
    where: str
    """File and line, for messages."""


def read_prompts_at(path: Path) -> tuple[PromptAt, ...]:
    """The prompts of a schedule file in order, the first at 0 s.

    UserError with the line for one that cannot be read, is empty, or is not later than that before.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no prompt schedule {path}") from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start].count(b"\n")
        raise UserError(f"{path}, line {before + 1}: not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    found: list[PromptAt] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line, where = raw.strip(), f"{path}, line {number}"
        if not line or line.startswith("#"):
            continue
        one = _prompt_at(line, where)
        if found and one.at_s <= found[-1].at_s:
            raise UserError(
                f"{where}: {one.at_s:g} s is not after {found[-1].at_s:g} s", hint="sort the lines"
            )
        found.append(one)
    if not found:
        raise UserError(f"{path} holds no prompt", hint="write lines as 0s: a red circle")
    if found[0].at_s:
        raise UserError(f"{found[0].where}: the first prompt begins at 0s")
    return tuple(found)


def blocks_of(
    prompts: Sequence[PromptAt], *, causal: Causal, codec_time: int, fps: int, blocks: int
) -> tuple[int, ...]:
    """The block with which each prompt begins: that in which its time lies.

    UserError where one begins after the video's end, or in the same block as the next.
    """
    places: list[int] = []
    for one in prompts:
        frame = int(one.at_s * fps + 1e-6)
        latent = 0 if frame == 0 else (frame - 1) // codec_time + 1
        place = 0 if latent < causal.first_block else (latent - causal.first_block) // causal.block
        places.append(place + (latent >= causal.first_block))
        if places[-1] >= blocks:
            raise UserError(
                f"{one.where}: {one.at_s:g} s is after the video's end", hint="use more --seconds"
            )
        if places[-1] in places[:-1]:
            length = causal.block * codec_time / fps
            raise UserError(
                f"{one.where}: {one.at_s:g} s is in the same block as the prompt before it",
                hint=f"the model makes {length:g} s at once",
            )
    return tuple(places)


def _prompt_at(line: str, where: str) -> PromptAt:
    time = LINE.match(line)
    if time is None:
        raise UserError(
            f"{where}: no time before the prompt",
            hint="write 10s: a red circle, or 1:30: ...",
        )
    prompt = line[time.end() :].strip()
    if not prompt:
        raise UserError(f"{where}: the prompt is empty")
    seconds = time["seconds"]
    at_s = float(seconds) if seconds else 60 * int(time["minutes"]) + float(time["rest"])
    return PromptAt(at_s=at_s, prompt=prompt, where=where)
