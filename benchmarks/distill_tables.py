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
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean

from colibri.core import wan
from colibri.core.config import load_toml
from colibri.core.hashing import hash_json
from colibri.core.schedule import FlowSchedule
from colibri.distill.cli import recipe
from colibri.distill.config import ScheduleConfig, TrainConfig
from colibri.testbed.embedded import PREFIX, STUDENT
from colibri.testbed.score import Quality, Semantics
from rows import Found, command, kept, make_table, names_of, row_parser
from sampling import Way, folder_of, sampled

CAPTIONS = ("curated", "action-only", "over-long", "camera-heavy")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    group: str
    says: str
    change: Callable[[TrainConfig], TrainConfig] = lambda config: config
    captions: str = "curated"
    mismatched: bool = False
    """Whether it is run on other noise levels than those of training."""


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


def _mismatched() -> FlowSchedule:
    """The first three of 1000, 750, 500, 250 at twice the shift that was trained."""
    return FlowSchedule.listed((1000, 750, 500), shift=6.0)


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
        mismatched=True,
    ),
    **{
        f"captions-{style}": Row(group="captions", says=f"{style} captions", captions=style)
        for style in CAPTIONS[1:]
    },
}


TEACHER = {"teacher, 50 steps, CFG 4": (50, 4.0), "teacher, 3 steps, no CFG": (3, 1.0)}
"""Rows that are not trained: steps and guidance."""
SHIPPED = "shipped student, 3 steps"
"""The embedded one, which was trained for longer than a row."""


def main() -> None:
    """Every row and seed, then the table."""
    parser = row_parser(__doc__, ROWS, work="out/distill-tables", out="distill_tables.json")
    parser.add_argument("--teacher", default="tiny-ti2v", help="folder or name")
    parser.add_argument("--budget-s", type=float, default=600, help="of training, for one row")
    parser.add_argument("--steps", type=int, default=None, help="at most so many steps a row")
    parser.add_argument("--prompts", type=int, default=48, help="held-out scenes that are scored")
    parser.add_argument("--data-rows", type=int, default=2048, help="prompts that are trained on")
    arguments = parser.parse_args()
    done = make_table(
        arguments,
        names_of(arguments, ROWS),
        lambda name, seed: _row(arguments, name, seed),
        budget=f"{arguments.budget_s:.0f} s of training a row, {arguments.prompts} prompts",
        line=_line,
        settings=("teacher", "budget_s", "steps", "prompts", "data_rows"),
        before=lambda: (
            {name: _teacher_row(arguments, name) for name in TEACHER}
            | {SHIPPED: _shipped_row(arguments)}
        ),
    )
    if done:
        print(_table(done))


def _row(arguments: argparse.Namespace, name: str, seed: int) -> Found:
    from colibri.distill.teacher import teacher_folder

    teacher = teacher_folder(arguments.teacher)
    asked = _asked(arguments, name, arguments.budget_s, arguments.steps, arguments.data_rows)
    path = arguments.work / name / str(seed) / "row.json"
    return kept(path, asked, lambda: _make(arguments, teacher, name, seed))


def _asked(arguments: argparse.Namespace, *settings: object) -> str:
    return hash_json([arguments.teacher, arguments.prompts, MEASURED, *settings])


def _make(arguments: argparse.Namespace, teacher: Path, name: str, seed: int) -> Found:
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
    model = wan.load(student)
    schedule = _mismatched() if row.mismatched else model.sampling_schedule()
    return {
        "says": row.says,
        "group": row.group,
        "budget_s": arguments.budget_s,
        "steps": lines[-1]["step"] + 1,
        "student_updates": sum("gradient_norm/student" in line for line in lines),
        "seconds": sum(float(line["seconds"]) for line in lines),
        **_scores(arguments, model, Way(sampler="consistency", schedule=schedule)),
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


MEASURED = "semantic quality right motion parts"
"""What is measured of a row; rows that lack some of it are measured again."""


def _teacher_row(arguments: argparse.Namespace, name: str) -> Found:
    from colibri.core.wan.sampler import schedule_for
    from colibri.distill.teacher import teacher_folder

    steps, guidance = TEACHER[name]

    def load() -> tuple[wan.WanModel, Way]:
        model = wan.load(teacher_folder(arguments.teacher))
        schedule = schedule_for("euler", steps, model.family.defaults.shift)
        return model, Way(sampler="euler", schedule=schedule, guidance=guidance)

    return _untrained(arguments, name, "teacher", load)


def _shipped_row(arguments: argparse.Namespace) -> Found:
    folder = folder_of(PREFIX + STUDENT)

    def load() -> tuple[wan.WanModel, Way]:
        model = wan.load(folder)
        return model, Way(sampler="consistency", schedule=model.sampling_schedule())

    return _untrained(arguments, SHIPPED, "shipped", load, wan.hash_part(folder, "transformer"))


def _untrained(
    arguments: argparse.Namespace,
    name: str,
    group: str,
    load: Callable[[], tuple[wan.WanModel, Way]],
    *bound: object,
) -> Found:
    """A row that is scored alone; measured again where what it is `bound` to changes."""

    def make() -> Found:
        return {"says": name, "group": group, "steps": 0, **_scores(arguments, *load())}

    return kept(arguments.work / f"{name}.json", _asked(arguments, name, *bound), make)


def _scores(arguments: argparse.Namespace, model: wan.WanModel, way: Way) -> Found:
    """Semantic, quality and all-right shares from text, and from a given first frame."""
    from colibri.testbed.score import score
    from colibri.testbed.small import small_clip
    from colibri.testbed.train.family import held_out_scenes, prompts

    scenes = held_out_scenes(arguments.prompts)
    found: Found = {}
    for kind in ("text", "image"):
        pictures = [small_clip(scene, frames=1) for scene in scenes] if kind == "image" else None
        scores, motion = [], []
        for start, latents, videos in sampled(
            model, prompts(scenes, 0), way=way, pictures=pictures
        ):
            part = scenes[start : start + len(videos)]
            motion.append(float(latents.diff(dim=2).square().mean()))
            scores += [score(video, scene) for video, scene in zip(videos, part, strict=True)]
        found[kind] = {
            "semantic": fmean(one.semantic.mean for one in scores),
            "quality": fmean(one.quality.mean for one in scores),
            "right": fmean(one.right for one in scores),
            "motion": fmean(motion),
            "parts": {
                "semantic": _means([one.semantic for one in scores]),
                "quality": _means([one.quality for one in scores]),
            },
        }
    return found


def _means(halves: Sequence[Semantics] | Sequence[Quality]) -> dict[str, float]:
    return {
        field.name: fmean(getattr(one, field.name) for one in halves) for field in fields(halves[0])
    }


def _line(key: str, found: Found) -> str:
    cells = [f"{key:<28}{found.get('steps', 0):>7}"]
    for kind in ("text", "image"):
        cells += [f"{found[kind][name]:>9.3f}" for name in ("semantic", "quality", "right")]
    return "".join(cells) + f"  {found['says']}"


def _table(done: Mapping[str, Found]) -> str:
    head = f"{'':<28}{'steps':>7}" + "".join(
        f"{name:>9}" for name in ("t semant", "quality", "right", "i semant", "quality", "right")
    )
    return "\n".join(["", head, *(_line(key, found) for key, found in done.items())])


if __name__ == "__main__":
    command(main)
