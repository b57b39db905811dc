#!/usr/bin/env python3
"""VBench, VBench-I2V, DOVER, LPIPS and FVD, each in an environment of its own, one command each.

    python pipelines/metrics/metrics.py vbench --videos out/t2v/student --row student-recap

makes the environment under --environments, runs the tool, and puts its figures into
`benchmarks/results/TABLE.full.json`, which `pipelines/tables/tables.py` reads. `--plan` prints the
commands and runs none. `--read PATH` runs none either and reads what the tool has written there.

The tools fetch weights at first use and want a GPU. Their pins differ from ours and each other's.
"""

import argparse
import csv
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from colibri.core.errors import UserError
from colibri.core.shards import write_json_whole

HERE = Path(__file__).resolve().parent
DOVER_SHA = "01bb3069b948c366978485dc1f50943639e0365a"
"""Of QualityAssessment/DOVER; its evaluate_a_set_of_videos.py writes the table read here."""


def main() -> int:
    arguments = _parser().parse_args()
    tool = TOOLS[arguments.tool]
    try:
        if arguments.read is None:
            commands = plan(tool, arguments)
            if arguments.plan:
                print("\n".join(shlex.join(command) for command in commands))
                return 0
            run(commands, arguments, tool)
        figures = tool.read(arguments.read or _out(arguments))
        path = record(
            arguments.results / f"{arguments.table or tool.table}.full.json",
            f"{arguments.row}/{arguments.seed}",
            figures,
            tool=f"{arguments.tool} {tool.version}",
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(f"{name:<12}{value:.4f}" for name, value in figures.items() if _plain(value)))
    print(path)
    return 0


Run = Callable[[argparse.Namespace, Path, Path], list[list[str]]]
"""Commands from arguments, the environment's folder and the folder to write to."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A measuring tool: how its environment is made, how it is run, what it writes."""

    version: str
    table: str
    """The published table that its figures belong to."""
    python: str
    """Version that its pins need."""
    install: Callable[[Path], list[list[str]]]
    """Commands that fill the environment in a folder."""
    run: Run
    read: Callable[[Path], dict[str, Any]]
    """Figures of what it has written."""
    named: bool = False
    """Whether files are to be called after their prompts."""


def plan(tool: Tool, arguments: argparse.Namespace) -> list[list[str]]:
    """Every command, the environment's first."""
    home = arguments.environments / arguments.tool
    return [
        ["uv", "venv", "--allow-existing", "--python", tool.python, str(home)],
        *tool.install(home),
        *tool.run(arguments, home, _out(arguments)),
    ]


def run(commands: Sequence[Sequence[str]], arguments: argparse.Namespace, tool: Tool) -> None:
    """Run them all. UserError where uv or the videos are missing, or one fails."""
    if shutil.which("uv") is None:
        raise UserError("there is no uv", hint="pip install uv; it brings the Python that is asked")
    if not any(arguments.videos.rglob("*.mp4")):
        raise UserError(f"{arguments.videos} holds no video", hint="let infer make them first")
    _out(arguments).mkdir(parents=True, exist_ok=True)
    if tool.named:
        named(arguments.videos, _out(arguments) / "videos")
    for command in commands:
        print(f"$ {shlex.join(command)}", flush=True)
        if subprocess.run(command, check=False).returncode:
            raise UserError(f"{command[0]} failed", hint="what it said stands above")


def record(path: Path, row: str, figures: Mapping[str, Any], *, tool: str) -> Path:
    """Put a row's figures into a file of figures; what other tools have put there stays."""
    found: dict[str, Any] = {"rows": {}, "settings": {}}
    if path.is_file():
        found = json.loads(path.read_text("utf-8"))
    found["date"] = time.strftime("%Y-%m-%d")
    found["settings"][tool.split()[0]] = tool.split()[1]
    found["rows"].setdefault(row, {}).update(figures)
    write_json_whole(path, found)
    return path


def named(videos: Path, out: Path) -> None:
    """Links called PROMPT-N.mp4, as VBench looks for them, to videos of `infer`.

    The prompt is the person's own, also where it was rewritten; N counts seeds from 0. UserError
    where a video has no recipe inside.
    """
    from colibri.infer.recipe import read_video

    out.mkdir(parents=True, exist_ok=True)
    by_prompt: dict[str, list[tuple[int, Path]]] = {}
    for video in sorted(videos.rglob("*.mp4")):
        recipe = read_video(video)[0]
        by_prompt.setdefault(recipe.prompt, []).append((recipe.seed, video))
    for prompt, found in by_prompt.items():
        for index, (_, video) in enumerate(sorted(found)):
            link = out / f"{prompt}-{index}.mp4"
            link.unlink(missing_ok=True)
            link.symlink_to(video.resolve())


