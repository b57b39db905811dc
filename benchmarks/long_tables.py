"""Long clips in the small world, row by row: starts, self-forcing, windows, the sink, and speed.

Every row is the recipe `tiny-long` with one thing changed; rows that share a stage share its run.
Students make clips of `--windows` times the training length from held-out prompts. Each window of
the training length is scored by itself: what was asked (`testbed.score`) and the drift since the
first (`distill.drift`); the seam meter compares block edges with latent edges inside blocks. FPS is
`infer long` with one clip: denoising, decoding, compressing, writing; at the end all rows whose
students are there take turns, and medians are kept. Budgets are steps, so the machine's load
changes the seconds alone. Stages that are done are kept, one that was stopped goes
on: run the same command again.

    python benchmarks/long_tables.py
    python benchmarks/long_tables.py --rows base,no-sink --start-steps 300 --forcing-steps 240
"""

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from colibri.core.errors import UserError
from colibri.core.hashing import hash_json
from colibri.core.shards import write_json_whole
from colibri.testbed.embedded import LONG, PREFIX
from rows import Found, command, kept, make_table, names_of, row_parser
from sampling import folder_of, weights_hash

WITHOUT_FILES = (
    *("--stages.start.terms", "consistency", "--stages.start.consistency.of", "clips"),
    *("--stages.start.pairs.rows", "0"),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    group: str
    says: str
    flags: tuple[str, ...] = ()
    """Of `distill train`, for all its stages."""
    start: bool = True
    """Whether there is a start before self-forcing."""
    until: str = "long"
    """The stage whose student is scored."""
    sink: int | None = None
    """Of inference, where it is not that of training."""
    clips: bool = False
    """Whether training reads real clips."""


ROWS = {
    "base": Row(group="all", says="start on paths, self-forcing, long; window 4, sink 1"),
    "no-long": Row(group="stages", says="start and self-forcing", until="forcing"),
    "start-only": Row(group="stages", says="teacher forcing only, on paths", until="start"),
    "no-start": Row(group="stages", says="self-forcing from the teacher, long", start=False),
    "consistency": Row(
        group="stages",
        says="start by causal consistency on clips",
        flags=WITHOUT_FILES,
        clips=True,
    ),
    "window-2": Row(group="window", says="window 2", flags=("--causal.window", "2")),
    "window-6": Row(group="window", says="window 6", flags=("--causal.window", "6")),
    "one-pass": Row(
        group="past",
        says="blocks seen as their last step saw them: no pass to write the cache",
        flags=("--causal.past", "last_step", "--stages.start.regress.context", "noisy"),
    ),
    "no-sink": Row(group="sink", says="trained without a sink", flags=("--causal.sink", "0")),
    "no-sink-5": Row(
        group="sink",
        says="no sink, window 5: as many keys as base",
        flags=("--causal.sink", "0", "--causal.window", "5"),
    ),
    "sink-off": Row(group="sink", says="trained with the sink, run without", sink=0),
}


SHIPPED = "shipped"
"""The row of a student that is there already (--student)."""


def main() -> None:
    """Every row and seed, then the tables and the JSON."""
    parser = row_parser(__doc__, ROWS, work="out/long-tables", out="long_tables.json")
    parser.add_argument("--teacher", default="tiny-ti2v", help="folder or name, of either layout")
    parser.add_argument(
        "--student",
        default=PREFIX + LONG,
        help="a long student to score beside them: folder or name (%(default)s, if it is there)",
    )
    parser.add_argument("--start-steps", type=int, default=800)
    parser.add_argument("--forcing-steps", type=int, default=900)
    parser.add_argument("--long-steps", type=int, default=480)
    parser.add_argument("--pairs", type=int, default=768, help="paths of the teacher")
    parser.add_argument("--data-rows", type=int, default=2048, help="prompts that are trained on")
    parser.add_argument("--prompts", type=int, default=16, help="held-out scenes that are scored")
    parser.add_argument("--windows", type=int, default=10, help="length, in training lengths")
    parser.add_argument("--seconds", type=float, default=20, help="of the clip that is timed")
    parser.add_argument("--rounds", type=int, default=3, help="of timing, after one not counted")
    arguments = parser.parse_args()
    done = make_table(
        arguments,
        names_of(arguments, ROWS),
        lambda name, seed: _made(arguments, name, seed),
        budget=f"steps a row: start {arguments.start_steps} on {arguments.pairs} paths, "
        f"self-forcing {arguments.forcing_steps}, long {arguments.long_steps}; "
        f"{arguments.prompts} prompts, {arguments.windows} windows",
        line=lambda key, found: f"{key}: {found['says']}; keeps {found['kept']:.3f}",
        settings=(
            *("teacher", "start_steps", "forcing_steps", "long_steps", "pairs", "data_rows"),
            *("prompts", "windows", "student", "seconds"),
        ),
        before=lambda: _shipped(arguments),
    )
    if done:
        _time_by_turns(arguments, done)
        print(tables(done))


def _shipped(arguments: argparse.Namespace) -> dict[str, Found]:
    """The row of --student; an embedded one may be missing, which is said."""
    try:
        folder = folder_of(arguments.student)
    except UserError as error:
        if not arguments.student.startswith(PREFIX):
            raise
        print(f"{SHIPPED}: left out, {error.message}")
        return {}

    def make() -> Found:
        return {
            "says": f"{arguments.student}, as it comes",
            "group": "all",
            "train_s": {},
            **_scores(arguments, folder, sink=None),
        }

    asked = hash_json([arguments.student, weights_hash(folder), *_measured(arguments)])
    return {f"{SHIPPED}/0": kept(arguments.work / f"{SHIPPED}.json", asked, make)}


def _measured(arguments: argparse.Namespace) -> list[object]:
    return [MEASURED, arguments.prompts, arguments.windows]


def _tree(row: Row, seed: int) -> str:
    """The folder of the row's stages: rows that train alike share it."""
    return hash_json([row.flags, row.start, seed])[:8]


def _made(arguments: argparse.Namespace, name: str, seed: int) -> Found:
    """Train what of the row is not there yet, and score its student once."""
    from colibri.core.config import to_table
    from colibri.distill.cli import recipe
    from colibri.distill.page import read_log
    from colibri.distill.stages import read_stages, train_stages

    row = ROWS[name]
    tree = _tree(row, seed)
    flags = [
        *("--teacher", arguments.teacher, "--seed", str(seed), "--out", f"{arguments.work}/{tree}"),
        *("--encoded", str(_encoded(arguments, clips=row.clips))),
        *("--pairs.folder", f"{arguments.work}/pairs-{seed}", "--validate-every", "0"),
        *("--stages.start.pairs.rows", str(arguments.pairs)),
        *("--stages.start.steps", str(arguments.start_steps)),
        *("--stages.forcing.steps", str(arguments.forcing_steps)),
        *("--stages.long.steps", str(arguments.long_steps)),
        *row.flags,
    ]
    stages = {}
    for stage, config in read_stages(recipe("tiny-long"), flags).items():
        if stage != "start" or row.start:
            stages[stage] = config
        if stage == row.until:
            break
    student = train_stages(stages, say=lambda line: line.startswith("stage") and print(line))
    assert student is not None
    told = {stage: to_table(config) for stage, config in stages.items()}

    def make() -> Found:
        logs = {stage: read_log(arguments.work / tree / stage / "log.jsonl") for stage in stages}
        return {
            "says": row.says,
            "group": row.group,
            "train_s": {
                stage: sum(float(line["seconds"]) for line in logs[stage]) for stage in logs
            },
            **_scores(arguments, student, sink=row.sink),
        }

    asked = hash_json([told, row.sink, *_measured(arguments)])
    return kept(arguments.work / tree / f"{name}.json", asked, make)


def _encoded(arguments: argparse.Namespace, *, clips: bool) -> Path:
    """Prompts of the small world, with their clips where asked; encoded once."""
    from colibri.distill.config import EncodeConfig
    from colibri.distill.embedded import write_embedded
    from colibri.distill.encode import encode
    from colibri.distill.teacher import teacher_folder
    from colibri.testbed.small import FRAMES

    out: Path = arguments.work / ("clips" if clips else "prompts")
    shards = write_embedded(out / "shards", rows=arguments.data_rows, videos=clips)
    encode(
        EncodeConfig(
            shards=shards,
            out=out / "out",
            model=str(teacher_folder(arguments.teacher)),
            clips=FRAMES if clips else 0,
        )
    )
    return out / "out"


# ---- scores ----

MEASURED = "kept seam semantic quality flicker colour_change sharpness scene_change"
"""What is measured of a row; rows that lack some of it are measured again."""


def _scores(arguments: argparse.Namespace, folder: Path, *, sink: int | None) -> Found:
    """Means over the clips, a figure a window, of clips made block after block."""
    import torch
    from colibri.core import wan
    from colibri.core.geometry import VideoShape
    from colibri.core.wan.decoder import LatentStats, WanDecoder, decode_latents, to_frames
    from colibri.core.wan.rollout import block_rollout, seeded_noise
    from colibri.core.wan.text import encode_text
    from colibri.testbed.small import FRAMES, SIDE
    from colibri.testbed.train.family import held_out_scenes, prompts

    model = wan.load(folder)
    family, causal, schedule = model.family, model.family.causal, model.schedule
    assert causal is not None
    assert schedule is not None
    causal = causal if sink is None else replace(causal, sink=sink)
    frames = (FRAMES - 1) * arguments.windows + 1
    latents = (frames - 1) // family.codec.time + 1
    blocks = 1 + math.ceil((latents - causal.first_block) / causal.block)
    scenes = held_out_scenes(arguments.prompts)
    text = encode_text(
        model.tokenizer,
        model.text_encoder,
        prompts(scenes, 0),
        max_tokens=family.defaults.text_tokens,
    )
    stats, decoder = LatentStats.of(model.vae.config), WanDecoder(model.vae)
    clips: list[list[dict[str, float]]] = []
    seams: list[float] = []
    for start in range(0, len(scenes), 8):
        part = slice(start, start + 8)
        rolled = block_rollout(
            model.transformer,
            text[part],
            shape=family.latent_shape(VideoShape(frames=FRAMES, height=SIDE, width=SIDE)),
            causal=causal,
            schedule=schedule,
            noise=seeded_noise(range(start, start + len(scenes[part]))),
            blocks=blocks,
        )
        made = torch.cat([block.latents_BCTHW for block in rolled], dim=2)[:, :, :latents]
        for video, scene in zip(
            to_frames(decode_latents(decoder, made, stats)), scenes[part], strict=True
        ):
            clips.append(_by_window(video, scene, FRAMES))
            seams.append(_seam(video, causal, family.codec.time, latents))
    by_window = {
        name: [
            float(np.mean([clip[index][name] for clip in clips])) for index in range(len(clips[0]))
        ]
        for name in clips[0][0]
    }
    asked = by_window["semantic"]
    return {
        "frames": frames,
        "kept": asked[-1] / max(asked[0], 1e-6),
        "seam": float(np.mean(seams)),
        "by_window": by_window,
    }


def _by_window(video: Any, scene: Any, length: int) -> list[dict[str, float]]:
    from colibri.distill.drift import drift, windows
    from colibri.testbed.score import score

    found = []
    for window, change in zip(windows(video, length), drift(video, length), strict=True):
        scores = score(window, scene)
        found.append(
            {
                "semantic": scores.semantic.mean,
                **asdict(scores.semantic),
                "quality": scores.quality.mean,
                "flicker": 1 - scores.quality.steadiness,
                "colour_change": change.colour,
                "sharpness": change.sharpness,
                "scene_change": change.scene,
            }
        )
    return found


def _seam(video: Any, causal: Any, codec_time: int, latents: int) -> float:
    """Edges of blocks against those of other latents."""
    from colibri.distill.drift import seam

    starts = {start for start, _ in causal.blocks(causal.first_block + causal.block * latents)}
    frames = [codec_time * (latent - 1) + 1 for latent in range(1, latents)]
    edges = [frame for latent, frame in enumerate(frames, start=1) if latent in starts]
    return seam(video, edges, sorted(set(frames) - set(edges)) or list(range(1, len(video))))


def _time_by_turns(arguments: argparse.Namespace, done: dict[str, Found]) -> None:
    """Frames a second of every row whose student is there; into `done` and the file of figures.

    One run for all: a row that was timed at another hour cannot be compared.
    """
    found: dict[str, list[float]] = {}
    for counted in range(arguments.rounds + 1):
        for key in done:
            name, _, seed = key.partition("/")
            row = ROWS.get(name)
            folder = (
                arguments.work / _tree(row, int(seed)) / row.until / "student"
                if row
                else folder_of(arguments.student)
            )
            if folder.is_dir():
                speed = _frames_per_s(arguments, folder, sink=row.sink if row else None)
                if counted:
                    found.setdefault(key, []).append(speed)
    for key, one in done.items():
        one.pop("frames_per_s", None)
        if key in found:
            one["frames_per_s"] = statistics.median(found[key])
    table = json.loads(arguments.out.read_text("utf-8"))
    write_json_whole(arguments.out, table | {"rows": done})


def _frames_per_s(arguments: argparse.Namespace, folder: Path, *, sink: int | None) -> float:
    from colibri.infer.long import make_long
    from colibri.infer.long_config import LongConfig

    with tempfile.TemporaryDirectory() as out:
        config = LongConfig(
            prompt="a red circle moves left over a blue background",
            seconds=arguments.seconds,
            model=str(folder),
            sink=sink,
            recap="off",
            out=Path(out),
        )
        speed = make_long(config, say=lambda _: None).speed
    assert speed is not None
    return speed.frames_per_s


# ---- tables ----


def tables(done: Mapping[str, Found]) -> str:
    """The rows, then the curves of what drifts."""
    head = ("first", "last", "kept", "quality", "seam", "fps", "train s")
    lines = [f"{'semantic score':<16}" + "".join(f"{word:>9}" for word in head)]
    for key, found in done.items():
        curves = found["by_window"]
        cells = [
            curves["semantic"][0],
            curves["semantic"][-1],
            found["kept"],
            curves["quality"][-1],
            found["seam"],
            found.get("frames_per_s", math.nan),
        ]
        cells = [f"{cell:>9.3f}" for cell in cells]
        seconds = sum(found["train_s"].values())
        lines.append(f"{key:<16}" + "".join(cells) + f"{seconds:>9.0f}  {found['says']}")
    for curve in ("semantic", "colour_change", "sharpness", "scene_change"):
        lines += ["", f"{curve.replace('_', ' ')}, window after window"]
        for key, found in done.items():
            values = found["by_window"][curve]
            lines.append(f"{key:<16}" + "".join(f"{value:>8.2f}" for value in values))
    return "\n".join(["", *lines, ""])


if __name__ == "__main__":
    command(main)
