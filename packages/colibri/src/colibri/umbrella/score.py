"""`colibri score`: the videos of several models, a folder each, scored and averaged side by side.

Videos of the tiny models are measured by the small world's scorer, from their MP4s. Of others the
scores that stand in the JSON beside them are read, whichever tool wrote them there.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from colibri.core.errors import UserError
from colibri.core.shards import write_json_whole

FORMAT = "colibri-scores/1"


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Whose videos, and where the scores go."""

    videos: Path = Path("videos")
    """A folder with one folder of videos for each model."""
    out: Path = Path("scores.json")
    """The file to write."""


def write_scores(config: ScoreConfig) -> dict[str, Any]:
    """Score every video below each folder of `config.videos`; write and return the table.

    UserError where there are no folders, or a folder without a video that carries its recipe.
    """
    from colibri.infer.outputs import check_file, writing

    if not config.videos.is_dir():
        raise UserError(f"there is no folder {config.videos}", hint="check --videos")
    folders = sorted(path for path in config.videos.iterdir() if path.is_dir())
    if not folders:
        raise UserError(
            f"{config.videos} holds no folders", hint="--videos takes one folder for each model"
        )
    check_file(config.out)
    table = {
        "format": FORMAT,
        "models": {folder.name: _model(folder) for folder in folders},
    }
    with writing(config.out):
        write_json_whole(config.out, table)
    return table


def text(table: dict[str, Any]) -> str:
    """The means for people."""
    lines = [f"{'model':<14}{'videos':>8}{'steps':>7}{'semantic':>10}{'quality':>10}{'total':>10}"]
    for name, model in table["models"].items():
        means = model["mean"]
        figures = "".join(
            f"{means[key]:>10.3f}" if key in means else f"{'-':>10}"
            for key in ("semantic", "quality", "total")
        )
        lines.append(f"{name:<14}{len(model['videos']):>8}{model['steps']:>7}{figures}")
    return "\n".join(lines)


def _model(folder: Path) -> dict[str, Any]:
    from colibri.infer.outputs import videos_below
    from colibri.infer.recipe import read_video
    from colibri.infer.scores import measured, read_scores

    videos: list[dict[str, Any]] = []
    steps = set()
    for path in videos_below(folder):
        recipe, made = read_video(path)
        scores = measured(path, recipe) or read_scores(path, recipe)
        steps.add(recipe.flow.steps)
        videos.append(
            {
                "file": path.relative_to(folder).as_posix(),
                "prompt": recipe.prompt,
                "seed": recipe.seed,
                "frames_sha256": made.frames_sha256,
                "scores": scores.main if scores else {},
            }
        )
    if not videos:
        raise UserError(f"{folder} holds no video", hint="let infer make them first")
    names = sorted({name for video in videos for name in video["scores"]})
    mean = {
        name: round(fmean(v["scores"][name] for v in videos if name in v["scores"]), 4)
        for name in names
    }
    videos.sort(key=lambda video: (video["prompt"], video["seed"], video["file"]))
    return {"mean": mean, "steps": max(steps), "videos": videos}