def _out(arguments: argparse.Namespace) -> Path:
    out: Path = arguments.work / arguments.tool / f"{arguments.row}-{arguments.seed}"
    return out


# ---- VBench ----

# Ranges and weights: Vchitect/VBench scripts/constant.py@7975661c, joined as cal_final_score.py
# does: (minimum, maximum, weight).
QUALITY = {
    "subject_consistency": (0.1462, 1.0, 1.0),
    "background_consistency": (0.2615, 1.0, 1.0),
    "temporal_flickering": (0.6293, 1.0, 1.0),
    "motion_smoothness": (0.706, 0.9975, 1.0),
    "aesthetic_quality": (0.0, 1.0, 1.0),
    "imaging_quality": (0.0, 1.0, 1.0),
    "dynamic_degree": (0.0, 1.0, 0.5),
}
SEMANTIC = {
    "object_class": (0.0, 1.0, 1.0),
    "multiple_objects": (0.0, 1.0, 1.0),
    "human_action": (0.0, 1.0, 1.0),
    "color": (0.0, 1.0, 1.0),
    "spatial_relationship": (0.0, 1.0, 1.0),
    "scene": (0.0, 0.8222, 1.0),
    "appearance_style": (0.0009, 0.2855, 1.0),
    "temporal_style": (0.0, 0.364, 1.0),
    "overall_consistency": (0.0, 0.364, 1.0),
}
I2V_QUALITY = {name: bounds for name, bounds in QUALITY.items() if name != "temporal_flickering"}
I2V = ("i2v_subject", "i2v_background")


def read_vbench(folder: Path) -> dict[str, Any]:
    """Quality, semantic and total in [0, 1] from every `*_eval_results.json` below a folder.

    UserError where a dimension is missing: a mean of some would be no VBench score.
    """
    found = _dimensions(folder)
    _complete(found, [*QUALITY, *SEMANTIC], folder)
    quality, semantic = _weighted(found, QUALITY), _weighted(found, SEMANTIC)
    total = (4 * quality + semantic) / 5
    return {"quality": quality, "semantic": semantic, "total": total, "dimensions": found}


def read_vbench_i2v(folder: Path) -> dict[str, Any]:
    """Consistency with the first frame, as it is measured, and the quality score, in [0, 1]."""
    found = _dimensions(folder)
    _complete(found, [*I2V, *I2V_QUALITY], folder)
    return {
        "subject": found["i2v_subject"],
        "background": found["i2v_background"],
        "quality": _weighted(found, I2V_QUALITY),
        "dimensions": found,
    }


