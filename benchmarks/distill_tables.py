"""Distillation in the small world, row by row, each within one printed budget of time.

A row changes one thing in the recipe `tiny`: number of steps, loss, form of the student, text alone
or joint, schedule, style of captions (action-only, over-long and camera-heavy captions against
curated ones). Every student is scored on the same held-out prompts, from text and from a first
frame. Training time counts; loading, encoding and scoring do not. A row that is finished is kept,
one that was stopped goes on: run the same command again.

    python benchmarks/distill_tables.py --budget-s 600
    python benchmarks/distill_tables.py --rows base,regress --budget-s 600 --seeds 0,1
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colibri.core.config import load_toml
from colibri.core.errors import UserError
from colibri.core.shards import write_json_whole
from colibri.distill.cli import recipe
from colibri.distill.config import ScheduleConfig, TrainConfig

CAPTIONS = ("curated", "action-only", "over-long", "camera-heavy")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    group: str
    says: str
    change: Callable[[TrainConfig], TrainConfig] = lambda config: config
    captions: str = "curated"
    sampled: tuple[float, ...] | None = None
    """Sigmas of inference, where they are not those of training."""


def _steps(*steps: float, shift: float = 3.0) -> Callable[[TrainConfig], TrainConfig]:
    return lambda c: replace(c, schedule=ScheduleConfig(steps=steps, shift=shift))


def _terms(*terms: str) -> Callable[[TrainConfig], TrainConfig]:
    return lambda c: replace(c, terms=terms)


def _share(p_i2v: float) -> Callable[[TrainConfig], TrainConfig]:
    return lambda c: replace(c, p_i2v=p_i2v)


def _lora(rank: int) -> Callable[[TrainConfig], TrainConfig]:
    return lambda c: replace(
        c,
        mode="lora",
        student=replace(c.student, rank=rank, lr=3 * c.student.lr),
        critic=replace(c.critic, rank=rank, lr=3 * c.critic.lr),
    )


def _mismatched() -> tuple[float, ...]:
    """The first three of 1000, 750, 500, 250 at twice the shift that was trained."""
    from colibri.core.schedule import FlowSchedule

    return FlowSchedule.listed((1000, 750, 500), shift=6.0).sigmas[:-1]


ROWS = {
    "base": Row(group="all", says="3 steps, dmd, full, joint, shift 3, curated"),
    "steps-1": Row(group="steps", says="1 step", change=_steps(1000)),
    "steps-2": Row(group="steps", says="2 steps", change=_steps(1000, 500)),
    "steps-4": Row(group="steps", says="4 steps", change=_steps(1000, 750, 500, 250)),
    "regress": Row(group="loss", says="regression", change=_terms("regress")),
    "consistency": Row(
        group="loss", says="dmd + consistency", change=_terms("dmd", "consistency", "denoise")
    ),
    "diversity": Row(
        group="loss", says="dmd + diversity", change=_terms("dmd", "diversity", "denoise")
    ),
    "lora-16": Row(group="form", says="lora, rank 16, 3 x the rates", change=_lora(16)),
    "lora-64": Row(group="form", says="lora, rank 64, 3 x the rates", change=_lora(64)),
    "text-only": Row(group="data", says="text to video alone", change=_share(0.0)),
    "image-only": Row(group="data", says="image to video alone", change=_share(1.0)),
    "shift-1": Row(group="schedule", says="shift 1", change=_steps(1000, 750, 500, shift=1.0)),
    "shift-5": Row(group="schedule", says="shift 5", change=_steps(1000, 750, 500, shift=5.0)),
    "mismatch": Row(
        group="schedule",
        says="trained on 4 steps, run on the first 3 at twice the shift",
        change=_steps(1000, 750, 500, 250),
        sampled=(),
    ),
    **{
        f"captions-{style}": Row(group="captions", says=f"{style} captions", captions=style)
        for style in CAPTIONS[1:]
    },
}


def main() -> None:
    """Every row and seed, then the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", default="tiny-ti2v", help="folder or name")
    parser.add_argument("--budget-s", type=float, default=600, help="of training, for one row")
    parser.add_argument("--steps", type=int, default=None, help="at most so many steps a row")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seeds", default="0", help="a row is trained once for each")
    parser.add_argument("--prompts", type=int, default=48, help="held-out scenes that are scored")
    parser.add_argument("--data-rows", type=int, default=2048, help="prompts that are trained on")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--work", type=Path, default=Path("out/distill-tables"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/distill_tables.json"))
    arguments = parser.parse_args()
    names = [name for name in arguments.rows.split(",") if name]
    if unknown := sorted(set(names) - set(ROWS)):
        parser.error(f"--rows {unknown[0]}: one of {', '.join(ROWS)}")
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        _run(arguments, names)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def _run(arguments: argparse.Namespace, names: list[str]) -> None:
    import torch
    from colibri.distill.teacher import teacher_folder

    teacher = teacher_folder(arguments.teacher)
    print(f"{arguments.budget_s:.0f} s of training a row, {arguments.prompts} held-out prompts")
    done: dict[str, dict[str, Any]] = {}
    for name in ("teacher, 50 steps, CFG 4", "teacher, 3 steps, no CFG"):
        done[name] = _kept(arguments.work / f"{name}.json") or _score_teacher(
            arguments, teacher, name
        )
    for name in names:
        for seed in (int(text) for text in arguments.seeds.split(",")):
            key = f"{name}/{seed}"
            path = arguments.work / name / str(seed) / "row.json"
            found = _kept(path)
            if found is None or found["budget_s"] != arguments.budget_s:
                found = _make(arguments, teacher, name, seed)
                write_json_whole(path, found)
            done[key] = found
            print(_line(key, found), flush=True)
    print(_table(done))
    write_json_whole(
        arguments.out,
        {
            "date": time.strftime("%Y-%m-%d"),
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "settings": {
                "budget_s": arguments.budget_s,
                "prompts": arguments.prompts,
                "data_rows": arguments.data_rows,
                "seeds": arguments.seeds,
            },
            "rows": done,
        },
    )


