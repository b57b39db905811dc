"""The published tables 1 to 3 in the small world: text, first frame, and seconds.

`t2v` scores teacher and student on held-out prompts as people and captioners write them, as they
are and rewritten under the caption rules by `infer`'s rule engine. `i2v` gives them a first frame
and measures whether subject and background stay as they are in it. `runtime` times a whole video:
the teacher as its folder says, the student, and the student with a light decoder, by turns.

    python benchmarks/published_tables.py t2v --seeds 0,1,2
    python benchmarks/published_tables.py i2v --student FOLDER --seeds 0,1,2
    python benchmarks/published_tables.py runtime --student FOLDER --decoder FOLDER

Rows whose model is not there are left out, and named in the file of figures.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from colibri.core.errors import RowError, UserError
from colibri.core.hashing import hash_json
from colibri.testbed import captions
from colibri.testbed.embedded import PREFIX, STUDENT, TEACHER
from colibri.testbed.score import Pixels, Score, read, score
from colibri.testbed.small import small_clip
from colibri.testbed.world import Scene
from rows import Found, command, kept, make_table, names_of, row_parser
from sampling import Way, folder_of, own_way, sampled, weights_hash

PROMPT = "a red circle moves left over a blue background"
STYLES: dict[str, Callable[[Scene, np.random.Generator], str]] = {
    "terse": captions.terse,
    "long": captions.long,
    "camera-heavy": captions.camera_heavy,
    "first-person": captions.first_person,
}
"""Of prompts; each scene is told in one of them, by turns."""
ONE_SHAPE = ("camera-heavy", "first-person")
"""Styles that tell of the first shape alone."""
MODELS = {"teacher": "teacher, own steps and guidance", "student": "student, few steps"}


def main() -> None:
    """The table that the first word names."""
    tables = {"t2v": _t2v, "i2v": _i2v, "runtime": _runtime}
    if len(sys.argv) < 2 or sys.argv[1] not in tables:
        raise SystemExit(f"usage: {sys.argv[0]} {{{','.join(tables)}}} ...; --help tells more")
    name = sys.argv.pop(1)
    tables[name](name)


def _parser(name: str, rows: Sequence[str]) -> argparse.ArgumentParser:
    parser = row_parser(__doc__, rows, work=f"out/published-tables/{name}", out=f"{name}.json")
    parser.add_argument("--model", default=PREFIX + TEACHER, help="the teacher (%(default)s)")
    parser.add_argument("--student", default=PREFIX + STUDENT, help="folder (%(default)s)")
    parser.add_argument("--steps", type=int, help="of the teacher; without it as its folder says")
    return parser


@dataclass(frozen=True, kw_only=True)
class Places:
    """Folders of the parts that are there, and why others are not."""

    folders: dict[str, Path]
    missing: dict[str, str]


def _places(**names: str | None) -> Places:
    """UserError for a folder that was named and is not there; an embedded one may be missing."""
    folders, missing = {}, {}
    for part, name in names.items():
        if name is None:
            missing[part] = f"no --{part} was given"
            continue
        try:
            folders[part] = folder_of(name)
        except UserError as error:
            if not name.startswith(PREFIX):
                raise
            missing[part] = error.message
    return Places(folders=folders, missing=missing)


def _table(
    arguments: argparse.Namespace,
    parts: Mapping[str, tuple[str, ...]],
    places: Callable[[], Places],
    make: Callable[[str, int, Places], Found],
    **more: Any,
) -> None:
    """`make_table` of the rows whose `parts` are there."""
    there = Places(folders={}, missing={}) if arguments.plan else places()
    names = names_of(arguments, parts)
    lacking = {
        name: there.missing[part] for name in names for part in parts[name] if part in there.missing
    }
    for name, why in lacking.items():
        print(f"{name}: left out, {why}")
    make_table(
        arguments,
        [name for name in names if name not in lacking],
        lambda name, seed: make(name, seed, there),
        extra={"missing": lacking},
        **more,
    )


# ---- tables 1 and 2: prompts ----

BY_MODEL = {f"{model}-{how}": (model,) for model in MODELS for how in ("raw", "recap")}
"""Rows, and the parts that they need."""


def _of_prompts(
    name: str,
    what: str,
    measure: "Callable[[Sequence[Told], Sequence[Pixels]], Found]",
    *,
    pictures: bool,
) -> None:
    """Teacher and student on prompts as they are and rewritten; with their first frames or not."""
    parser = _parser(name, list(BY_MODEL))
    parser.add_argument("--videos", type=int, default=48, help=f"{what} (%(default)s)")
    arguments = parser.parse_args()

    def row_of(row: str, seed: int, places: Places) -> Found:
        model, how = row.split("-")
        folder = places.folders[model]
        steps = _steps(arguments, model)

        def make() -> Found:
            told = asked_for(arguments.videos)
            prompts = [one.rewritten if how == "recap" else one.prompt for one in told]
            first = [one.picture for one in told] if pictures else None
            videos = _videos(folder, prompts, steps, seed, first)
            return {"says": MODELS[model], **measure(told, videos)}

        asked = [row, seed, arguments.videos, weights_hash(folder), steps]
        return kept(arguments.work / f"{row}-{seed}.json", hash_json(asked), make)

    _table(
        arguments,
        BY_MODEL,
        lambda: _places(teacher=arguments.model, student=arguments.student),
        row_of,
        budget=f"{arguments.videos} videos a row and seed",
        line=_line,
        settings=("model", "student", "steps", "videos"),
    )


@dataclass(frozen=True, kw_only=True)
class Told:
    """A prompt as somebody wrote it, as the rules want it, and what it tells of."""

    style: str
    prompt: str
    rewritten: str
    scene: Scene

    @property
    def picture(self) -> Pixels:
        """The true first frame, (1, height, width, 3)."""
        return small_clip(self.scene, frames=1)


def asked_for(count: int) -> list[Told]:
    """Held-out scenes, each told in one of the `STYLES` by turns."""
    from colibri.core.captions.rewrite import rewrite
    from colibri.core.captions.rules import check, violates
    from colibri.testbed.train.family import held_out_scenes

    rng = np.random.default_rng(7)
    names = list(STYLES)
    told = []
    for index, scene in enumerate(held_out_scenes(count)):
        style = names[index % len(names)]
        prompt = STYLES[style](scene, rng)
        if style in ONE_SHAPE:
            scene = replace(scene, shapes=scene.shapes[:1])
        rewritten = prompt  # as `infer --recap auto` does: what is fine or cannot be mended stays
        if violates(check(prompt, prompt)):
            with contextlib.suppress(RowError):
                rewritten = rewrite(prompt)
        told.append(Told(style=style, prompt=prompt, rewritten=rewritten, scene=scene))
    return told


def means(scores: Sequence[Score]) -> Found:
    """Of quality, semantics, their total and each part."""
    return {
        "quality": fmean(one.quality.mean for one in scores),
        "semantic": fmean(one.semantic.mean for one in scores),
        "total": fmean(one.total for one in scores),
        "right": fmean(one.right for one in scores),
        "parts": {
            half: {
                field.name: fmean(getattr(getattr(one, half), field.name) for one in scores)
                for field in fields(getattr(scores[0], half))
            }
            for half in ("quality", "semantic")
        },
    }


def _scores(told: Sequence[Told], videos: Sequence[Pixels]) -> list[Score]:
    return [score(video, one.scene) for video, one in zip(videos, told, strict=True)]


def _videos(
    folder: Path,
    prompts: Sequence[str],
    steps: int | None,
    seed: int,
    pictures: Sequence[Pixels] | None = None,
) -> list[Pixels]:
    from colibri.core import wan

    model = wan.load(folder)
    way: Way = own_way(model, steps=steps)
    made = sampled(model, prompts, way=way, seed=1_000_000 * seed, pictures=pictures)
    return [video for _, _, videos in made for video in videos]


def _steps(arguments: argparse.Namespace, model: str) -> int | None:
    steps: int | None = arguments.steps if model == "teacher" else None
    return steps


def _line(key: str, found: Found) -> str:
    figures = "  ".join(
        f"{name} {value:.3f}" for name, value in found.items() if isinstance(value, float)
    )
    return f"{key:<28}{figures}"


# ---- table 1: text ----


def _t2v(name: str) -> None:
    _of_prompts(name, "held-out scenes", _asked, pictures=False)


def _asked(told: Sequence[Told], videos: Sequence[Pixels]) -> Found:
    """Scores of all, and of each style."""
    scores = _scores(told, videos)
    styles = {
        style: means([one for one, it in zip(scores, told, strict=True) if it.style == style])
        for style in STYLES
        if any(one.style == style for one in told)
    }
    changed = fmean(one.prompt != one.rewritten for one in told)
    return {"rewritten": changed, **means(scores), "styles": styles}


# ---- table 2: a first frame ----


def _i2v(name: str) -> None:
    _of_prompts(name, "first frames", _held, pictures=True)


def _held(told: Sequence[Told], videos: Sequence[Pixels]) -> Found:
    """What stays of the first frames, and scores."""
    held = [
        consistency(video, one.picture[0], one.scene)
        for video, one in zip(videos, told, strict=True)
    ]
    return {
        "subject": fmean(one[0] for one in held),
        "background": fmean(one[1] for one in held),
        **means(_scores(told, videos)),
    }


def consistency(video: Pixels, picture: Pixels, scene: Scene) -> tuple[float, float]:
    """How much of a first frame's subjects and background stays in a video; 1 is all of it.

    Subject: 1 less the mean distance in colour, in 255 levels, of each frame's subject to the
    picture's, 0 where it is not found. Background: the same over pixels that no subject of either
    is near. No learned features: not VBench's figures of these names.
    """
    from colibri.testbed.render import coverage

    height, width = picture.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    seen, side = read(video), min(height, width)
    near = np.zeros(video.shape[:3], bool)
    for thing in seen.things:
        for index, (row, column) in enumerate(thing.track):
            if not np.isnan(row):
                near[index] |= (
                    np.hypot(rows - row, columns - column) < 1.25 * thing.radius * side + 3
                )
    subjects = []
    free = list(seen.things)
    for shape in scene.shapes:
        cover = coverage(shape, 0.0, height, width)
        near |= cover > 0.02
        colour = picture[cover > 0.95].mean(0)
        place = shape.row * height, shape.column * width
        begun = [thing for thing in free if not np.isnan(thing.track[0]).any()]
        found = min(begun, key=lambda one: np.hypot(*(one.track[0] - place)), default=None)
        if found is None:
            subjects.append(0.0)
            continue
        free.remove(found)
        for index, (row, column) in enumerate(found.track):
            if np.isnan(row):
                subjects.append(0.0)
                continue
            core = np.hypot(rows - row, columns - column) < max(1.5, 0.35 * found.radius * side)
            subjects.append(1 - np.abs(video[index][core].mean(0) - colour).mean() / 255)
    away = np.abs(video.astype(np.float32) - picture)[~near]
    return float(np.mean(subjects)), float(1 - away.mean() / 255) if away.size else 0.0


# ---- table 3: seconds ----

RUNTIME = {
    "teacher": ("teacher",),
    "student": ("student",),
    "student-light": ("student", "decoder"),
}
STAGES = ("text", "denoise", "decode", "write")


def _runtime(name: str) -> None:
    parser = _parser(name, list(RUNTIME))
    parser.add_argument("--decoder", help="folder of a light decoder")
    parser.add_argument("--rounds", type=int, default=5, help="after one that is not counted")
    arguments = parser.parse_args()
    makers: dict[str, Maker] = {}
    seconds: dict[str, list[dict[str, float]]] = {}

    def timed(row: str, _seed: int, places: Places) -> Found:
        if not seconds:  # at the first row all rows take turns
            names = [one for one in names_of(arguments, RUNTIME) if _there(one, places)]
            makers.update({one: Maker(one, arguments, places) for one in names})
            seconds.update({one: [] for one in names})
            for counted in range(arguments.rounds + 1):
                for one, maker in makers.items():
                    stages = maker.video()
                    if counted:
                        seconds[one].append(stages)
        totals = [sum(one.values()) for one in seconds[row]]
        return {
            "says": makers[row].says,
            **{f"{stage}_s": median(one[stage] for one in seconds[row]) for stage in STAGES},
            "total_s": median(totals),
            "all_s": totals,
        }

    arguments.seeds = "0"
    _table(
        arguments,
        RUNTIME,
        lambda: _places(
            teacher=arguments.model, student=arguments.student, decoder=arguments.decoder
        ),
        timed,
        budget=f"{arguments.rounds} rounds by turns, and one before",
        line=_line,
        settings=("model", "student", "decoder", "steps", "rounds"),
    )


def _there(row: str, places: Places) -> bool:
    return not any(part in places.missing for part in RUNTIME[row])


class Maker:
    """A loaded model that makes one video, stage by stage. Loading is in no stage."""

    def __init__(self, row: str, arguments: argparse.Namespace, places: Places) -> None:
        from colibri.infer import models
        from colibri.infer.config import LookConfig
        from colibri.infer.denoise import load_denoiser
        from colibri.infer.jobs import job_of
        from colibri.infer.settings import make_recipes

        part = RUNTIME[row][0]
        self.machine = models.choose_machine(None)
        source = models.find_model(str(places.folders[part]))
        config = LookConfig(steps=_steps(arguments, part), recap="off")
        (planned,) = make_recipes(config, [job_of(PROMPT, 0)], source, self.machine, say=_quiet)
        self.recipe = planned.recipe
        self._text = models.load(source, self.machine, "tokenizer", "text_encoder")
        self._model = load_denoiser(source, self.machine, self.recipe)
        self._light: Any = None
        if "decoder" in RUNTIME[row]:
            from colibri.vae.load import load_decoder

            self._light = load_decoder(places.folders["decoder"], device=self.machine.device)
        guidance = self.recipe.guidance
        self.says = f"{self.recipe.flow.steps} steps, " + (
            "no guidance" if guidance == 1 else f"guidance {guidance:g}"
        )

    def video(self) -> dict[str, float]:
        """Make it; seconds of each stage."""
        from colibri.core.video import write_video
        from colibri.infer.denoise import denoise, encode_prompt, needed_prompts

        stages: dict[str, float] = {}

        def timed(name: str, work: Callable[[], Any]) -> Any:
            self._wait()
            begin = time.perf_counter()
            made = work()
            self._wait()
            stages[name] = time.perf_counter() - begin
            return made

        words = timed(
            "text",
            lambda: {one: encode_prompt(self._text, one) for one in needed_prompts(self.recipe)},
        )
        latents = timed("denoise", lambda: denoise(self._model, self.recipe, words, None))
        frames = timed("decode", lambda: self._decode(latents))
        with tempfile.TemporaryDirectory() as folder:
            file, fps = Path(folder) / "video.mp4", Fraction(self.recipe.fps)
            timed("write", lambda: write_video(file, iter(frames), fps=fps, exact=True))
        return stages

    def _decode(self, latents: Any) -> Any:
        import torch
        from colibri.core.wan.decoder import to_frames
        from colibri.infer.finish import decode_clip

        if self._light is None:
            return decode_clip(self._model, self.machine, latents, mode="auto", say=_quiet)[0]
        raw = self._model.family.stats.unnormalise(latents.float())
        with torch.no_grad():
            return to_frames(self._light.decode(raw))[0]

    def _wait(self) -> None:
        import torch

        if self.machine.device.startswith("cuda"):
            torch.cuda.synchronize(self.machine.device)


def _quiet(_line: str) -> None:
    """Nobody reads it: figures are printed row by row."""


if __name__ == "__main__":
    command(main)