def _dimensions(folder: Path) -> dict[str, float]:
    """{dimension: [mean, [a video, ...]]} in each file: vbench/__init__.py, `evaluate`."""
    found: dict[str, float] = {}
    for path in sorted(folder.rglob("*_eval_results.json")):
        try:
            table = json.loads(path.read_text("utf-8"))
            found |= {name: float(entry[0]) for name, entry in table.items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{path} is no result of VBench") from None
    if not found:
        raise UserError(f"{folder} holds no *_eval_results.json")
    return found


def _complete(found: Mapping[str, float], wanted: Sequence[str], folder: Path) -> None:
    if missing := [name for name in wanted if name not in found]:
        raise UserError(f"{folder} lacks {', '.join(missing)}", hint="run VBench for these too")


def _weighted(found: Mapping[str, float], of: Mapping[str, tuple[float, float, float]]) -> float:
    scaled = [
        weight * (found[name] - low) / (high - low) for name, (low, high, weight) in of.items()
    ]
    return sum(scaled) / sum(weight for _, _, weight in of.values())


def _vbench(kind: str, *groups: Iterable[str]) -> Run:
    dimensions = ",".join(name for group in groups for name in group)

    def commands(arguments: argparse.Namespace, home: Path, out: Path) -> list[list[str]]:
        worker = (str(home / "bin" / "python"), str(HERE / "vbench_worker.py"))
        return [[*worker, kind, str(out / "videos"), str(out), dimensions, arguments.ratio]]

    return commands


def _install_vbench(home: Path) -> list[list[str]]:
    pip = _pip(home)
    detectron = "detectron2@git+https://github.com/facebookresearch/detectron2.git@v0.6"
    return [
        [*pip, "torch==2.1.2", "torchvision==0.16.2", "numpy<2", "setuptools<70"],
        [*pip, "vbench==0.1.5", "numpy<2"],
        [*pip, "--no-build-isolation", detectron],  # for the dimensions that look for objects
    ]


# ---- DOVER ----


def read_dover(path: Path) -> dict[str, Any]:
    """The mean overall score, of 100, from the table of evaluate_a_set_of_videos.py."""
    path = path / "dover.csv" if path.is_dir() else path
    try:
        rows = list(csv.reader(path.read_text("utf-8").splitlines(), skipinitialspace=True))
        # a name may hold commas; the last three cells are the scores
        scores = [[float(cell) for cell in row[-3:]] for row in rows[1:] if row]
    except (OSError, ValueError):
        raise UserError(f"{path} is no table of DOVER") from None
    if not scores:
        raise UserError(f"{path} holds no video")
    aesthetic, technical, overall = (fmean(column) for column in zip(*scores, strict=True))
    return {
        "dover": overall,
        "dover_parts": {"aesthetic": aesthetic, "technical": technical, "videos": len(scores)},
    }


def _install_dover(home: Path) -> list[list[str]]:
    source = str(home / "DOVER")
    weights = str(home / "DOVER" / "pretrained_weights" / "DOVER.pth")
    at = "https://github.com/QualityAssessment/DOVER"
    return [
        ["git", "init", "--quiet", source],
        ["git", "-C", source, "fetch", "--quiet", "--depth", "1", f"{at}.git", DOVER_SHA],
        ["git", "-C", source, "checkout", "--quiet", "FETCH_HEAD"],
        [*_pip(home), "numpy<2", source],
        ["curl", "-fL", "--create-dirs", "-o", weights, f"{at}/releases/download/v0.1.0/DOVER.pth"],
    ]


def _run_dover(arguments: argparse.Namespace, home: Path, out: Path) -> list[list[str]]:
    python, videos, table = (
        shlex.quote(str(path.absolute()))
        for path in (home / "bin" / "python", arguments.videos, out / "dover.csv")
    )
    inside = f"cd {shlex.quote(str(home / 'DOVER'))} && {python} evaluate_a_set_of_videos.py"
    return [["sh", "-c", f"{inside} -in {videos} -out {table}"]]


# ---- LPIPS and FVD ----


def read_worker(path: Path) -> dict[str, Any]:
    """The figures that one of our workers has written."""
    path = path / "figures.json" if path.is_dir() else path
    try:
        found = json.loads(path.read_text("utf-8"))
        return {str(name): float(value) for name, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        raise UserError(f"{path} holds no figures") from None


def _worker(name: str) -> Run:
    def commands(arguments: argparse.Namespace, home: Path, out: Path) -> list[list[str]]:
        if arguments.against is None:
            raise UserError("--against is missing", hint="the folder of the true videos")
        folders = (str(arguments.videos), str(arguments.against), str(out / "figures.json"))
        return [[str(home / "bin" / "python"), str(HERE / name), *folders]]

    return commands


def _packages(*packages: str) -> Callable[[Path], list[list[str]]]:
    return lambda home: [[*_pip(home), *packages]]


def _pip(home: Path) -> list[str]:
    return ["uv", "pip", "install", "--python", str(home)]


TOOLS = {
    "vbench": Tool(
        version="0.1.5",
        table="t2v",
        python="3.10",
        install=_install_vbench,
        run=_vbench("text", QUALITY, SEMANTIC),
        read=read_vbench,
        named=True,
    ),
    "vbench-i2v": Tool(
        version="0.1.5",
        table="i2v",
        python="3.10",
        install=_install_vbench,
        run=_vbench("image", I2V, I2V_QUALITY),
        read=read_vbench_i2v,
        named=True,
    ),
    "dover": Tool(
        version=DOVER_SHA[:8],
        table="long_tables",
        python="3.10",
        install=_install_dover,
        run=_run_dover,
        read=read_dover,
    ),
    "lpips": Tool(
        version="0.1.4",
        table="vae_table",
        python="3.11",
        install=_packages("lpips==0.1.4", "torch==2.6.0", "torchvision==0.21.0", "av==14.2.0"),
        run=_worker("lpips_worker.py"),
        read=read_worker,
    ),
    "fvd": Tool(
        version="0.1.1",
        table="vae_table",
        python="3.11",
        install=_packages("cd-fvd==0.1.1", "torch==2.5.1", "torchvision==0.20.1", "numpy<2"),
        run=_worker("fvd_worker.py"),
        read=read_worker,
    ),
}


def _plain(value: Any) -> bool:
    return isinstance(value, float)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tool", choices=list(TOOLS))
    parser.add_argument("--videos", type=Path, default=Path("out/videos"))
    parser.add_argument("--against", type=Path, help="true videos of the same names (lpips, fvd)")
    parser.add_argument("--ratio", default="16-9", help="of the first frames (vbench-i2v)")
    parser.add_argument("--row", default="student-recap", help="row of the table: a model")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--table", help="where the figures go; without it the tool's own table")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--work", type=Path, default=Path("out/metrics"))
    parser.add_argument("--environments", type=Path, default=Path("out/metrics/environments"))
    parser.add_argument("--plan", action="store_true", help="print the commands and stop")
    parser.add_argument("--read", type=Path, metavar="PATH", help="of what the tool has written")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