def _kept(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _make(arguments: argparse.Namespace, teacher: Path, name: str, seed: int) -> dict[str, Any]:
    """Train one row within the budget, going on where it was stopped, and score it."""
    from colibri.distill.page import read_log
    from colibri.distill.train import train

    row = ROWS[name]
    out = arguments.work / name / str(seed)
    base = load_toml(TrainConfig, recipe("tiny"))
    config = row.change(
        replace(
            base,
            teacher=str(teacher),
            encoded=_encoded(arguments, teacher, row.captions),
            out=out,
            seed=seed,
            steps=arguments.steps or 10**6,
            validate_every=0,
            save_every=50,
            keep=1,
        )
    )
    spent = sum(float(line["seconds"]) for line in read_log(out / "log.jsonl"))
    ends = time.monotonic() + max(0.0, arguments.budget_s - spent)
    print(f"{name}/{seed}: {row.says}; {spent:.0f} s of {arguments.budget_s:.0f} spent", flush=True)
    student = train(config, say=lambda _: None, enough=lambda: time.monotonic() >= ends)
    assert student is not None
    lines = read_log(out / "log.jsonl")
    return {
        "says": row.says,
        "group": row.group,
        "budget_s": arguments.budget_s,
        "steps": lines[-1]["step"] + 1,
        "student_updates": sum("gradient_norm/student" in line for line in lines),
        "seconds": sum(float(line["seconds"]) for line in lines),
        **_scores(arguments, student, sampled=_mismatched() if row.sampled == () else row.sampled),
    }


def _encoded(arguments: argparse.Namespace, teacher: Path, style: str) -> Path:
    """The same scenes in captions of one style, encoded once."""
    from colibri.distill.config import EncodeConfig
    from colibri.distill.embedded import write_embedded
    from colibri.distill.encode import encode
    from colibri.testbed import captions

    styles = {
        "curated": (captions.terse, captions.plain),
        "action-only": (captions.short,),
        "over-long": (captions.long,),
        "camera-heavy": (captions.camera_heavy,),
    }[style]
    out = Path(arguments.work) / f"encoded-{style}"
    shards = write_embedded(out / "shards", rows=arguments.data_rows, styles=styles)
    encode(EncodeConfig(shards=shards, out=out / "out", model=str(teacher)))
    return out / "out"


# ---- scores ----


def _score_teacher(arguments: argparse.Namespace, teacher: Path, name: str) -> dict[str, Any]:
    steps, guidance = (50, 4.0) if name.startswith("teacher, 50") else (3, 1.0)
    found = {"says": name, "group": "teacher", "steps": 0}
    found |= _scores(arguments, teacher, steps=steps, guidance=guidance)
    write_json_whole(arguments.work / f"{name}.json", found)
    return found


def _scores(
    arguments: argparse.Namespace,
    folder: Path,
    *,
    steps: int | None = None,
    guidance: float = 1.0,
    sampled: tuple[float, ...] | None = None,
) -> dict[str, Any]:
    """Semantic, quality and all-right shares from text, and from a given first frame."""
    import torch
    from colibri.core import wan
    from colibri.core.geometry import VideoShape
    from colibri.core.schedule import FlowSchedule
    from colibri.core.wan.decoder import (
        LatentStats,
        WanDecoder,
        decode_latents,
        encode_video,
        to_frames,
        to_pixels,
    )
    from colibri.core.wan.rollout import whole_clip
    from colibri.core.wan.sampler import schedule_for, seeds
    from colibri.core.wan.text import encode_text
    from colibri.testbed.score import score
    from colibri.testbed.small import FRAMES, SIDE, small_clip
    from colibri.testbed.train.family import held_out_scenes, prompts

    model = wan.load(folder)
    shape = model.family.latent_shape(VideoShape(frames=FRAMES, height=SIDE, width=SIDE))
    scenes = held_out_scenes(arguments.prompts)
    tokens = model.family.defaults.text_tokens
    text, null = (
        encode_text(model.tokenizer, model.text_encoder, words, max_tokens=tokens)
        for words in (prompts(scenes, 0), [""])
    )
    if steps is not None:
        sampler, schedule = "euler", schedule_for("euler", steps, model.family.defaults.shift)
    else:
        sampler, schedule = "consistency", model.sampling_schedule()
    if sampled is not None:
        schedule = FlowSchedule.explicit(sampled)
    stats, decoder = LatentStats.of(model.vae.config), WanDecoder(model.vae)
    found: dict[str, Any] = {}
    for kind in ("text", "image"):
        scores, motion = [], []
        for start in range(0, len(scenes), 8):
            part = slice(start, start + 8)
            first = None
            if kind == "image":
                pictures = [to_pixels(small_clip(scene, frames=1)) for scene in scenes[part]]
                first = encode_video(model.vae, torch.cat(pictures))
            latents = whole_clip(
                model.transformer,
                text[part],
                shape=shape,
                schedule=schedule,
                generator=seeds(start, len(scenes[part])),
                sampler=sampler,
                guidance=guidance,
                negative_BLD=null if guidance != 1 else None,
                first_BCTHW=first,
            )
            motion.append(float(latents.diff(dim=2).square().mean()))
            videos = to_frames(decode_latents(decoder, latents, stats))
            scores += [score(video, scene) for video, scene in zip(videos, scenes[part])]  # noqa: B905
        count = len(scores)
        found[kind] = {
            "semantic": math.fsum(one.semantic.mean for one in scores) / count,
            "quality": math.fsum(one.quality.mean for one in scores) / count,
            "right": math.fsum(one.right for one in scores) / count,
            "motion": math.fsum(motion) / len(motion),
        }
    return found


def _line(key: str, found: dict[str, Any]) -> str:
    cells = [f"{key:<28}{found.get('steps', 0):>7}"]
    for kind in ("text", "image"):
        cells += [f"{found[kind][name]:>9.3f}" for name in ("semantic", "quality", "right")]
    return "".join(cells) + f"  {found['says']}"


def _table(done: dict[str, dict[str, Any]]) -> str:
    head = f"{'':<28}{'steps':>7}" + "".join(
        f"{name:>9}" for name in ("t semant", "quality", "right", "i semant", "quality", "right")
    )
    return "\n".join(["", head, *(_line(key, found) for key, found in done.items())])


if __name__ == "__main__":
    main()
