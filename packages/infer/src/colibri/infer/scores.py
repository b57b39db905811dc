"""Scores of videos: read from the JSON beside a video, or measured where a scorer applies.

The one scorer here is the small world's, which needs no learned weights: it judges videos of the
tiny models whose prompt is of that world. Scores of other tools are read from `scores` as well.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colibri.core.config import to_table
from colibri.core.errors import RowError, UserError
from colibri.core.shards import write_json_whole
from colibri.core.video import read_frames
from colibri.infer.outputs import Outputs, writing
from colibri.infer.recipe import Made, Recipe, to_json
from colibri.testbed.world import COLOURS, SHAPES, BackgroundName, Motion, Scene, Shape, ShapeName

KEY = "scores"
"""Name of the table of scores in a video's JSON."""
SCORER = "colibri.testbed.score"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Numbers about one video."""

    by: str
    main: dict[str, float]
    """Those shown at once, such as semantic and quality."""
    parts: dict[str, dict[str, float]]
    """Those that a main one is made of."""


def read_scores(video: Path, recipe: Recipe) -> Scores | None:
    """What the JSON beside a video says, where it belongs to this very video."""
    try:
        table = json.loads(Outputs(video=video).recipe.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(table, dict) or table.get("fingerprint") != recipe.fingerprint:
        return None
    found = table.get(KEY)
    if not isinstance(found, dict):
        return None
    parts = {str(name): _numbers(part) for name, part in found.items() if isinstance(part, dict)}
    scores = Scores(
        by=str(found.get("by", "")),
        main=_numbers(found),
        parts={name: part for name, part in parts.items() if part},
    )
    return scores if scores.main or scores.parts else None


def measure_scores(video: Path, recipe: Recipe, made: Made) -> Scores | None:
    """Score a video and write that into the JSON beside it; None where no scorer applies.

    UserError where the video cannot be read or the JSON not be written.
    """
    scores = measured(video, recipe)
    if scores is None:
        return None
    beside = Outputs(video=video).recipe
    with writing(beside):
        write_json_whole(
            beside, to_json(recipe, made) | {KEY: {"by": scores.by, **scores.main, **scores.parts}}
        )
    return scores


def measured(video: Path, recipe: Recipe) -> Scores | None:
    """What the scorer finds in a video; None where it does not apply.

    UserError where the video cannot be read.
    """
    scene = scene_of_recipe(recipe)
    if scene is None or recipe.interpolate or recipe.upscale:  # it knows the model's own frames
        return None
    from colibri.testbed.score import score

    try:
        with video.open("rb") as file:
            found = score(np.stack(list(read_frames(file))), scene)
    except (OSError, RowError) as error:
        raise UserError(f"{video} cannot be scored: {error}") from None
    # Three decimals: beyond them only the rounding of another machine speaks.
    return Scores(
        by=SCORER,
        main={
            "semantic": round(found.semantic.mean, 3),
            "quality": round(found.quality.mean, 3),
            "total": round(found.total, 3),
        },
        parts={
            f"{name} parts": {key: round(float(value), 3) for key, value in to_table(half).items()}
            for name, half in (("semantic", found.semantic), ("quality", found.quality))
        },
    )


def scene_of_recipe(recipe: Recipe) -> Scene | None:
    """What a video of the tiny models was asked to show; None for other models and prompts."""
    if not recipe.model.family.startswith("tiny-"):
        return None
    return scene_of(recipe.prompt) or scene_of(recipe.prompt_used)


def scene_of(prompt: str) -> Scene | None:
    """The scene of the small world that a prompt describes; None where it says more or less.

    Things, their colours and motions and the background are as asked; places and sizes, which the
    scorer does not compare, are arbitrary.
    """
    text = " ".join(prompt.lower().split()).rstrip(".")
    found = [
        (background, match)
        for background, pattern in _PLACES.items()
        if (match := pattern.search(text))
    ]
    if len(found) != 1:
        return None
    background, where = found[0]
    # The background is said after the first thing or after the last.
    rest = text[: where.start()] + text[where.end() :]
    things = _THINGS.fullmatch(rest.strip(" ."))
    if things is None:
        return None
    shapes = tuple(_shape(match) for match in _THING.finditer(rest))
    colour = where["colour"] if background == "plain" else "white"
    return Scene(background=background, background_colour=colour, shapes=shapes)


def _shape(match: re.Match[str]) -> Shape:
    motion = next(name for name in _MOTIONS if match[name])
    name: ShapeName = next(name for name in SHAPES if name == match["shape"])
    return Shape(
        name=name,
        colour=match["colour"],
        radius=0.2,
        row=0.5,
        column=0.5,
        motion=motion,
        speed=0.0,
    )


def _numbers(table: dict[Any, Any]) -> dict[str, float]:
    return {
        str(name): float(value)
        for name, value in table.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


# ---- the words of the small world ----

_GO = r"(?:moves?|moving|glides?|gliding|drifts?|drifting|slides?|sliding)(?: slowly| steadily)?"
_MOTIONS: dict[Motion, str] = {
    "left": rf"{_GO}(?: to the)? left",
    "right": rf"{_GO}(?: to the)? right",
    "up": rf"{_GO} up(?:wards?)?|(?:rises?|rising|floats?|floating)(?: up(?:wards?)?)?"
    r"|climbs? higher|climbing higher",
    "down": rf"{_GO} down(?:wards?)?|(?:falls?|falling|sinks?|sinking)(?: down(?:wards?)?)?"
    r"|descends(?: slowly)?|descending(?: slowly)?",
    "still": r"(?:stays|staying|stands|standing|is|rests|resting) (?:still|in (?:one )?place)"
    r"|does not move|hangs motionless|(?:is )?motionless",
}
_NAMES = "|".join(COLOURS)
_LOOKS = rf"(?:an?|one|the) (?:(?:small|large|big|tiny) )?(?P<colour>{_NAMES})"
_MOVES = "|".join(f"(?P<{name}>{words})" for name, words in _MOTIONS.items())
_THING = re.compile(rf"\b{_LOOKS} (?P<shape>{'|'.join(SHAPES)}) (?:{_MOVES})\b")
_PLAIN_THING = re.sub(r"\?P<\w+>", "?:", _THING.pattern)
_THINGS = re.compile(rf"{_PLAIN_THING}(?:(?: and |, |\. |(?:\. |, )beside it, ){_PLAIN_THING})?")
_OVER = r" (?:over|on|in front of|before|against) "
_PLACES: dict[BackgroundName, re.Pattern[str]] = {
    "plain": re.compile(rf"{_OVER}an? (?:plain )?(?P<colour>{_NAMES}) (?:background|backdrop)\b"),
    "meadow": re.compile(rf"{_OVER}a (?:green )?meadow(?: under a (?:clear )?blue sky)?\b"),
    "sea": re.compile(rf"{_OVER}(?:the|a)(?: calm)? sea(?: at sunset| under an orange sky)?\b"),
    "night": re.compile(rf"{_OVER}a (?:dark )?night sky(?: with small stars)?\b"),
}
